"""Units as rows on the driver, and their matches."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from causal.core.errors import DataError, InferenceError
from causal.core.frames import GramRequest, same_level
from causal.core.gram import Array, Gram, Key
from causal.observational.nearest import (
    MatchingRule,
    Pairs,
    conditional_variances,
    match,
    paired_error,
    replaced_error,
    set_differences,
)
from causal.observational.study import CONTROL, TREATED

if TYPE_CHECKING:
    from causal.quasi.matching_options import MatchingOptions

_FEW = 2


@dataclass(frozen=True, kw_only=True)
class Units:
    """All units, ordered by what identifies them.

    Attributes:
        is_treated: Shape (n,).
        propensity: Shape (n,).
        distance: What nearness goes by, shape (n,).
        columns: The columns adjusted for, shape (n, k).
        outcome: Shape (n,).
        groups: Codes of the combinations of the exact columns, shape (n,).
    """

    is_treated: NDArray[np.bool_]
    propensity: Array
    distance: Array
    columns: Array
    outcome: Array
    groups: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class MatchedUnits:
    """Matches and what they say.

    Attributes:
        pairs: Positions of focal units and partners among all units.
        weights: Weight of each unit: 1 for matched focal units, shares for partners, shape (n,).
        estimate: The effect.
        std_error: Its standard error.
        means: Mean outcomes of matched controls and treated.
        n_sets: Matched focal units.
        n_focal: Focal units.
        caliper: Largest distance in units of the distance; `None`: any.
    """

    pairs: Pairs
    weights: Array
    estimate: float
    std_error: float
    means: tuple[float, float]
    n_sets: int
    n_focal: int
    caliper: float | None


def units_of(
    found: Mapping[Key, Gram], request: GramRequest, *, options: "MatchingOptions"
) -> Units:
    """Rows from the moments of single units.

    Raises:
        DataError: A unit has several rows.
    """
    kept = {key: part for key, part in found.items() if part.n > 0}
    repeated = sum(part.n > 1 for part in kept.values())
    if repeated:
        raise DataError(
            f"{', '.join(options.units)} must identify the rows", given=f"{repeated} values repeat"
        )
    table = pd.DataFrame(list(kept), columns=list(request.by), dtype=object)
    values = np.array([part.mean for part in kept.values()])
    ranks = [
        tuple(_rank(item) for item in row)
        for row in table[list(options.units)].itertuples(index=False, name=None)
    ]
    order = np.array(sorted(range(len(ranks)), key=ranks.__getitem__))
    table, values = table.iloc[order].reset_index(drop=True), values[order]
    groups = np.zeros(len(table), dtype=np.int64)
    if options.exact:
        groups = np.asarray(
            table.groupby(list(options.exact), dropna=False).ngroup(), dtype=np.int64
        )
    treated = [same_level(level, options.treated) for level in table[options.treatment]]
    log_odds = values[:, 0]
    propensity = np.asarray(special.expit(log_odds), dtype=np.float64)
    return Units(
        is_treated=np.array(treated, dtype=np.bool_),
        propensity=propensity,
        distance=propensity if options.distance == "propensity" else log_odds,
        columns=values[:, 1:-1],
        outcome=values[:, -1],
        groups=groups,
    )


def match_units(units: Units, options: "MatchingOptions") -> MatchedUnits:
    """Match and compare.

    Raises:
        InferenceError: Fewer than two focal units have a partner.
    """
    is_att = options.estimand == "att"
    focal = np.flatnonzero(units.is_treated == is_att)
    pool = np.flatnonzero(units.is_treated != is_att)
    caliper = None
    if options.caliper is not None:
        caliper = options.caliper * float(units.distance.std(ddof=1))
    rule = MatchingRule(
        ratio=options.ratio, is_replaced=options.replace, order=options.order, caliper=caliper
    )
    found = match(
        units.distance[focal], units.distance[pool], rule=rule,
        groups=(units.groups[focal], units.groups[pool]),
    )  # fmt: skip
    if len(np.unique(found.focal)) < _FEW:
        raise InferenceError(
            "almost no unit has a partner", given=f"{len(np.unique(found.focal))} matched",
            allowed="a wider caliper or fewer exact columns",
        )  # fmt: skip
    y = units.outcome[focal], units.outcome[pool]
    matched, differences = set_differences(found, *y)
    if options.replace:
        variances = conditional_variances(units.distance[pool], y[1], units.groups[pool])
        std_error = replaced_error(found, y, variances)
    else:
        std_error = paired_error(differences, factor=_factor(found, options))
    share = 1.0 / np.bincount(found.focal)[found.focal]
    weights = np.zeros(len(units.outcome))
    weights[focal[matched]] = 1.0
    np.add.at(weights, pool[found.match], share)
    sign = 1.0 if is_att else -1.0
    means = [
        float(np.average(units.outcome[side], weights=weights[side]))
        for side in (np.flatnonzero(~units.is_treated), np.flatnonzero(units.is_treated))
    ]
    return MatchedUnits(
        pairs=Pairs(focal[found.focal], pool[found.match]),
        weights=weights,
        estimate=sign * float(differences.mean()),
        std_error=std_error,
        means=(means[CONTROL], means[TREATED]),
        n_sets=len(matched),
        n_focal=len(focal),
        caliper=caliper,
    )


def _factor(pairs: Pairs, options: "MatchingOptions") -> float:
    """The small-sample factor of errors clustered by matched set."""
    g = len(np.unique(pairs.focal))
    n = g + len(pairs.match)
    if options.small_sample == "none":
        return 1.0
    clusters = g / (g - 1)
    return clusters if options.small_sample == "n-1" else clusters * (n - 1) / (n - 2)


def _rank(item: object) -> tuple[int, float, str]:
    """Numbers by value, then texts."""
    if isinstance(item, int | float):
        return 0, float(item), ""
    return 1, 0.0, str(item)
