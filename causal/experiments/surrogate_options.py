"""The options of the method `surrogate_index`."""

from collections.abc import Mapping
from itertools import product
from typing import Literal

from pydantic import Field, model_validator

from causal.core.frames import Level, same_level
from causal.core.spec import Part, Source, Spec
from causal.experiments.levels import Theta
from causal.experiments.metrics import ColumnName

HISTORY = "history"


class SurrogateOptions(Part):
    """Options of the method `surrogate_index`.

    Attributes:
        unit: Column of the unit; it must identify a row of the experiment, and one of the history
            unless `history_cluster` is given.
        variant: Column of the arm.
        control: The arm that the others are compared with.
        treatments: The arms to compare; all others if left out.
        cluster: Column of the clusters that were randomised.
        outcome: Column of the long-term outcome, in the history.
        surrogates: Columns of short-term outcomes, and of what else is known of a unit, that
            predict it; in both tables.
        history: The table of units whose long-term outcome is known, other ones than those of the
            experiment. It may be the same table with other rows.
        history_cluster: Column of groups of historical rows whose outcomes hang together.
        covariates: Columns of the experiment measured before it, for CUPED.
        theta: As of the method `ab`.
        back_test: Whether the experiment's own table holds the long-term outcome, so that the
            index is put to the test.
        expected_shares: Planned share of each variant; without it the arms are compared with equal
            shares for information.
        srm_alpha: The sample-ratio check fails below this p-value.
    """

    unit: ColumnName
    variant: ColumnName
    control: Level
    treatments: tuple[Level, ...] | None = Field(default=None, min_length=1)
    cluster: ColumnName | None = None
    outcome: ColumnName
    surrogates: tuple[ColumnName, ...] = Field(min_length=1)
    history: Source
    history_cluster: ColumnName | None = None
    covariates: tuple[ColumnName, ...] = ()
    theta: Theta = "total"
    back_test: bool = Field(default=False, strict=True)
    expected_shares: dict[Level, float] | None = None
    srm_alpha: float = Field(default=0.0005, gt=0, lt=1)

    @property
    def clusters(self) -> tuple[str, ...]:
        """The cluster column, if there is one."""
        return () if self.cluster is None else (self.cluster,)

    @property
    def columns(self) -> tuple[str, ...]:
        """The numbers that are read of the experiment: surrogates, covariates, the outcome."""
        return (*self.surrogates, *self.covariates, *((self.outcome,) if self.back_test else ()))

    @model_validator(mode="after")
    def _roles_differ(self) -> "SurrogateOptions":
        roles = (self.unit, self.variant, *self.clusters, *self.surrogates, *self.covariates)
        for name in (*roles, self.outcome):
            if (*roles, self.outcome).count(name) > 1:
                raise ValueError(
                    f"{name} stands twice among unit, variant, cluster, surrogates, covariates and "
                    "outcome"
                )
        return self


class SurrogateSpec(Spec):
    """An experiment judged by a prediction of its long-term outcome."""

    method: Literal["surrogate_index"]
    options: SurrogateOptions

    @property
    def other_sources(self) -> Mapping[str, Source]:
        """The history, where it is another table than that of the experiment."""
        return {} if self._is_one_table else {HISTORY: self.options.history}

    @property
    def _is_one_table(self) -> bool:
        own, history = (
            item.model_dump(exclude={"where"}) for item in (self.source, self.options.history)
        )
        return own == history

    @model_validator(mode="after")
    def _units_are_different(self) -> "SurrogateSpec":
        own, history = self.source, self.options.history
        if (own.table, own.path) != (history.table, history.path):
            return self
        is_apart = any(
            one.column == other.column
            and not any(same_level(*pair) for pair in product(one.values, other.values))
            for one, other in product(own.conditions, history.conditions)
        )
        if not is_apart:
            raise ValueError(
                "history is the experiment's own table: both need a where that tells their rows "
                "apart by one column"
            )
        return self
