"""Permutation inference for synthetic control: what if a donor had been treated instead?

Abadie, Diamond and Hainmueller (2010): each donor is matched by the other donors as if it were
treated; under no effect the treated region is one of them. With several treated regions, sets of as
many donors are averaged (Cavallo, Galiani, Noy and Pantano 2013), each donor matched by those
outside its set: were they matched by each other, their errors would partly cancel, which those of
the treated regions do not. Intervals invert the test of a constant shift (Firpo and Possebom 2018).
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from causal.core.errors import InferenceError
from causal.quasi.synthetic.donor_fit import DonorFit
from causal.quasi.synthetic.region_panel import Indices

_EPSILON = 1e-9


@dataclass(frozen=True, kw_only=True)
class Average:
    """The average over one or several fitted regions.

    Attributes:
        effect: Mean gap over treated region-periods.
        pre_mspe: Mean squared gap in the matched periods.
        post_mspe: Mean squared gap from the start on.
    """

    effect: float
    pre_mspe: float
    post_mspe: float

    @property
    def studentised(self) -> float:
        """Size of the effect in units of the gap before the start."""
        return _ratio(abs(self.effect), math.sqrt(self.pre_mspe))

    @property
    def rmspe_ratio(self) -> float:
        """Root mean squared gap from the start on over that before."""
        return _ratio(math.sqrt(self.post_mspe), math.sqrt(self.pre_mspe))


@dataclass(frozen=True, kw_only=True)
class PermutationTest:
    """What the placebos say about an average effect.

    Attributes:
        std_error: Standard deviation of the placebo effects.
        pvalue: Share of effects, relative to the fit before, at least as large as the observed.
        ci_lower: Lower end of the inverted test; minus infinity where it can reject nothing.
        ci_upper: Upper end.
        rmspe_pvalue: The same share for the ratio of mean squared gaps after and before.
    """

    std_error: float
    pvalue: float
    ci_lower: float
    ci_upper: float
    rmspe_pvalue: float


def average(fits: Sequence[DonorFit]) -> Average:
    """Pool fits over their region-periods."""
    n_after = [len(item.after) for item in fits]
    n_before = [len(item.task.matched) for item in fits]
    return Average(
        effect=_mean([item.effect for item in fits], n_after),
        pre_mspe=_mean([item.pre_mspe for item in fits], n_before),
        post_mspe=_mean([item.post_mspe for item in fits], n_after),
    )


def placebo_sets(
    n_donors: int, starts: Sequence[int], *, n_sets: int, seed: int
) -> tuple[list[Indices], bool]:
    """Sets of donors that take the place of the treated regions, and whether these are all.

    Args:
        n_donors: J.
        starts: Start of each treated region; a set holds a donor for each, in this order.
        n_sets: Draws where there are more sets than these.
        seed: Of the draws.

    Raises:
        InferenceError: No donor would be left to match a set.
    """
    n_treated = len(starts)
    if n_donors <= n_treated:
        raise InferenceError(
            "placebo inference needs more donors than treated regions: as many donors as treated "
            "regions take their place, and others must be left to match them",
            given=f"{n_donors} donors, {n_treated} treated",
            allowed="more donors, fewer treated regions, or method synthetic_did with "
            "standard_errors: jackknife or bootstrap",
        )
    is_ordered = len(set(starts)) > 1
    count = math.perm(n_donors, n_treated) if is_ordered else math.comb(n_donors, n_treated)
    if count <= n_sets:
        walk = itertools.permutations if is_ordered else itertools.combinations
        return [np.array(chosen) for chosen in walk(range(n_donors), n_treated)], True
    rng = np.random.default_rng(seed)
    return [rng.permutation(n_donors)[:n_treated] for _ in range(n_sets)], False


def permutation_test(
    observed: Average, placebos: Sequence[Average], *, confidence_level: float
) -> PermutationTest:
    """Rank the observed effect among the placebos.

    The interval holds each constant `c` for which `|effect - c|` would not be rejected; it is
    unbounded where `1 / (R + 1)` exceeds `1 - confidence_level`.

    Raises:
        InferenceError: The fit before the start is perfect, so nothing can be compared with it.
    """
    if is_perfect(observed):
        raise InferenceError(
            "the synthetic region matches every period before the start exactly: there is no "
            "error to compare the effect with",
            allowed="fewer donors, more periods before the start, or method synthetic_did",
        )
    n = len(placebos) + 1
    ratios = np.sort([item.studentised for item in placebos])[::-1]
    n_needed = math.floor((1.0 - confidence_level) * n + _EPSILON)
    reach = ratios[n_needed - 1] if n_needed > 0 else np.inf
    half = float(reach) * math.sqrt(observed.pre_mspe)
    return PermutationTest(
        std_error=float(np.std([item.effect for item in placebos])),
        pvalue=_share(observed.studentised, ratios),
        ci_lower=observed.effect - half,
        ci_upper=observed.effect + half,
        rmspe_pvalue=_share(observed.rmspe_ratio, [item.rmspe_ratio for item in placebos]),
    )


def _mean(values: Sequence[float], counts: Sequence[int]) -> float:
    total = sum(value * count for value, count in zip(values, counts, strict=True))
    return total / sum(counts)


def _share(observed: float, placebos: Iterable[float]) -> float:
    found = np.asarray(list(placebos))
    at_least = int((found >= observed * (1.0 - _EPSILON)).sum())
    return (1 + at_least) / (1 + len(found))


def is_perfect(item: Average) -> bool:
    """Whether nothing is left unexplained before the start."""
    return item.pre_mspe <= _EPSILON**2 * max(item.post_mspe, item.effect**2)


def _ratio(value: float, unit: float) -> float:
    """A placebo that fits perfectly counts as more extreme than anything: the safe side."""
    return value / unit if unit > _EPSILON * value else math.inf
