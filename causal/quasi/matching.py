"""Matching: treated units are compared with untreated ones that look like them.

Coarsened exact matching works on cells, at any number of rows. Nearest-neighbour matching on the
propensity needs the units themselves: one row of score, outcome and columns for each, so it is
refused above a bound. See `docs/methods/matching.md`.
"""

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import Condition, FrameRequest, GramRequest, same_level
from causal.core.gram import grams
from causal.core.readout import Readout, combined
from causal.core.registry import Plan
from causal.core.result import Result
from causal.core.unit_keys import check_units
from causal.observational import matching_readout as readout
from causal.observational.balance import overlap_table
from causal.observational.coarsened import Cells, coarsen, match_cells
from causal.observational.logistic import fit_logistic
from causal.observational.matched_units import match_units, units_of
from causal.observational.study import CONTROL, TREATED, observe
from causal.quasi.matching_options import MatchingSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = MatchingSpec


def estimate(spec: MatchingSpec) -> Plan:
    """Estimate the effect on each outcome.

    Args:
        spec: The analysis.

    Returns:
        A plan that yields requests and returns the result.
    """
    options, where = spec.options, spec.source.conditions
    yield from check_units(options.units, where)
    one = _nearest if options.matching == "nearest" else _coarsened
    readouts = {}
    for outcome in options.outcomes:
        readouts[outcome] = yield from one(spec, outcome=outcome, where=where)
    return combined(readouts)


def figures(spec: MatchingSpec, result: Result) -> Mapping[str, "Figure"]:
    """A love plot and, where there is a propensity, its distribution by arm.

    Args:
        spec: The analysis.
        result: What `estimate` returned.
    """
    from causal.observational.figures import balance_figures

    threshold = spec.options.balance_threshold
    return balance_figures(result, spec.options.outcomes, threshold=threshold)


def _nearest(
    spec: MatchingSpec, *, outcome: str, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, Readout]:
    options = spec.options
    study = yield from observe(options, outcome=outcome, where=where)
    if study.n > options.max_units:
        raise DataError(
            "nearest-neighbour matching brings every unit to the driver: these are too many",
            given=f"{study.n:,} units",
            allowed=f"max_units ({options.max_units:,}); matching: coarsened and the method "
            "weighting have no bound",
            key="options.max_units",
        )
    fit = yield from fit_logistic(study)
    overlap, _ = yield from overlap_table(study, fit)
    by = tuple(dict.fromkeys((*options.units, options.treatment, *options.exact)))
    request = GramRequest(
        terms=(fit.log_odds, *study.covariates, study.outcome), by=by, where=study.where
    )
    found = grams((yield request), request)
    units = units_of(found, request, options=options)
    matched = match_units(units, options)
    return readout.nearest(spec, study, fit=fit, overlap=overlap, units=units, matched=matched)


def _coarsened(
    spec: MatchingSpec, *, outcome: str, where: tuple[Condition, ...]
) -> Generator[FrameRequest, pd.DataFrame, Readout]:
    options = spec.options
    study = yield from observe(options, outcome=outcome, where=where)
    names = [*options.covariates, *options.categorical]
    request = GramRequest(terms=study.terms, by=(options.treatment, *names), where=study.where)
    found = {key: part for key, part in grams((yield request), request).items() if part.n > 0}
    cells: Cells = {}
    codes = coarsen([key[1:] for key in found], names, options.cutpoints)
    for (key, part), code in zip(found.items(), codes, strict=True):
        arm = TREATED if same_level(key[0], options.treated) else CONTROL
        pair = cells.setdefault(code, [None, None])
        own = pair[arm]
        pair[arm] = part if own is None else own.merge(part)
    matched = match_cells(cells, target=options.estimand)
    return readout.coarsened(spec, study, matched)
