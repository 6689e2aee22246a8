"""Predict an outcome from what was known before, cross-fitted, as a covariate for experiments.

A spec names the source, the column to predict and the features (docs/methods/cupac.md). Models are
trained on a bounded sample and every row is scored in Spark; the table that is written holds the
source's rows with one more column, for `covariates` of an `ab` analysis.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from pydantic import Field
from pyspark.sql import functions as F

from causal.core import plan
from causal.core.errors import CausalError
from causal.core.frames import describe
from causal.experiments import cupac
from causal.experiments.cupac import CupacSpec, Forecasts
from jobs.runtime import analyses
from jobs.runtime.analyses import Analysis, Bound
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig
from jobs.runtime.lakehouse import Lakehouse
from jobs.runtime.runner import RunRecord, record
from transforms.columns import quoted
from transforms.predictions import check_new, declared, with_prediction
from transforms.schema import check_columns


class CupacConfig(JobConfig):
    """Options of the job.

    Attributes:
        spec: What is predicted.
    """

    spec: Path = Field(description="spec of the prediction")


def check(config: CupacConfig) -> None:
    """Validate the spec without Spark."""
    _loaded(config)


def _loaded(config: CupacConfig) -> Analysis:
    return analyses.load_for_table(config.spec, model=cupac.SPEC)


def run(context: Context, config: CupacConfig) -> int:
    """Train, predict and write; the exit code.

    Raises:
        CausalError: The data cannot carry the prediction, or the table cannot be written.
    """
    item = _loaded(config)
    started_at = datetime.now(UTC)
    bound = analyses.bind(context, item)
    try:
        spec = cast("CupacSpec", item.spec)
        place, version = _written(context, item, bound)
    except CausalError as error:
        raise item.located(error) from error
    kind = "table" if context.settings.tables == "catalog" else "path"
    context.progress.text(
        f"\n{spec.name}: read it with  source: {{{kind}: {place}}}  and  covariates: "
        f"[{spec.options.prediction}]"
    )
    if version is not None:
        made = RunRecord(
            run_key=bound.run_key,
            job="cupac",
            started_at=started_at,
            config=config,
            inputs={} if bound.version is None else {bound.source: bound.version},
            outputs={spec.name: version},
        )
        record(context, [made])
    return 0


def _written(context: Context, item: Analysis, bound: Bound) -> tuple[str, int | None]:
    """Where the table lies, and the version written; `None`: it is current."""
    spec = cast("CupacSpec", item.spec)
    options = spec.options
    df, _ = context.lakehouse.read_source(spec.source, beside=item.file.path.parent)
    kept = df.columns if options.keep is None else list(spec.kept)
    for key, names in (("unit", [options.unit]), ("keep", kept)):
        check_columns(df.columns, names, key=f"options.{key}")
    check_new(options.prediction, df.columns)
    table = declared(
        df.select(*map(quoted, kept)).schema,
        table=spec.name,
        unit=options.unit,
        prediction=options.prediction,
    )
    lakehouse = Lakehouse(
        session=context.session, settings=context.settings, declared=lambda _: table
    )
    place = lakehouse.path(spec.name)
    state = lakehouse.state(spec.name)
    if state is not None and state.identity == bound.run_key:
        context.progress.line(f"cupac: already current ({spec.name})")
        return place, None
    forecasts = _trained(context, spec, bound)
    scored = df.transform(
        with_prediction(
            name=options.prediction,
            predict=forecasts.predict,
            numbers=options.features,
            labels=options.categorical,
            fold=spec.fold,
            where=spec.source.conditions,
        )
    ).select(
        *[
            F.col(quoted(field.name)).cast(field.data_type).alias(field.name)
            for field in table.fields
        ]
    )
    with context.progress.step(f"score {forecasts.n_rows:,} rows"):
        return place, lakehouse.write(scored, spec.name, run_key=bound.run_key)


def _trained(context: Context, spec: CupacSpec, bound: Bound) -> Forecasts:
    with context.progress.step(f"train {spec.options.folds} models"):
        found = plan.run(
            cupac.train(spec),
            bound.engine,
            on_request=lambda number, asked: context.progress.line(
                f"pass {number}: {describe(asked)}"
            ),
        )
    context.progress.table(
        f"{spec.options.prediction}: {spec.options.target} by {spec.options.model}",
        ["rows", "without target", "trained on", "R squared out of fold", "variance removed"],
        [
            [
                f"{found.n_rows:,}",
                f"{found.n_without_target:,}",
                f"{found.n_drawn:,}",
                f"{found.r_squared:.3f}",
                f"{found.correlation**2:.1%}",
            ]
        ],
    )
    if found.correlation <= 0:
        context.progress.warning(
            f"{spec.options.prediction} does not predict {spec.options.target}: it removes nothing"
        )
    return found


JOB = CommandJob(name="cupac", config=CupacConfig, run=run, check=check)
