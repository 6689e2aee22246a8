"""How many clusters are few: one set of numbers for every method, and where they come from.

A clustered variance is a sum of as many squares as there are clusters, and it is mostly too small
when these are few or when few of them carry the treatment. There is no sharp border. Cameron and
Miller (2015, "A practitioner's guide to cluster-robust inference", section VI) put it between
fewer than 20 and fewer than 50 clusters of similar size, and higher for unequal ones. What counts
beside the total is each side: with few treated clusters among many others the total is large and
tests still reject far too often (MacKinnon and Webb 2018, "The wild bootstrap for few (treated)
clusters"). Clusters of unequal size are worth fewer (Carter, Schnepel and Steigerwald 2017).

- `FEW`: the upper border for all clusters: a note.
- `FEW_ON_A_SIDE`: the lower border, asked of each side on its own: a note.
- `TOO_FEW_UNCORRECTED`: with a pooled factor and `G - 1` degrees of freedom, tests at 5 % reject
  about 7 % of true hypotheses with 10 treated clusters beside 50 others, 14 % with 5 beside 100 and
  35 % with 2 beside 100: red.
- `TOO_FEW`: below 4 clusters in each of two arms no re-assignment of clusters could be rare enough
  to reject at 5 % (3 and 3: one in 10, two-sided), so any rejection rests on normal errors alone
  (Hayes and Moulton 2017, "Cluster randomised trials", ask for 4): red, whatever the correction.
- `TOO_FEW_PAIRS`: the same for clusters that each hold both arms: 2 / 2^5 is more than 5 %.
"""

from collections.abc import Mapping, Sequence

from causal.core.result import Diagnostic

FEW = 50
FEW_ON_A_SIDE = 20
TOO_FEW_UNCORRECTED = 10
TOO_FEW = 4
TOO_FEW_PAIRS = 6
_NEARLY = 0.25
"""Clusters of nearly one size are worth a little less than their number: no reason for a remark."""


def total(n_clusters: int, *, name: str = "n_clusters", is_corrected: bool = False) -> Diagnostic:
    """How many clusters an error rests on in all.

    Args:
        n_clusters: Clusters, of the column with fewer.
        name: Name of the diagnostic.
        is_corrected: Whether variance and degrees of freedom allow for it, as in `sides`.
    """
    passed = True if n_clusters >= FEW else None
    detail = f"{n_clusters:,} clusters"
    if n_clusters < FEW:
        detail = f"only {n_clusters} clusters: clustered errors tend to be too small below {FEW}"
        if is_corrected:
            detail += "; correction and degrees of freedom allow for it if cluster means are normal"
    return Diagnostic(
        name=name, statistic=float(n_clusters), pvalue=None, passed=passed, detail=detail
    )


def sides(
    counts: Mapping[str, int],
    *,
    name: str,
    effective: Sequence[float] | None = None,
    is_corrected: bool = False,
) -> list[Diagnostic]:
    """Whether each side of a comparison has clusters enough; nothing to say where it has.

    Args:
        counts: Clusters by side (an arm, the treated, the others).
        name: Name of the diagnostic.
        effective: Clusters of one size that each side is worth, or one number if clusters hold
            both sides; `None`: taken to be the counts.
        is_corrected: Whether variance and degrees of freedom look at each side (`cr2` or `cr3`
            with Satterthwaite's), so that few clusters cost power rather than size.
    """
    worth = tuple(effective) if effective is not None else tuple(map(float, counts.values()))
    fewest = min(counts.values())
    least = min(*worth, float(fewest))
    is_paired = len(worth) == 1 and len(counts) > 1
    border = TOO_FEW_PAIRS if is_paired else TOO_FEW
    if not is_corrected and not is_paired:
        border = TOO_FEW_UNCORRECTED
    if least >= FEW_ON_A_SIDE - _NEARLY:
        return []
    is_red = least < border - _NEARLY
    return [
        Diagnostic(
            name=name,
            statistic=float(fewest),
            pvalue=None,
            passed=False if is_red else None,
            detail=_sides_detail(counts, worth, is_red=is_red, is_corrected=is_corrected),
        )
    ]


def _sides_detail(
    counts: Mapping[str, int], worth: Sequence[float], *, is_red: bool, is_corrected: bool
) -> str:
    shown = ", ".join(f"{side} {count:,}" for side, count in counts.items())
    sized = ", ".join(f"{number:.1f}" for number in worth)
    plain = list(counts.values()) if len(worth) > 1 else [max(counts.values())]
    detail = f"clusters: {shown}"
    if [round(number) for number in worth] != plain:
        detail += f", by their sizes worth {sized} of one size"
    if is_red and is_corrected:
        return f"{detail}: too few, the interval rests on the assumption of normal cluster means"
    if is_red:
        return f"{detail}: too few, the interval is too short and tests reject too often"
    return f"{detail}: few, the interval is wide or too short, as cluster means are not normal"
