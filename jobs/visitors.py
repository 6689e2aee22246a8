"""The shop's records by user and by visitor day: covariates, outcomes of the trial."""

from collections.abc import Iterable, Mapping

from pydantic import Field
from pyspark.sql import DataFrame

from jobs.runtime.contract import JobConfig, TableJob
from transforms.checkout_tables import CHECKOUT_DERIVED_TABLES, CHECKOUT_UNITS
from transforms.checkout_tables import CHECKOUT_VISITOR_DAYS as VISITOR_DAYS
from transforms.checkout_units import ShopRecords, checkout_units, checkout_visitor_days
from transforms.quality import SAMPLE_RATIO_ALPHA, Gate, keys_unique, referential, sample_ratio
from transforms.synthetic.checkout.tables import (
    ASSIGNMENTS,
    ORDERS,
    PERF,
    SESSIONS,
    TRIALS,
    USERS,
)


class VisitorsConfig(JobConfig):
    """Options of the visitors job."""

    slow_ms: int = Field(
        default=3_500, gt=0, description="a checkout page that takes more milliseconds is slow"
    )
    sample_ratio_alpha: float = Field(
        default=SAMPLE_RATIO_ALPHA,
        ge=0.0,
        lt=1.0,
        description="stop when the trial's arms miss their shares at this level; 0 never stops",
    )


def reads(_config: VisitorsConfig) -> tuple[str, ...]:
    """The records of the shop, but for the events."""
    tables = (USERS, TRIALS, ASSIGNMENTS, SESSIONS, ORDERS, PERF)
    return tuple(table.name for table in tables)


def writes(_config: VisitorsConfig) -> tuple[str, ...]:
    """Users and visitor days."""
    return tuple(table.name for table in CHECKOUT_DERIVED_TABLES)


def build(config: VisitorsConfig, frames: Mapping[str, DataFrame]) -> Mapping[str, DataFrame]:
    """Users and visitor days from the records."""
    records = ShopRecords(
        users=frames[USERS.name],
        trials=frames[TRIALS.name],
        assignments=frames[ASSIGNMENTS.name],
        sessions=frames[SESSIONS.name],
        orders=frames[ORDERS.name],
        perf=frames[PERF.name],
    )
    return {
        CHECKOUT_UNITS.name: checkout_units(records, slow_ms=config.slow_ms),
        VISITOR_DAYS.name: checkout_visitor_days(records, slow_ms=config.slow_ms),
    }


def gates(config: VisitorsConfig, frames: Mapping[str, DataFrame]) -> Iterable[Gate]:
    """Each user is assigned once per trial and known, and the arms have their shares."""
    return (
        Gate(
            name=ASSIGNMENTS.name,
            frame=frames[ASSIGNMENTS.name],
            rules=(
                keys_unique("experiment", "user_id"),
                referential(
                    ("user_id",),
                    other=frames[USERS.name],
                    other_columns=("user_id",),
                    other_name=USERS.name,
                ),
                sample_ratio(
                    experiment="experiment",
                    variant="variant",
                    unit="user_id",
                    definitions=frames[TRIALS.name],
                    alpha=config.sample_ratio_alpha,
                ),
            ),
        ),
    )


JOB = TableJob(
    name="visitors",
    config=VisitorsConfig,
    reads=reads,
    writes=writes,
    build=build,
    gates=gates,
)
