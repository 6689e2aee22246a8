"""Units that lack periods: sums over all of them by cohort, however their paths have gaps.

An engine sums values of a unit that are made of its outcomes (0 where it is not seen), of marks of
where it is seen, and of which cohort it is in. So what a unit's own periods tell, as its mean over
the untreated ones among them, is worked out where the unit lies, and what comes to the driver is
of the size of the cohorts and periods however many patterns of gaps there are.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import (
    Column,
    Condition,
    Constant,
    FrameRequest,
    Linear,
    PanelGramRequest,
    Product,
    StartsIn,
    Term,
    UnitSeen,
    UnitValue,
    linear,
)
from causal.core.gram import Array, PanelGram, panel_grams, pooled_paths
from causal.quasi.did_options import DidOptions
from causal.quasi.panel import CellSurvey, Panel, observe_cells, of_a_unit
from causal.quasi.treatment_timing import Timing


@dataclass(frozen=True, kw_only=True)
class CellSums:
    """Rows and outcomes by cohort and period.

    Attributes:
        counts: Rows, shape (C, T).
        outcomes: Sums of the outcome, shape (C, T).
        survey: What they were read off.
    """

    counts: Array
    outcomes: Array
    survey: CellSurvey

    @property
    def levels(self) -> Array:
        """Mean outcome by period over all rows, shape (T,)."""
        rows = self.counts.sum(axis=0)
        return np.asarray(self.outcomes.sum(axis=0) / rows, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class UnitPaths:
    """The units of a panel, whether or not they are seen in every period.

    Attributes:
        options: The analysis.
        panel: What was observed of the panel; its C cohorts and T periods are meant below.
        timing: How the table says from when units are treated.
        outcome: The outcome column.
        where: Conditions on the rows.
    """

    options: DidOptions
    panel: Panel
    timing: Timing
    outcome: str
    where: tuple[Condition, ...]

    @property
    def values(self) -> tuple[Term, ...]:
        """The outcome by period, 0 where a unit is not seen."""
        return tuple(UnitValue(t) for t in range(len(self.panel.periods)))

    @property
    def seen(self) -> tuple[Term, ...]:
        """1 in the periods in which a unit is seen."""
        return tuple(UnitSeen(t) for t in range(len(self.panel.periods)))

    def of_cohort(self, weights: Array, parts: Sequence[Term]) -> Term:
        """`sum_p weights_cp part_p` with the weights of the unit's own cohort c.

        Args:
            weights: Shape (C, P).
            parts: P terms.
        """
        sums = []
        for mark, row in zip(self._marks(), weights, strict=True):
            kept = [(part, float(w)) for part, w in zip(parts, row, strict=True) if w != 0]
            if kept:
                sums.append(Product((mark, linear(kept))))
        return Linear(tuple(sums), (1.0,) * len(sums)) if sums else Constant(0.0)

    def cells(self) -> Generator[FrameRequest, pd.DataFrame, CellSums]:
        """Rows and sums of the outcome by cohort and period, in one pass."""
        terms = [Column(self.outcome), of_a_unit(self.options)]
        survey = yield from observe_cells(self.options, terms=terms, where=self.where)
        at = {cohort.first_treated_period: c for c, cohort in enumerate(self.panel.cohorts)}
        when = {float(period): t for t, period in enumerate(self.panel.periods)}
        counts, outcomes = np.zeros((2, len(at), len(when)))
        for cell in survey.cells:
            if cell.period in when:
                place = at[cell.first_treated_period], when[cell.period]
                counts[place] += cell.n
                outcomes[place] += cell.n * cell.mean
        return CellSums(counts=counts, outcomes=outcomes, survey=survey)

    def by_cohort(
        self, values: Sequence[Term]
    ) -> Generator[FrameRequest, pd.DataFrame, tuple[PanelGram, ...]]:
        """Means and cross-products of values over the units of each cohort, in one pass."""
        found = yield from self._ask(values, by=(), crossed="all")
        at = {part.first_treated_period: part for part in pooled_paths(found)}
        return tuple(at[cohort.first_treated_period] for cohort in self.panel.cohorts)

    def by_cluster(
        self, values: Sequence[Term]
    ) -> Generator[FrameRequest, pd.DataFrame, tuple[PanelGram, ...]]:
        """Means of values over the units of each cohort and cluster, in one pass.

        Raises:
            DataError: A unit has no cluster.
        """
        column = self.options.clusters
        found = yield from self._ask(values, by=(column,), crossed="none")
        lost = sum(part.n for part in found if part.key == (None,))
        if lost:
            raise DataError(f"{column} is null in some rows", given=f"those of {lost} units")
        return found

    def _marks(self) -> list[Term]:
        """1 for the units of each cohort."""
        starts = [cohort.first_treated_period for cohort in self.panel.cohorts]
        if np.inf in starts:
            raise DataError("a first treated period is infinite: never treated is a null")
        ever = [StartsIn(self.timing.raw(start)) for start in starts if start is not None]
        never = linear([(Constant(), 1.0), *[(mark, -1.0) for mark in ever]])
        return [*ever, *([never] if None in starts else [])]

    def _ask(
        self, values: Sequence[Term], *, by: tuple[str, ...], crossed: Literal["all", "none"]
    ) -> Generator[FrameRequest, pd.DataFrame, tuple[PanelGram, ...]]:
        request = PanelGramRequest(
            unit=self.options.unit,
            period=self.options.period,
            outcome=Column(self.outcome),
            first_treated_period=self.timing.cohort,
            by=by,
            values=tuple(values),
            crossed=crossed,
            where=self.where,
            units="seen",
        )
        found = panel_grams((yield request), request)
        return tuple(
            replace(item, first_treated_period=self.timing.first_treated(item.first_treated_period))
            for item in found
        )


def second_moments(part: PanelGram) -> Array:
    """Sums over units of products of two values, not centred, shape (S, S)."""
    return np.asarray(part.cross + part.n * np.outer(part.mean, part.mean), dtype=np.float64)
