"""Standard errors of synthetic difference in differences: placebo, jackknife and bootstrap.

Algorithms 2 to 4 of Arkhangelsky et al. (2021). Replicates keep the ridges found on the data, as
the authors' package does; weights are fitted anew, except in the jackknife of fixed weights.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from causal.core.errors import InferenceError
from causal.core.gram import Array
from causal.quasi.synthetic.did_weights import Rule, Scale
from causal.quasi.synthetic.region_panel import Indices
from causal.quasi.synthetic.staggered_blocks import Design, DidFit, fit_all, refit_with_weights

Kind = Literal["placebo", "jackknife", "bootstrap"]

_MIN_TREATED = 2
_MAX_REDRAWS = 1_000


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """The effects of the replicates and the standard error that they give.

    Attributes:
        kind: How they were made.
        effects: Shape (R,).
        std_error: The standard error.
        is_exhaustive: Whether every possible replicate was made, so that no seed matters.
    """

    kind: Kind
    effects: Array
    std_error: float
    is_exhaustive: bool


def replicate(
    design: Design, rule: Rule, fitted: DidFit, *, kind: Kind, n_replications: int, seed: int
) -> Replicates:
    """The standard error of a fit.

    Args:
        design: The data.
        rule: How the fit was made.
        fitted: The fit.
        kind: `placebo`, `jackknife` or `bootstrap`.
        n_replications: Draws, where not all replicates can be made.
        seed: Of the draws.

    Raises:
        InferenceError: The design does not allow this kind; says what to do instead.
    """
    rng = np.random.default_rng(seed)
    match kind:
        case "placebo":
            return _placebo(design, rule, fitted.scales, n_replications, rng=rng)
        case "bootstrap":
            return _bootstrap(design, rule, fitted.scales, n_replications, rng=rng)
        case "jackknife":
            return _jackknife(design, fitted)


def _placebo(
    design: Design,
    rule: Rule,
    scales: dict[int, Scale],
    n_replications: int,
    *,
    rng: np.random.Generator,
) -> Replicates:
    """Donors take the place of the treated regions; the spread of their effects is the error.

    Assumes that treated regions and donors vary alike (homoskedastic across regions).
    """
    donors, begins = design.donors, design.starts[design.treated]
    if len(donors) <= len(begins):
        raise InferenceError(
            "placebo errors need more donors than treated regions: as many donors as treated "
            "regions take their place, and others must be left to compare with",
            given=f"{len(donors)} donors, {len(begins)} treated",
            allowed="standard_errors: jackknife or bootstrap (two or more treated regions), more "
            "donors, or fewer treated regions",
        )
    n_sets = math.comb(len(donors), len(begins)) if len(set(begins)) == 1 else math.inf
    is_exhaustive = n_sets <= n_replications
    sets: Iterator[Indices] = (
        (np.array(chosen) for chosen in itertools.combinations(range(len(donors)), len(begins)))
        if is_exhaustive
        else (rng.permutation(len(donors))[: len(begins)] for _ in range(n_replications))
    )
    pool = design.rows(donors)
    effects = np.array([_pretend(pool, rule, scales, chosen, begins) for chosen in sets])
    return Replicates(
        kind="placebo",
        effects=effects,
        std_error=float(effects.std()),
        is_exhaustive=is_exhaustive,
    )


def _pretend(
    pool: Design, rule: Rule, scales: dict[int, Scale], chosen: Indices, begins: Indices
) -> float:
    starts = pool.starts.copy()
    starts[chosen] = begins
    pretended = Design(values=pool.values, starts=starts, covariates=pool.covariates)
    return fit_all(pretended, rule, scales=scales).effect


def _bootstrap(
    design: Design,
    rule: Rule,
    scales: dict[int, Scale],
    n_replications: int,
    *,
    rng: np.random.Generator,
) -> Replicates:
    """Regions drawn with replacement; draws without a donor or a treated region are drawn again."""
    _refuse_single(design, "bootstrap")
    n = len(design.starts)
    effects: list[float] = []
    for _ in range(n_replications + _MAX_REDRAWS):
        drawn = design.rows(rng.integers(0, n, n))
        if 0 < len(drawn.donors) < n:
            effects.append(fit_all(drawn, rule, scales=scales).effect)
        if len(effects) == n_replications:
            break
    else:
        raise InferenceError(
            "too few bootstrap draws hold both donors and treated regions",
            given=f"{len(effects)} of {n_replications + _MAX_REDRAWS}",
        )
    found = np.array(effects)
    return Replicates(
        kind="bootstrap", effects=found, std_error=float(found.std()), is_exhaustive=False
    )


def _jackknife(design: Design, fitted: DidFit) -> Replicates:
    """Each region left out in turn, with the weights of the others as they were."""
    _refuse_single(design, "jackknife")
    n = len(design.starts)
    for start in design.cohorts:
        if (design.starts == start).sum() < _MIN_TREATED:
            raise InferenceError(
                "the jackknife needs two treated regions or more in each cohort of starts",
                allowed="standard_errors: placebo or bootstrap",
            )
    effects = np.array([_without(design, fitted, row) for row in range(n)])
    spread = ((effects - effects.mean()) ** 2).sum()
    return Replicates(
        kind="jackknife",
        effects=effects,
        std_error=float(np.sqrt((n - 1) / n * spread)),
        is_exhaustive=True,
    )


def _without(design: Design, fitted: DidFit, row: int) -> float:
    kept = np.delete(np.arange(len(design.starts)), row)
    is_donor = design.donors != row
    weights: Mapping[int, tuple[Array, Array, Scale]] = {
        cohort.start: (
            _renormalised(cohort.fit.unit_weights[is_donor]),
            cohort.fit.time_weights,
            cohort.fit.scale,
        )
        for cohort in fitted.cohorts
    }
    return refit_with_weights(design.rows(kept), dict(weights)).effect


def _renormalised(weights: Array) -> Array:
    total = weights.sum()
    if total <= 0:
        raise InferenceError(
            "one donor carries all the weight, so the jackknife cannot leave it out",
            allowed="standard_errors: placebo or bootstrap",
        )
    return np.asarray(weights / total, dtype=np.float64)


def _refuse_single(design: Design, kind: Kind) -> None:
    if len(design.treated) < _MIN_TREATED:
        raise InferenceError(
            f"the {kind} has no meaning with a single treated region",
            given="1 treated region",
            allowed="standard_errors: placebo",
        )
