"""Fits made one after the other on the same rows, and how what they found travels.

A task is given the rows of one outcome and some fits; it runs the method of the spec on pandas. The
panel is aggregated once per task, not once per fit. A fit that cannot be made is answered too, with
its reason.
"""

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from causal.core import plan, registry
from causal.core.errors import CausalError
from causal.core.frames import Engine
from causal.core.pandas_engine import PandasEngine
from causal.core.result import Diagnostic, Effect, Result
from causal.core.spec import Spec
from causal.core.stored_gram import Recorder
from causal.fits.fits_spec import FitsSpec, one_fit
from causal.fits.grid import Fit, Grid


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What came of one fit.

    Attributes:
        fit: The fit.
        effects: Its effects, as the method gives them; empty if it failed.
        diagnostics: Its checks.
        reason: Why it failed; `None` if it did not.
        exit_code: That of its failure (`causal/core/errors.py`); 0 if there was none.
        seconds: How long it took.
    """

    fit: Fit
    effects: tuple[Effect, ...]
    diagnostics: tuple[Diagnostic, ...]
    reason: str | None
    exit_code: int
    seconds: float

    @property
    def headline(self) -> Effect | None:
        """The effect that the fit is judged by: the first on the absolute scale."""
        return next((effect for effect in self.effects if effect.scale == "absolute"), None)


def spec_of(spec: FitsSpec, fit: Fit, *, grid: Grid) -> Spec:
    """The spec of one fit of the grid, which `analyze` would run alike.

    Args:
        spec: The spec of all fits.
        fit: The fit.
        grid: The grid.
    """
    return one_fit(
        spec, unit=fit.unit, outcome=fit.outcome, start=fit.start, excluded=grid.excluded(fit)
    )


def fit_alone(spec: FitsSpec, fit: Fit, *, grid: Grid, engine: Engine) -> Result:
    """Run the method for one fit.

    Args:
        spec: The spec of all fits.
        fit: The fit.
        grid: The grid that it is from.
        engine: On the rows that fulfil the spec's filters.

    Raises:
        CausalError: The data cannot carry it.
    """
    filtered = spec.source.model_copy(update={"where": {}})
    own = spec_of(spec.model_copy(update={"source": filtered}), fit, grid=grid)
    return plan.run(registry.method(own.method).estimate(own), engine)


def fit_each(
    spec: FitsSpec, fits: Iterable[Fit], *, grid: Grid, rows: pd.DataFrame
) -> list[Fitted]:
    """Run the method once per fit, each on its own.

    Args:
        spec: The spec of all fits.
        fits: Those to be made.
        grid: The grid that they are from.
        rows: The panel that fulfils the spec's filters, with every column that they read.
    """
    wanted = list(fits)
    near, kept = _cut_down(spec, wanted, grid=grid, rows=rows)
    engine = Recorder(PandasEngine(kept), {})
    return [_fitted(spec, fit, grid=near, engine=engine) for fit in wanted]


def _cut_down(
    spec: FitsSpec, fits: Sequence[Fit], *, grid: Grid, rows: pd.DataFrame
) -> tuple[Grid, pd.DataFrame]:
    """Grid and rows without the treated regions that none of the fits reads.

    Each fit leaves the other treated regions out anyway; of thousands of them most rows would be
    aggregated for nothing.
    """
    read = {fit.unit for fit in fits}
    others = [unit for unit in grid.treated if unit not in read]
    if not set(others) <= set(rows[spec.unit].unique()):  # named otherwise than in these rows
        return grid, rows
    treated = tuple(unit for unit in grid.treated if unit in read)
    return replace(grid, treated=treated), rows[~rows[spec.unit].isin(others)]


def _fitted(spec: FitsSpec, fit: Fit, *, grid: Grid, engine: Engine) -> Fitted:
    begun = time.perf_counter()
    found, reason, exit_code = Result(effects=()), None, 0
    try:
        found = fit_alone(spec, fit, grid=grid, engine=engine)
    except CausalError as error:
        reason, exit_code = str(error), error.exit_code
    except (ArithmeticError, ValueError) as error:  # numbers that a solver of a library gave up on
        reason, exit_code = f"{type(error).__name__}: {error}", CausalError.exit_code
    return Fitted(
        fit=fit, effects=found.effects, diagnostics=found.diagnostics, reason=reason,
        exit_code=exit_code, seconds=time.perf_counter() - begun,
    )  # fmt: skip


def encoded(found: Fitted) -> str:
    """What a fit found as text that keeps every digit."""
    return json.dumps(
        {
            "effects": [dataclasses.asdict(effect) for effect in found.effects],
            "diagnostics": [dataclasses.asdict(item) for item in found.diagnostics],
            "reason": found.reason,
            "exit_code": found.exit_code,
            "seconds": found.seconds,
        }
    )


def decoded(fit: Fit, text: str) -> Fitted:
    """What `encoded` wrote.

    Args:
        fit: The fit.
        text: Its text.
    """
    held = json.loads(text)
    return Fitted(
        fit=fit,
        effects=tuple(Effect(**row) for row in held["effects"]),
        diagnostics=tuple(Diagnostic(**row) for row in held["diagnostics"]),
        reason=held["reason"],
        exit_code=held["exit_code"],
        seconds=held["seconds"],
    )


def tasks(spec: FitsSpec, grid: Grid) -> Iterator[tuple[Fit, ...]]:
    """The fits in tasks of `fits_per_task` or fewer, each of one outcome.

    Args:
        spec: The spec of all fits.
        grid: The grid.
    """
    size = spec.fits.fits_per_task
    for outcome in spec.fits.over.outcomes:
        own = [fit for fit in grid.fits if fit.outcome == outcome]
        for first in range(0, len(own), size):
            yield tuple(own[first : first + size])
