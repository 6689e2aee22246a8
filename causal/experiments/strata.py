"""Effects that weigh strata by their sizes: post-stratification and blocked assignment.

With the share `w_s` of the units of both arms that lie in stratum s, each arm's mean vector becomes
`sum_s w_s mean_s`, so that both arms have the same composition. Its variance has one part per arm
and stratum, `w_s^2 S_s / n_s`. Strata that are themselves a sample add
`sum_s w_s (d_s - d)(d_s - d)' / n` for the sampled shares, where `d_s` are the arms' mean vectors
in stratum s: for a difference of means that is the spread of the effects over strata. Blocked
definitions take the shares as given by the design and leave it out.

Sources: Holt and Smith (1979), "Post stratification"; Miratrix, Sekhon and Yu (2013), "Adjusting
treatment effect estimates by post-stratification in randomized experiments"; Imbens and Rubin
(2015), chapter 9, for blocks.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from causal.core.errors import DataError
from causal.core.gram import Array, Gram, Key
from causal.core.result import Diagnostic
from causal.experiments.arms import MIN_UNITS, Arms
from causal.experiments.comparison import Comparison, Joint
from causal.experiments.metrics import Metric

Stratification = Literal["post_stratified", "blocked"]

_MAX_SHOWN = 5


def stratified(
    metric: Metric, arms: Arms, *, stratification: Stratification, strata: Sequence[str]
) -> list[Comparison]:
    """Every treatment against control, both weighed to the composition of the two together.

    Args:
        metric: The metric.
        arms: Moments of all arms by stratum.
        stratification: Whether the strata's shares are a sample or given.
        strata: The columns, for messages.

    Raises:
        DataError: A stratum has fewer than two units in an arm: its variance is not known.
    """
    cells = arms.cells[metric.name]
    out = []
    for treatment in arms.levels[1:]:
        pair = (cells[arms.levels[0]], cells[treatment])
        keys = sorted({key for cell in pair for key, item in cell.items() if item.n > 0}, key=str)
        thin = [key for key in keys if any(key not in c or c[key].n < MIN_UNITS for c in pair)]
        if thin:
            raise DataError(
                f"{metric.name}: strata with fewer than {MIN_UNITS} units in an arm of "
                f"{treatment} - {arms.levels[0]}; merge them into larger ones",
                given=[_named(strata, key) for key in thin[:_MAX_SHOWN]],
            )
        grams = tuple([cell[key] for key in keys] for cell in pair)
        shares = _shares((grams[0], grams[1]))
        joint = _joint((grams[0], grams[1]), shares, stratification)
        out.append(
            Comparison(
                metric=metric,
                variants=(arms.levels[0], treatment),
                moments=(_weighed(grams[0], shares), _weighed(grams[1], shares)),
                joint=joint,
            )
        )
    return out


def composition(arms: Arms, metric: Metric, *, strata: Sequence[str]) -> Diagnostic:
    """How many strata there are, and how many units lack a value of their columns."""
    sizes: dict[Key, int] = {}
    for cells in arms.cells[metric.name].values():
        for key, item in cells.items():
            sizes[key] = sizes.get(key, 0) + item.n + item.n_missing
    n_null = sum(size for key, size in sizes.items() if None in key)
    smallest = min(sizes, key=lambda key: (sizes[key], str(key)))
    without = f"; {n_null:,} rows without a value form strata of their own" if n_null else ""
    return Diagnostic(
        name="strata",
        statistic=float(len(sizes)),
        pvalue=None,
        passed=None,
        detail=(
            f"{len(sizes)} strata by {', '.join(strata)}, the smallest "
            f"({_named(strata, smallest)}) with {sizes[smallest]:,} rows{without}"
        ),
    )


def _shares(grams: tuple[list[Gram], list[Gram]]) -> Array:
    counts = np.array([c.n + t.n for c, t in zip(*grams, strict=True)], dtype=np.float64)
    return np.asarray(counts / counts.sum(), dtype=np.float64)


def _weighed(grams: Sequence[Gram], shares: Array) -> Gram:
    """One arm as a Gram: the weighed mean vector and the cross-products within strata."""
    n = sum(item.n for item in grams)
    return Gram(
        grams[0].terms,
        n,
        sum(item.n_missing for item in grams),
        0,
        float(n),
        shares @ np.array([item.mean for item in grams]),
        np.asarray(np.sum([item.cross for item in grams], axis=0), dtype=np.float64),
    )


def _joint(
    grams: tuple[list[Gram], list[Gram]], shares: Array, stratification: Stratification
) -> Joint:
    size = len(grams[0][0].terms)
    parts, dfs = [], []
    for arm, items in enumerate(grams):
        at = slice(arm * size, (arm + 1) * size)
        for share, item in zip(shares, items, strict=True):
            part = np.zeros((2 * size, 2 * size))
            part[at, at] = share**2 * item.covariance / item.n
            parts.append(part)
            dfs.append(item.n - 1.0)
    if stratification == "post_stratified" and len(shares) > 1:
        total = sum(item.n for items in grams for item in items)
        means = np.hstack([np.array([item.mean for item in items]) for items in grams])
        off = means - shares @ means
        parts.append((shares[:, None] * off).T @ off / total)
        dfs.append(total - 1.0)
    return Joint(estimator=stratification, parts=tuple(parts), dfs=tuple(dfs))


def _named(strata: Sequence[str], key: Key) -> str:
    pairs = zip(strata, key, strict=True)
    return ", ".join(f"{name}={'null' if value is None else value}" for name, value in pairs)
