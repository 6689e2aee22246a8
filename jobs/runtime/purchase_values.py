"""Customers valued with models of their purchases: fitted, compared with later days, scored."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import cast

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from causal.clv import calibration, deciles, value_spec
from causal.clv.deciles import Backtest
from causal.clv.fitting import ClvFit, ClvOptions, fit
from causal.clv.forecast import INPUTS, Forecast
from causal.clv.lifetime_value import total_purchases
from causal.clv.maximum_likelihood import Estimate
from causal.clv.value_spec import ValueOptions, ValueSpec
from causal.clv.valued import Valued
from causal.core import plan
from causal.core.frames import SampleRequest, describe
from jobs.runtime.analyses import Analysis, Bound
from jobs.runtime.context import Context
from jobs.runtime.customers import Stored, opened_log
from transforms import histories
from transforms.bounded import collect_bounded
from transforms.columns import Transform
from transforms.gram import Limits, SparkEngine
from transforms.histories import Log
from transforms.predictions import scored_table, with_scores
from transforms.schema import Field, Table

_STEP_DAYS = 7.0
_MAX_STEPS = 5_000
_SAMPLE_ROWS = 20_000
_MEANINGS: Mapping[str, str] = {
    "frequency": "Repeat purchases",
    "recency": "Time from the start to the last purchase; 0 without repeat purchases",
    "age": "Time watched",
    "monetary_value": "Mean amount per repeat purchase; null without one",
    "alive_probability": "Probability that the customer has not left",
    "expected_purchases": "Expected purchases within the horizon",
    "discounted_purchases": "The same, discounted",
    "expected_amount": "Expected amount per purchase",
    "expected_spend": "Expected spend within the horizon",
    "lifetime_value": "The same, discounted",
}


def valued(context: Context, item: Analysis, bound: Bound) -> tuple[Valued, Stored, int | None]:
    """What was found, the table, and the version written; `None`: it is current.

    Args:
        context: The run.
        item: The spec, a `ValueSpec`.
        bound: What it reads.

    Raises:
        CausalError: The log cannot carry the model, or the table cannot be written.
    """
    log = opened_log(context, item, is_daily=_options(item).purchases == "days")
    with _customers(item, log, later_days=0) as customers:
        found, forecast = _valued(context, item, log, customers)
        stored = Stored.of(context, _table(item, customers, forecast))
        named = customers.withColumnRenamed("unit", _options(item).unit)
        version = stored.write(context, named.transform(_scores(forecast)), run_key=bound.run_key)
    return dataclasses.replace(found, sums=_sums(stored, forecast)), stored, version


def _options(item: Analysis) -> ValueOptions:
    return cast("ValueSpec", item.spec).options


@contextmanager
def _customers(item: Analysis, log: Log, *, later_days: int) -> Iterator[DataFrame]:
    """A row per customer as of so many days before the end; kept while the block runs."""
    options = _options(item)
    until = options.until - timedelta(days=later_days)
    rows = histories.histories(
        log, until=until, grid=options.grid_days, unit_days=options.unit_days
    ).persist()
    try:
        yield rows
    finally:
        rows.unpersist()


def _valued(
    context: Context, item: Analysis, log: Log, customers: DataFrame
) -> tuple[Valued, Forecast]:
    options = _options(item)
    fitted = _fit(context, item, customers, later_days=0)
    checked: ClvFit | None = None
    backtests: tuple[Backtest, ...] = ()
    if options.holdout_days:
        checked, backtests = _checked(context, item, log)
    horizon = options.horizon.scaled(options.unit_days)
    forecast = Forecast(purchases=fitted.purchases, spend=fitted.spend, horizon=horizon)
    total = total_purchases(
        fitted.purchases,
        fitted.cells,
        t=horizon.n_periods * horizon.period,
        confidence_level=item.spec.confidence_level,
    )
    found = Valued(
        spec=cast("ValueSpec", item.spec),
        fitted=fitted,
        checked=checked,
        backtests=backtests,
        tracking=_tracking(item, log, customers, checked or fitted),
        total=total,
        sums={},
    )
    return found, forecast


def _fit(context: Context, item: Analysis, customers: DataFrame, *, later_days: int) -> ClvFit:
    options = _options(item)
    is_coarse = options.grid_days is not None
    asked = ClvOptions(
        model=options.model,
        frequency="frequency",
        recency="recency",
        age="age",
        monetary_value=None if options.amount is None else "monetary_value",
        recency_cell="recency_cell" if is_coarse else None,
        age_cell="age_cell" if is_coarse else None,
        monetary_cell=None if options.amount is None else "monetary_cell",
        holdout="later_purchases" if later_days else None,
        holdout_length=later_days / options.unit_days if later_days else None,
    )
    limits = context.settings.limits
    engine = SparkEngine(
        customers, limits=Limits(max_rows=limits.frame_rows, max_bytes=limits.frame_bytes)
    )
    what = f" without the last {later_days} days" if later_days else ""
    with context.progress.step(f"fit {options.model}{what}"):
        return plan.run(
            fit(asked),
            engine,
            on_request=lambda number, made: context.progress.line(
                f"pass {number}: {describe(made)}"
            ),
        )


def _checked(context: Context, item: Analysis, log: Log) -> tuple[ClvFit, tuple[Backtest, ...]]:
    """The model of what was known before the last days, beside these days."""
    days = _options(item).holdout_days
    with _customers(item, log, later_days=days) as customers:
        fitted = _fit(context, item, customers, later_days=days)
        with context.progress.step(f"compare with the last {days} days"):
            return fitted, _backtests(item, fitted, customers)


def _backtests(item: Analysis, fitted: ClvFit, customers: DataFrame) -> tuple[Backtest, ...]:
    options = _options(item)
    length = options.holdout_days / options.unit_days
    horizon = value_spec.ValueHorizon(periods=1, period_days=options.holdout_days)
    forecast = Forecast(
        purchases=fitted.purchases, spend=fitted.spend, horizon=horizon.scaled(options.unit_days)
    )
    scored = customers.transform(_scores(forecast)).persist()
    compared = {"purchases": ("expected_purchases", "later_purchases")}
    if fitted.spend is not None:
        compared["spend"] = ("expected_spend", "later_spend")
    total = total_purchases(fitted.purchases, fitted.cells, t=length)
    try:
        return tuple(
            _backtest(item, scored, what=what, columns=columns, share=_relative_error(total))
            for what, columns in compared.items()
        )
    finally:
        scored.unpersist()


def _relative_error(total: Estimate) -> float:
    return float(total.std_error[0]) / float(total.estimate[0])


def _backtest(
    item: Analysis, scored: DataFrame, *, what: str, columns: tuple[str, str], share: float
) -> Backtest:
    """Compare one prediction; bounds of its tenths are those of a bounded sample."""
    predicted, actual = columns
    sample = SparkEngine(scored)(
        SampleRequest(unit="unit", max_rows=_SAMPLE_ROWS, numbers=(predicted,))
    )
    bounds = np.unique(np.quantile(sample[predicted], np.arange(1, 10) / 10))
    group = F.lit(1)
    for bound in bounds:
        group = group + (F.col(predicted) > float(bound)).cast("int")
    rows = scored.withColumn(deciles.GROUP, group).withColumn(
        "absolute_error", F.abs(F.col(predicted) - F.col(actual))
    )
    asked = deciles.request(predicted=predicted, actual=actual, error="absolute_error")
    return deciles.backtest(
        SparkEngine(rows)(asked),
        asked,
        what=what,
        relative_error=share,
        confidence_level=item.spec.confidence_level,
    )


def _tracking(item: Analysis, log: Log, customers: DataFrame, shown: ClvFit) -> pd.DataFrame:
    """Cumulative repeat purchases, week by week."""
    options = _options(item)
    until = options.until - timedelta(days=options.holdout_days)
    days = float((until - datetime(1970, 1, 1, tzinfo=UTC).date()).days)
    # Without births a daily clock ends with its last day, which is the one before the end.
    last_tick = days - 1.0 if log.is_daily and log.births is None else days
    oldest = float(shown.cells.age.max()) * options.unit_days
    counts = collect_bounded(
        histories.purchases_by_step(
            log, customers.where(F.col("born") < days), start=last_tick - oldest, step=_STEP_DAYS
        ),
        max_rows=_MAX_STEPS,
        what="purchases by week",
    ).set_index("step")["n"]
    n_steps = int((oldest + options.holdout_days) // _STEP_DAYS)
    times = np.arange(1.0, n_steps + 1.0) * _STEP_DAYS
    actual = counts.sort_index().cumsum().reindex(range(n_steps), method="ffill").fillna(0)
    expected = calibration.cumulative_purchases(
        shown.purchases, shown.cells, times=np.asarray(times / options.unit_days, dtype=np.float64)
    )
    return pd.DataFrame({"time": times, "actual": actual.to_numpy(float), "expected": expected})


def _table(item: Analysis, customers: DataFrame, forecast: Forecast) -> Table:
    options = _options(item)
    made = [*INPUTS, *forecast.names]
    if options.amount is None:
        made.remove("monetary_value")
    return scored_table(
        customers.select(F.col("unit").alias(options.unit)).schema,
        table=item.spec.name,
        unit=options.unit,
        made=[
            Field(
                name=name,
                type="DOUBLE",
                comment=_MEANINGS[name],
                is_nullable=name == "monetary_value",
            )
            for name in made
        ],
        comment=f"Customers as of {options.until}, with what they are predicted to buy",
    )


def _scores(forecast: Forecast) -> Transform:
    return with_scores(
        names=forecast.names, score=forecast.score, inputs=[F.col(name) for name in INPUTS]
    )


def _sums(stored: Stored, forecast: Forecast) -> Mapping[str, float]:
    """Sums of the predictions over all customers, and how many there are."""
    rows = stored.lakehouse.read(stored.table.name)
    summed = rows.agg(
        F.count(F.lit(1)).cast("double").alias("customers"),
        *[F.sum(name).alias(name) for name in forecast.names],
    )
    found = collect_bounded(summed, max_rows=1, what="sums of predictions").iloc[0]
    return {str(name): float(value) for name, value in found.items()}
