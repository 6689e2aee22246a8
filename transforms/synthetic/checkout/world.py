"""From a plan and a range of ids to the frames of all tables of the shop."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from transforms.schema import Table
from transforms.synthetic.checkout import tables
from transforms.synthetic.checkout.faults import with_faults
from transforms.synthetic.checkout.ground_truth import day_truth, effects, user_truth
from transforms.synthetic.checkout.plan import CheckoutPlan
from transforms.synthetic.checkout.records import records
from transforms.synthetic.checkout.visitors import population
from transforms.synthetic.checkout.visits import sessions


def trial_rows(plan: CheckoutPlan) -> list[tuple[Any, ...]]:
    """Rows of `checkout_trials`."""
    world, trial = plan.world, plan.world.trial
    return [
        (
            trial.experiment,
            trial.perk,
            trial.salt,
            world.starts_on + dt.timedelta(days=world.pre_days),
            world.starts_on + dt.timedelta(days=plan.n_days - 1),
            world.starts_on,
            trial.control,
            trial.variants,
            trial.shares,
        )
    ]


def checkout_frames(
    plan: CheckoutPlan, *, units: DataFrame, trials: DataFrame
) -> Mapping[str, DataFrame]:
    """The tables of the shop, all but the true effects.

    Args:
        plan: The world.
        units: One BIGINT column `id` from zero, one row per user.
        trials: `checkout_trials`.

    Returns:
        Frames by table name, with the columns of `tables`.
    """
    people = population(units, plan)
    made = with_faults(records(people, sessions(people, plan), plan, trials=trials), plan)
    truth = {
        tables.TRUTH_USERS.name: user_truth(people, plan),
        tables.TRUTH_DAYS.name: day_truth(people, plan),
    }
    return conformed({**made, **truth})


def checkout_effects(
    plan: CheckoutPlan, *, users: DataFrame, days: DataFrame
) -> Mapping[str, DataFrame]:
    """`truth_checkout_effects` from the other truth tables.

    Args:
        plan: The world.
        users: `truth_checkout_users`.
        days: `truth_checkout_days`.
    """
    return conformed({tables.TRUTH_EFFECTS.name: effects(users, days, plan)})


def conformed(frames: Mapping[str, DataFrame]) -> Mapping[str, DataFrame]:
    """The columns of each declaration, in its order and types."""
    declared = {table.name: table for table in tables.CHECKOUT_TABLES}
    return {name: _select(frame, declared[name]) for name, frame in frames.items()}


def _select(frame: DataFrame, table: Table) -> DataFrame:
    columns = [F.col(field.name).cast(field.data_type).alias(field.name) for field in table.fields]
    return frame.select(*columns)
