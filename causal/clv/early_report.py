"""What is said of spend predicted from first days: checks, tables, figures and plain words."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from causal.clv import clv_figures, deciles
from causal.clv.deciles import Backtest
from causal.clv.early_spend import EarlySpendSpec, Search, SpendModel
from causal.core.pandas_engine import PandasEngine
from causal.core.result import Diagnostic, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_RUNS = 24
_NUMBERS = ("rmse", "ci_lower", "ci_upper", "mae", "rank_correlation", "worse_by", "std_error")


@dataclass(frozen=True, kw_only=True)
class StoredModelReport:
    """Customers scored by a model that was trained before.

    Attributes:
        spec: What was asked.
        model: The model.
        counts: Customers scored, and those who have not had their first days.
    """

    spec: EarlySpendSpec
    model: SpendModel
    counts: tuple[int, int]

    @property
    def result(self) -> Result:
        """How many were scored."""
        return Result(effects=(), diagnostics=(_scored(self.counts, self.spec),))

    def sentences(self) -> list[str]:
        """What was done, in plain words."""
        return [f"{self.counts[0]:,} customers scored by the stored {self.model.candidate.name}"]

    def figures(self) -> Mapping[str, "Figure"]:
        """Nothing is known of the errors here."""
        return {}

    def metrics(self) -> dict[str, float]:
        """How many were scored."""
        return {"customers": float(self.counts[0])}

    def nested(self) -> Mapping[str, Mapping[str, float]]:
        """Nothing competed."""
        return {}

    def texts(self) -> Mapping[str, str]:
        """The model's file is there already."""
        return {}


@dataclass(frozen=True, kw_only=True)
class EarlySpendReport:
    """Candidates that were compared, and the chosen one on customers it had not seen.

    Attributes:
        spec: What was asked.
        found: What the search found.
        text: The chosen model as the text of a file.
        sha256: Its hash.
        counts: Customers scored, and those who have not had their first days.
    """

    spec: EarlySpendSpec
    found: Search
    text: str
    sha256: str
    counts: tuple[int, int]

    @cached_property
    def backtest(self) -> Backtest:
        """Held-out customers by tenth of the prediction."""
        held = self.found.held_out
        bounds = np.unique(np.quantile(held["predicted"], np.arange(1, 10) / 10))
        group = np.searchsorted(bounds, held["predicted"], side="left")
        error = (held["predicted"] - held["actual"]).abs()
        rows = held.assign(absolute_error=error)
        rows[deciles.GROUP] = group
        asked = deciles.request(predicted="predicted", actual="actual", error="absolute_error")
        # The fitted level errs as a mean over the customers of the search does.
        squared = float(((held["predicted"] - held["actual"]) ** 2).mean())
        level_error = np.sqrt(squared / self.found.n_searched) * len(held)
        return deciles.backtest(
            PandasEngine(rows)(asked),
            asked,
            what="spend",
            relative_error=float(level_error / held["predicted"].sum()),
            confidence_level=self.spec.confidence_level,
        )

    @property
    def result(self) -> Result:
        """Checks and tables."""
        test = self.backtest
        errors = pd.DataFrame(
            [{"error": name, "value": v} for name, v in self.found.errors.items()]
        )
        return Result(
            effects=(),
            diagnostics=(_scored(self.counts, self.spec), self._better_than_the_mean(), test.check),
            tables={
                "candidates": self.found.table,
                "deciles_spend": test.table,
                "held_out": errors,
            },
        )

    def sentences(self) -> list[str]:
        """What was found, in plain words."""
        found, errors = self.found, self.found.errors
        interval = f"[{errors['rmse_lower']:.4g}, {errors['rmse_upper']:.4g}]"
        level = f"({self.spec.confidence_level:.0%} interval), that of the mean"
        best, searched = found.model.candidate.name, f"{found.n_searched:,} customers"
        told = f"the root mean squared error is {errors['rmse']:.4g} {interval} {level}"
        return [
            f"{best} has the smallest error of {len(found.table)} candidates on {searched}",
            f"on {len(found.held_out):,} others {told} {errors['rmse_mean']:.4g}",
            f"on these: {self.backtest.sentence}",
            f"{self.counts[0]:,} customers scored, model {self.sha256}",
        ]

    def figures(self) -> Mapping[str, "Figure"]:
        """Candidates, deciles, actual by predicted, and residuals."""
        name = self.found.model.candidate.name
        return {
            "candidates": clv_figures.candidate_figure(self.found.table),
            "deciles_spend": clv_figures.decile_figure(
                self.backtest.table, what="spend", model=name
            ),
            "predicted_actual": clv_figures.prediction_figure(self.found.held_out, what="spend"),
            "residuals": clv_figures.residual_figure(self.found.held_out, what="spend"),
        }

    def metrics(self) -> dict[str, float]:
        """Errors on held-out customers."""
        return {f"held_out/{name}": value for name, value in self.found.errors.items()}

    def nested(self) -> Mapping[str, Mapping[str, float]]:
        """The best candidates, a run each."""
        rows = self.found.table.head(_MAX_RUNS).to_dict("records")
        return {
            str(row["candidate"]): {name: float(row[name]) for name in _NUMBERS} for row in rows
        }

    def texts(self) -> Mapping[str, str]:
        """The model, which a later run reads by its hash."""
        return {"model.json": self.text}

    def _better_than_the_mean(self) -> Diagnostic:
        errors = self.found.errors
        removed = 1.0 - (errors["rmse"] / errors["rmse_mean"]) ** 2
        return Diagnostic(
            name="held_out.r_squared",
            statistic=removed,
            pvalue=None,
            passed=bool(removed > 0),
            detail=f"the model removes {removed:.1%} of the squared error of predicting the mean",
        )


def _scored(counts: tuple[int, int], spec: EarlySpendSpec) -> Diagnostic:
    n, n_young = counts
    return Diagnostic(
        name="customers_too_young",
        statistic=float(n_young),
        pvalue=None,
        passed=None,
        detail=f"{n:,} customers are scored; {n_young:,} have not had their first "
        f"{spec.options.feature_days} days yet and are left out",
    )
