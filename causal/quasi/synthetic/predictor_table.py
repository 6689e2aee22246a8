"""Predictors of a synthetic control: means of columns over periods before the start."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import Condition, FrameRequest
from causal.core.gram import Array
from causal.quasi.synthetic.control_options import ControlOptions, Holds
from causal.quasi.synthetic.region_panel import RegionPanel, observe_table, periods_of
from causal.quasi.time_axis import GivenPeriod, Label, between, order, shown


@dataclass(frozen=True, kw_only=True)
class PredictorTable:
    """The columns that predictors are made of.

    Attributes:
        options: Which means over which periods.
        panel: The regions.
        columns: Values by region and period of each column, NaN where there is none.
    """

    options: ControlOptions
    panel: RegionPanel
    columns: Mapping[str, pd.DataFrame]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the predictors."""
        special = (item.name for item in self.options.special_predictors)
        return (*self.options.predictors, *special)

    def matrix(
        self,
        *,
        start: Label,
        window: tuple[GivenPeriod, GivenPeriod] | None = None,
        is_clipped: bool = False,
    ) -> Array:
        """One row per predictor, one column per region, shape (K, N).

        Args:
            start: The treatment starts here; predictors lie before it.
            window: Periods of the plain predictors instead of the ones of the options.
            is_clipped: Whether periods from the start on are passed over (for a pretended start)
                instead of refused.

        Raises:
            DataError: A predictor has no value for some region, or periods from the start on.
        """
        holds = self._plain_periods(window or self.options.predictor_window, start=start)
        plain = [(name, name, holds) for name in self.options.predictors]
        special = [
            (item.name, item.column, item.holds(like=start))
            for item in self.options.special_predictors
        ]
        rows, limit = [], order(start)
        for name, column, is_chosen in [*plain, *special]:
            table = self.columns[column]
            periods = [period for period in periods_of(table) if is_chosen(period)]
            late = [period for period in periods if order(period) >= limit]
            if late and not is_clipped:
                raise DataError(
                    f"predictor {name} takes periods from the start of the treatment on",
                    given=[shown(period) for period in late],
                    allowed=f"before {shown(start)}",
                )
            kept = [period for period in periods if order(period) < limit]
            rows.append(self._means(table, kept, name=name))
        return np.array(rows)

    def _plain_periods(
        self, window: tuple[GivenPeriod, GivenPeriod] | None, *, start: Label
    ) -> Holds:
        if window is None:
            limit = order(start)
            return lambda period: order(period) < limit
        return between(*window, like=start, keys=("predictor_window", "predictor_window"))

    def _means(self, table: pd.DataFrame, periods: Sequence[Label], *, name: str) -> Array:
        means = table.reindex(list(self.panel.units))[list(periods)].mean(axis=1)
        lacking = [str(unit) for unit in self.panel.units if np.isnan(means[unit])]
        if lacking:
            raise DataError(f"predictor {name} has no value in its periods", given=lacking)
        return means.to_numpy(dtype=np.float64)


def observe_predictors(
    options: ControlOptions, where: tuple[Condition, ...], *, panel: RegionPanel
) -> Generator[FrameRequest, pd.DataFrame, PredictorTable | None]:
    """One request per column; `None` where nothing but the outcome is matched."""
    if not options.has_predictors:
        return None
    special = (item.column for item in options.special_predictors)
    columns = {}
    for name in dict.fromkeys([*options.predictors, *special]):
        columns[name], _ = yield from observe_table(options, where, column=name)
    return PredictorTable(options=options, panel=panel, columns=columns)
