"""Predict what customers will buy and are worth, from a log of purchases, into a table.

A spec names the log and the model (docs/methods/clv.md). One aggregation makes a row per customer,
another one the distinct histories that the model is fitted on; every customer is then scored in
Spark. With `holdout_days` the model is first fitted without the last days and compared with them.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
from pydantic import Field
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
from causal.core.errors import CausalError, SpecError
from causal.core.frames import SampleRequest, describe
from jobs.analyze import check_folder
from jobs.runtime import analyses, readout
from jobs.runtime.analyses import Analysis, Bound
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig
from jobs.runtime.lakehouse import Lakehouse
from jobs.runtime.readout import Readout
from jobs.runtime.runner import RunRecord, record
from jobs.runtime.spark_errors import translated
from jobs.runtime.tracking import Run
from transforms import histories
from transforms.bounded import collect_bounded
from transforms.columns import Transform
from transforms.gram import Limits, SparkEngine
from transforms.histories import Log
from transforms.predictions import scored_table, with_scores
from transforms.result_tables import DIAGNOSTICS
from transforms.schema import Field as TableField
from transforms.schema import Table
from transforms.tables import TABLES
from transforms.terms import filtered, kinds, quoted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


class ClvConfig(JobConfig):
    """Options of the job.

    Attributes:
        spec: Which customers, and the model.
        output: Folder for the tables, the summary and the figures.
    """

    spec: Path = Field(description="spec of the customers and the model")
    output: Path | None = Field(
        default=None,
        description="folder for parameters.csv, the tables, summary.md and the figures",
    )


def check(config: ClvConfig) -> None:
    """Validate the spec and the output folder without Spark."""
    item = analyses.load(config.spec, model=value_spec.SPEC)
    if item.spec.name in TABLES:
        error = SpecError(
            "this is a table of the suite: the spec's name is that of the table that is written",
            given=item.spec.name,
            key="name",
        )
        raise item.located(error)
    check_folder(config.output)


def run(context: Context, config: ClvConfig) -> int:
    """Fit, check, score and write; the exit code.

    Raises:
        CausalError: The log cannot carry the model, or the table cannot be written.
    """
    check(config)
    item = analyses.load(config.spec, model=value_spec.SPEC)
    started_at = datetime.now(UTC)
    bound = _bound(context, item)
    try:
        with translated(), _customers(context, item) as (log, customers):
            found, forecast = _valued(context, item, log, customers)
            stored = _stored(context, item, forecast, customers)
            version = _written(context, bound, forecast, customers, stored)
            found = dataclasses.replace(found, sums=_sums(stored, forecast))
    except CausalError as error:
        raise item.located(error) from error
    _leave(context, config, bound, found, stored.place)
    if version is not None:
        rows = readout.diagnostic_rows(Readout(bound, found.result, started_at))
        lakehouse = context.lakehouse
        lakehouse.merge(
            lakehouse.frame(rows, DIAGNOSTICS.name), DIAGNOSTICS.name, run_key=bound.run_key
        )
        made = RunRecord(
            run_key=bound.run_key,
            job="clv",
            started_at=started_at,
            config=config,
            inputs={} if bound.version is None else {bound.source: bound.version},
            outputs={item.spec.name: version},
        )
        record(context, [made])
    return 0


def _options(item: Analysis) -> ValueOptions:
    return cast("ValueSpec", item.spec).options


def _bound(context: Context, item: Analysis) -> Bound:
    """The log, named with the content of the table of units, since both are read."""
    bound, units = analyses.bind(context, item), _options(item).units
    if units is None:
        return bound
    beside = item.file.path.parent
    try:
        _, version = context.lakehouse.read_source(units, beside=beside)
        identity = context.lakehouse.source_identity(units, version, beside=beside)
    except CausalError as error:
        raise item.located(error) from error
    return dataclasses.replace(bound, identity=f"{bound.identity} with {identity}")


@contextmanager
def _customers(context: Context, item: Analysis) -> Iterator[tuple[Log, DataFrame]]:
    """The purchases, and a row per customer as of the end; kept while the block runs."""
    options, beside = _options(item), item.file.path.parent
    is_daily = options.purchases == "days"
    source, _ = context.lakehouse.read_source(item.spec.source, beside=beside)
    _check_columns(source, [options.unit, options.time, options.amount], key="options")
    with context.progress.step("read the purchases"):
        rows = filtered(source, item.spec.source.conditions, kinds(source)).transform(
            histories.purchase_log(
                unit=options.unit,
                time=options.time,
                amount=options.amount,
                until=options.until,
                is_daily=is_daily,
            )
        )
        births = None
        if options.units is not None:
            units, _ = context.lakehouse.read_source(options.units, beside=beside)
            _check_columns(units, [options.unit, options.units.born], key="options.units")
            births = filtered(units, options.units.conditions, kinds(units)).transform(
                histories.births(unit=options.unit, born=options.units.born, is_daily=is_daily)
            )
        log = Log(rows=rows, births=births, is_daily=is_daily)
        histories.check_known(log)
    customers = histories.histories(
        log, until=options.until, grid=options.grid_days, unit_days=options.unit_days
    ).persist()
    try:
        yield log, customers
    finally:
        customers.unpersist()


def _check_columns(df: DataFrame, names: list[str | None], *, key: str) -> None:
    unknown = [name for name in names if name is not None and name not in df.columns]
    if unknown:
        raise SpecError(
            "the source has no such column", given=unknown[0], allowed=df.columns, key=key
        )


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
    options = _options(item)
    until = options.until - timedelta(days=options.holdout_days)
    customers = histories.histories(
        log, until=until, grid=options.grid_days, unit_days=options.unit_days
    ).persist()
    try:
        fitted = _fit(context, item, customers, later_days=options.holdout_days)
        with context.progress.step(f"compare with the last {options.holdout_days} days"):
            return fitted, _backtests(item, fitted, customers)
    finally:
        customers.unpersist()


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
    return float(total.std_error) / float(total.estimate)


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
    oldest = float(shown.cells.age.max()) * options.unit_days
    counts = collect_bounded(
        histories.purchases_by_step(log, customers, start=days - oldest, step=_STEP_DAYS),
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


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The table that is written.

    Attributes:
        table: Its declaration, the unit first.
        lakehouse: Tables that know it.
    """

    table: Table
    lakehouse: Lakehouse

    @property
    def place(self) -> str:
        """Where it lies."""
        return self.lakehouse.path(self.table.name)


def _stored(context: Context, item: Analysis, forecast: Forecast, customers: DataFrame) -> Stored:
    options = _options(item)
    made = [*INPUTS, *forecast.names]
    if options.amount is None:
        made.remove("monetary_value")
    table = scored_table(
        customers.select(F.col("unit").alias(options.unit)).schema,
        table=item.spec.name,
        unit=options.unit,
        made=[
            TableField(
                name=name,
                type="DOUBLE",
                comment=_MEANINGS[name],
                is_nullable=name == "monetary_value",
            )
            for name in made
        ],
        comment=f"Customers as of {options.until}, with what they are predicted to buy",
    )
    lakehouse = Lakehouse(
        session=context.session, settings=context.settings, declared=lambda _: table
    )
    return Stored(table=table, lakehouse=lakehouse)


def _written(
    context: Context, bound: Bound, forecast: Forecast, customers: DataFrame, stored: Stored
) -> int | None:
    """The version written; `None`: the table is current."""
    name = stored.table.name
    state = stored.lakehouse.state(name)
    if state is not None and state.identity == bound.run_key:
        context.progress.line(f"clv: already current ({name})")
        return None
    unit, *made = stored.table.fields
    rows = customers.transform(_scores(forecast)).select(
        F.col("unit").cast(unit.data_type).alias(unit.name), *[quoted(field.name) for field in made]
    )
    with context.progress.step(f"score {forecast.purchases.n:,} customers"):
        return stored.lakehouse.write(rows, name, run_key=bound.run_key)


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


def _note(item: Analysis, bound: Bound, found: Valued, place: str) -> str:
    read = f"fitted on `{bound.source}`, run key `{bound.run_key[:12]}`"
    failed = [f"- failed: {made.name}: {made.detail}" for made in found.result.failed_checks]
    return "\n".join(
        [
            f"### {item.spec.description or item.spec.name}",
            "",
            *[f"- {line}" for line in found.sentences()],
            "",
            *failed,
            *([""] if failed else []),
            f"Customers are in `{place}`; {read}.",
        ]
    )


def _leave(context: Context, config: ClvConfig, bound: Bound, found: Valued, place: str) -> None:
    """Files, an MLflow run and a few lines."""
    item, result = bound.analysis, found.result
    note, figures = _note(item, bound, found, place), found.figures()
    if config.output is not None:
        texts = {
            "parameters.json": result.tables["parameters"].to_json(orient="records", indent=2),
            "diagnostics.json": result.diagnostics_json(),
            "spec.json": json.dumps(item.spec.model_dump(mode="json"), indent=2),
            "summary.md": note,
            **{
                f"{name}.csv": table.to_csv(index=False, lineterminator="\n").rstrip("\n")
                for name, table in result.tables.items()
            },
        }
        readout.leave_files(config.output, texts=texts, figures=figures)
        context.progress.line(f"{item.spec.name}: results in {config.output}")
    if context.tracking.find_finished(bound.run_key) is None:
        tags = {"causalake.analysis": item.spec.name, "causalake.method": item.spec.method}
        with context.tracking.run(
            item.spec.name, run_name=item.spec.name, run_key=bound.run_key, tags=tags
        ) as opened:
            _log(opened, bound, found, note, figures)
    context.progress.text("\n" + "\n".join(found.sentences()))
    for made in result.failed_checks:
        context.progress.warning(f"{made.name}: {made.detail}")
    context.progress.text(f"{item.spec.name}: the customers are in {place}")


def _log(
    opened: Run, bound: Bound, found: Valued, note: str, figures: Mapping[str, "Figure"]
) -> None:
    spec, result = bound.analysis.spec, found.result
    opened.note(note)
    opened.log_params(
        dict(readout.flattened(spec.model_dump(mode="json", exclude_none=True)))
        | {
            "run_key": bound.run_key,
            "source_version": bound.version,
            "source_identity": bound.identity,
            **readout.versions(),
        }
    )
    opened.log_metrics(found.metrics())
    for name, table in result.tables.items():
        opened.log_table(f"tables/{name}", table)
    opened.log_table("diagnostics", result.diagnostics_frame().astype(object))
    for name, figure in figures.items():
        opened.log_figure(f"figures/{name}", figure)
    opened.log_dict("spec.yaml", spec.model_dump(mode="json"))
    opened.log_text("summary.md", note)


JOB = CommandJob(name="clv", config=ClvConfig, run=run, check=check)
