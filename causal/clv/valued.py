"""What is said of a valued customer base: checks, tables, figures and plain words."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd

from causal.clv import calibration, clv_figures
from causal.clv.deciles import Backtest
from causal.clv.fitting import ClvFit
from causal.clv.maximum_likelihood import Estimate
from causal.clv.value_spec import ValueSpec
from causal.core.errors import DataError
from causal.core.result import Diagnostic, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Valued:
    """What a run found.

    Attributes:
        spec: What was asked.
        fitted: The models on everything before `until`.
        checked: The models on what was known before the holdout; `None` without one.
        backtests: Their predictions beside what came.
        tracking: Repeat purchases over time, actual and expected: `time`, `actual`, `expected`.
        total: Purchases expected of all within the horizon.
        sums: Sums over customers of what is predicted.
    """

    spec: ValueSpec
    fitted: ClvFit
    checked: ClvFit | None
    backtests: tuple[Backtest, ...]
    tracking: pd.DataFrame
    total: Estimate
    sums: Mapping[str, float]

    @property
    def shown(self) -> ClvFit:
        """The fit that figures are drawn of: the one that can be compared with later days."""
        return self.checked or self.fitted

    @cached_property
    def result(self) -> Result:
        """Checks and tables as the suite keeps them."""
        checks: list[Diagnostic] = list(self.fitted.diagnostics)
        checks.append(self._goodness_of_fit())
        checks += [test.check for test in self.backtests]
        tables = {
            "parameters": self.fitted.to_frame(),
            "frequencies": calibration.frequency_table(self.shown.purchases, self.shown.cells),
            "tracking": self.tracking,
        }
        if self.checked is not None and self.checked.holdout is not None:
            tables["holdout"] = calibration.holdout_table(
                self.checked.purchases, self.checked.cells, self.checked.holdout
            )
        tables |= {f"deciles_{test.what}": test.table for test in self.backtests}
        return Result(effects=(), diagnostics=tuple(checks), tables=tables)

    def _goodness_of_fit(self) -> Diagnostic:
        """The test of the frequency table, where it has rows enough."""
        try:
            return calibration.goodness_of_fit(self.shown.purchases, self.shown.cells)
        except DataError as error:
            return Diagnostic(
                name=f"{self.shown.purchases.model}.goodness_of_fit",
                statistic=None,
                pvalue=None,
                passed=None,
                detail=f"not tested: {error}",
            )

    def sentences(self) -> list[str]:
        """What was found, in plain words."""
        options, sums, total = self.spec.options, self.sums, self.total
        n, days = sums["customers"], options.horizon.periods * options.horizon.period_days
        alive = sums["alive_probability"]
        low, high = float(total.ci_lower[0]), float(total.ci_upper[0])
        there = f"{alive:,.0f} ({alive / n:.0%}) are expected to be still there"
        bought = f"{float(total.estimate[0]):,.0f} purchases [{low:,.0f}, {high:,.0f}]"
        lines = [
            f"{n:,.0f} customers as of {options.until}, of whom {there}",
            f"in the next {days:g} days they are expected to make {bought}",
        ]
        if "lifetime_value" in sums:
            worth, value = sums["expected_spend"], sums["lifetime_value"]
            each = f"{value / n:,.2f} a customer"
            lines.append(f"these are worth {worth:,.0f}, discounted {value:,.0f}: {each}")
        before = f"back-test on the last {options.holdout_days} days"
        return [*lines, *(f"{before}: {test.sentence}" for test in self.backtests)]

    def figures(self) -> Mapping[str, "Figure"]:
        """The figures by file name without ending."""
        tables, model = self.result.tables, self.shown.purchases.model
        tracking = tables["tracking"]
        drawn = {
            "frequencies": clv_figures.frequency_figure(tables["frequencies"], model=model),
            "tracking": clv_figures.cumulative_figure(
                tracking["time"].to_numpy(),
                actual=tracking["actual"].to_numpy(),
                expected=tracking["expected"].to_numpy(),
                fitted_until=float(self.shown.cells.age.max()) * self.spec.options.unit_days,
                model=model,
            ),
        }
        if "holdout" in tables:
            drawn["holdout"] = clv_figures.holdout_figure(tables["holdout"], model=model)
        for test in self.backtests:
            drawn[f"deciles_{test.what}"] = clv_figures.decile_figure(
                test.table, what=test.what, model=model
            )
        return drawn

    def metrics(self) -> dict[str, float]:
        """Parameters, sums and back-tests as numbers by name."""
        rows = self.result.tables["parameters"].to_dict("records")
        numbers = {f"{row['model']}/{row['parameter']}": float(row["estimate"]) for row in rows}
        numbers |= {f"total/{name}": value for name, value in self.sums.items()}
        for test in self.backtests:
            for part in ("predicted", "actual", "std_error", "rmse", "mae", "correlation"):
                numbers[f"backtest/{test.what}/{part}"] = float(getattr(test, part))
        return numbers

    def nested(self) -> Mapping[str, Mapping[str, float]]:
        """Nothing competed."""
        return {}

    def texts(self) -> Mapping[str, str]:
        """The parameters, unrounded."""
        parameters = self.result.tables["parameters"]
        return {"parameters.json": parameters.to_json(orient="records", indent=2)}
