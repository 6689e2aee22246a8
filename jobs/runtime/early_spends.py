"""Spend of new customers from their first days: candidates compared, every customer scored."""

from pathlib import Path
from typing import cast

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from causal.clv import early_spend
from causal.clv.early_report import EarlySpendReport, StoredModelReport
from causal.clv.early_spend import EarlySpendSpec, SpendModel
from causal.clv.model_files import model_text, read_model
from causal.core.errors import DataError, SpecError
from jobs.runtime.analyses import Analysis, Bound
from jobs.runtime.context import Context
from jobs.runtime.customers import Report, Stored, opened_log, units_of
from jobs.runtime.lakehouse import found_path
from transforms import histories
from transforms.bounded import collect_bounded
from transforms.gram import Limits, SparkEngine
from transforms.predictions import scored_table, with_scores
from transforms.sampling import label
from transforms.schema import Field, Table
from transforms.terms import quoted

_SHOWN = 5


def early_spends(
    context: Context, item: Analysis, bound: Bound
) -> tuple[Report, Stored, int | None]:
    """What was found, the table, and the version written; `None`: it is current.

    Args:
        context: The run.
        item: The spec, an `EarlySpendSpec`.
        bound: What it reads.

    Raises:
        CausalError: Too few customers, a missing value, an unknown level, a model file that is not
            the recorded one, or the table cannot be written.
    """
    spec = cast("EarlySpendSpec", item.spec)
    rows = _features(context, item, spec).persist()
    try:
        n, n_young = _counts(rows)
        scored = rows.where("is_seen")
        report, model, sha256 = _model(context, item, spec, scored, counts=(n, n_young))
        _check_levels(scored, model)
        made = scored.withColumn("model_sha256", F.lit(sha256)).transform(
            with_scores(
                names=[spec.options.prediction],
                score=model.score,
                inputs=[quoted(name) for name in model.inputs],
            )
        )
        stored = Stored.of(context, _table(spec, rows))
        named = made.withColumnRenamed("unit", spec.options.unit)
        return report, stored, stored.write(context, named, run_key=bound.run_key)
    finally:
        rows.unpersist()


def _features(context: Context, item: Analysis, spec: EarlySpendSpec) -> DataFrame:
    """Features and target of every unit, with its levels as text."""
    options = spec.options
    log = opened_log(context, item, is_daily=False)
    early = histories.early_features(
        log,
        feature_days=options.feature_days,
        target_days=options.target_days,
        until=options.until,
    )
    units = units_of(context, item, columns=options.categorical)
    levels: list[Column] = [label(units, name).alias(name) for name in options.categorical]
    return early.join(units.select(quoted(options.unit).alias("unit"), *levels), on="unit")


def _counts(rows: DataFrame) -> tuple[int, int]:
    """Units that are scored, and units that have not had their first days yet."""
    counts = rows.agg(
        F.count_if(F.col("is_seen")).alias("n"), F.count_if(~F.col("is_seen")).alias("n_young")
    )
    found = collect_bounded(counts, max_rows=1, what="a count").iloc[0]
    if not found["n"]:
        raise DataError(
            "no customer has had the first days that features are made of",
            given=f"{found['n_young']:,} customers", key="options.until",
        )  # fmt: skip
    return int(found["n"]), int(found["n_young"])


def _model(
    context: Context,
    item: Analysis,
    spec: EarlySpendSpec,
    rows: DataFrame,
    *,
    counts: tuple[int, int],
) -> tuple[Report, SpendModel, str]:
    """The model and its hash: the stored one, or the best of the candidates."""
    stored = spec.options.stored
    if stored is not None:
        path = found_path(stored.path, beside=item.file.path.parent)
        model = read_model(Path(path).read_text(encoding="utf-8"), sha256=stored.sha256)
        _check_fits(model, spec)
        return StoredModelReport(spec=spec, model=model, counts=counts), model, stored.sha256
    limits = context.settings.limits
    engine = SparkEngine(
        rows, limits=Limits(max_rows=limits.frame_rows, max_bytes=limits.frame_bytes)
    )
    with context.progress.step(f"compare {len(spec.options.candidates)} candidates"):
        found = early_spend.search(spec, engine(spec.request()))
    text, sha256 = model_text(found.model)
    report = EarlySpendReport(spec=spec, found=found, text=text, sha256=sha256, counts=counts)
    return report, found.model, sha256


def _check_levels(rows: DataFrame, model: SpendModel) -> None:
    """Every level is one that the model knows, before anything is scored: the message is short."""
    for name, known in model.levels:
        is_known = F.coalesce(quoted(name).isin(list(known)), F.lit(False))
        others = rows.where(~is_known).select(quoted(name).alias("level")).distinct()
        shown = others.orderBy("level").limit(_SHOWN)
        found = collect_bounded(shown, max_rows=_SHOWN, what=f"unknown levels of {name}")
        if len(found):
            raise DataError(
                f"{name} has levels that the model was not trained on, or is missing",
                given=", ".join(map(str, found["level"])),
                allowed=list(known),
            )


def _check_fits(model: SpendModel, spec: EarlySpendSpec) -> None:
    wanted = (*spec.options.features, *spec.options.categorical)
    if model.inputs != wanted:
        raise SpecError(
            "the stored model was trained on other features",
            given=list(wanted),
            allowed=list(model.inputs),
            key="options.stored",
        )


def _table(spec: EarlySpendSpec, rows: DataFrame) -> Table:
    options = spec.options
    days = f"in the first {options.feature_days} days"
    meanings = dict(
        zip(
            options.features,
            (f"Days to the last purchase {days}", f"Purchases {days}", f"Spend {days}"),
            strict=True,
        )
    )
    made = [Field(name=name, type="DOUBLE", comment=text) for name, text in meanings.items()]
    made += [Field(name=name, type="STRING", comment="Level") for name in options.categorical]
    made += [
        Field(
            name=options.prediction,
            type="DOUBLE",
            comment=f"Expected spend in the {options.target_days} days after these",
        ),
        Field(name="model_sha256", type="STRING", comment="Hash of the model that predicts"),
    ]
    return scored_table(
        rows.select(F.col("unit").alias(options.unit)).schema,
        table=spec.name,
        unit=options.unit,
        made=made,
        comment="Customers who have had their first days, with what they are predicted to spend",
    )
