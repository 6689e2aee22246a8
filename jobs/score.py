"""Score a table of any size by a model of uplift, loaded by its recorded hash.

Every row gets the effect of every treatment, and a status: a row with a level that no training row
had, or a missing value that training never met, has no score. Such rows stop the job unless
`--unseen control` says that they are to be kept without one (docs/methods/uplift_learners.md).
"""

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from causal.core.errors import DataError, SpecError
from causal.core.spec import NAME_PATTERN, Source
from causal.uplift.inputs import STATUSES
from causal.uplift.learned_model import UpliftModel
from jobs.runtime import models
from jobs.runtime.catalogue import code_version
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig
from jobs.runtime.lakehouse import Lakehouse, found_path, source_format
from jobs.runtime.models import StoredModel
from jobs.runtime.runner import RunRecord, record
from transforms.bounded import collect_bounded
from transforms.predictions import carried
from transforms.sampling import label
from transforms.schema import Field as Column
from transforms.schema import Table, check_columns
from transforms.tables import TABLES
from transforms.terms import kinds, quoted
from transforms.uplift_frames import effect_name, status_text, with_effects

Unscored = Literal["refuse", "control"]
_EXAMPLES = 5


class ScoreConfig(JobConfig):
    """Options of the job.

    Attributes:
        model: Which model.
        sha256: Its hash, if it is to be a certain one.
        learner: Which of its learners.
        table: What is scored: a table.
        path: What is scored: a file or folder.
        version: Delta version of it.
        output_table: The table that is written.
        keep: Columns of the source that are carried along beside the unit.
        unseen: What becomes of rows that cannot be scored.
    """

    model: str = Field(description="name, name/version, or id of the MLflow run that holds it")
    sha256: str | None = Field(
        default=None, description="hash that the model must have (default: the recorded one)"
    )
    learner: str | None = Field(
        default=None, description="which of its learners (default: the first)"
    )
    table: str | None = Field(default=None, description="table that is scored")
    path: str | None = Field(default=None, description="file or folder that is scored")
    version: int | None = Field(
        default=None, ge=0, description="Delta version that is scored (default: the newest)"
    )
    output_table: str = Field(description="table that is written")
    keep: tuple[str, ...] = Field(
        default=(), description="columns of the source that are carried along beside the unit"
    )
    unseen: Unscored = Field(
        default="refuse",
        description="rows that cannot be scored, for an unseen category or a missing value: "
        "refuse stops, control keeps them without a score",
    )

    @property
    def source(self) -> Source:
        """What is scored.

        Raises:
            SpecError: Neither table nor path was given, or both.
        """
        if (self.table is None) == (self.path is None):
            raise SpecError("give exactly one of --table and --path", key="table")
        return Source(table=self.table, path=self.path, version=self.version)


def check(config: ScoreConfig) -> None:
    """Validate what can be told without Spark and MLflow."""
    models.check_reference(config.model, config.sha256)
    if not re.fullmatch(NAME_PATTERN, config.output_table):
        raise SpecError("this is no name of a table", given=config.output_table, key="output_table")
    if config.output_table in TABLES:
        raise SpecError(
            "this is a table of the suite: choose another name",
            given=config.output_table, key="output_table",
        )  # fmt: skip
    source = config.source
    if source.path is not None:
        source_format(source, found_path(source.path, beside=None))


def run(context: Context, config: ScoreConfig) -> int:
    """Score the table; the exit code.

    Raises:
        CausalError: The model is not the recorded one, or the rows are not what it was trained on.
    """
    check(config)
    started_at = datetime.now(UTC)
    with context.progress.step(f"load {config.model}"):
        stored = models.load(context, config.model, sha256=config.sha256)
    learner = stored.learner(config.learner)
    source = config.source
    df, version = context.lakehouse.read_source(source)
    check_features(df, stored.model)
    identity = context.lakehouse.source_identity(source, version)
    key = _run_key(config, stored, identity)
    table = _declared(df, config, stored.model)
    lakehouse = Lakehouse(
        session=context.session, settings=context.settings, declared=lambda _: table
    )
    state = lakehouse.state(table.name)
    if state is not None and state.identity == key:
        context.progress.line(f"score: already current ({table.name})")
        return 0
    scored = df.transform(with_effects(stored.model, learner=learner)).persist()
    try:
        counts = status_counts(scored)
        if config.unseen == "refuse":
            refuse_unscored(df, stored.model, counts)
        rows = scored.withColumns(
            {
                "status": status_text(),
                "learner": F.lit(learner),
                "model_sha256": F.lit(stored.sha256),
            }
        ).select(*[_cast(field) for field in table.fields])
        with context.progress.step(f"score {sum(counts.values()):,} rows"):
            written = lakehouse.write(rows, table.name, run_key=key)
    finally:
        scored.unpersist()
    _report(context, counts, f"{learner} of {config.model}", lakehouse.path(table.name))
    made = RunRecord(
        run_key=key,
        job="score",
        started_at=started_at,
        config=config,
        inputs={str(source.table or source.path): version},
        outputs={table.name: written},
    )
    record(context, [made])
    return 0


def check_features(df: DataFrame, model: UpliftModel) -> None:
    """The rows have the unit and the features, and numbers where numbers were learned from.

    Raises:
        SpecError: A column is missing.
        DataError: A feature is of another kind.
    """
    wanted = (model.spec.options.unit, *model.inputs.columns)
    missing = [name for name in wanted if name not in df.columns]
    if missing:
        raise SpecError(
            "the rows lack columns that the model was trained on", given=missing,
            allowed=df.columns,
        )  # fmt: skip
    kind = kinds(df)
    wrong = [f"{name} ({kind[name]})" for name in model.inputs.numbers
             if kind[name] not in ("number", "boolean")]  # fmt: skip
    if wrong:
        raise DataError("features are not numbers, as in training", given=wrong)


def status_counts(scored: DataFrame) -> dict[str, int]:
    """Rows by status."""
    counted = scored.groupBy("status").agg(F.count(F.lit(1)).alias("n"))
    rows = collect_bounded(counted, max_rows=len(STATUSES), what="rows by status")
    found = {int(row["status"]): int(row["n"]) for row in rows.to_dict("records")}
    return {name: found.get(number, 0) for number, name in enumerate(STATUSES)}


def refuse_unscored(df: DataFrame, model: UpliftModel, counts: dict[str, int]) -> None:
    """Stop if some rows cannot be scored; says which features and levels.

    Raises:
        DataError: Some rows cannot.
    """
    lost = {name: n for name, n in counts.items() if n and name != STATUSES[0]}
    if not lost:
        return
    given = [f"{name} ({n:,} rows)" for name, n in lost.items()]
    given += [*_unseen(df, model), *_missing(df, model)]
    raise DataError(
        "rows cannot be scored by this model",
        given=given,
        allowed="levels and missing values that training rows had; or unseen: control, which "
        "leaves such rows without a score",
        key="unseen",
    )


def _unseen(df: DataFrame, model: UpliftModel) -> list[str]:
    """Levels that no training row had, some of each feature."""
    out = []
    for name, levels in model.inputs.levels.items():
        text = label(df, name)
        others = df.where(~text.isin(*levels)).select(text.alias("level")).distinct()
        some = collect_bounded(
            others.orderBy("level").limit(_EXAMPLES), max_rows=_EXAMPLES, what="unseen levels"
        )
        out += [f"{name}={level}" for level in some["level"]]
    return out


def _missing(df: DataFrame, model: UpliftModel) -> list[str]:
    """Features that are missing though they never were in training."""
    inputs = model.inputs
    names = [name for name in inputs.columns
             if name not in inputs.fills and name not in inputs.may_miss]  # fmt: skip
    if not names:
        return []
    lacking = {name: quoted(name).isNull() for name in names}
    for name in set(names) & set(inputs.numbers):
        lacking[name] = lacking[name] | F.isnan(quoted(name).cast("double"))
    counted = df.agg(*[F.count_if(flag).alias(name) for name, flag in lacking.items()])
    row = collect_bounded(counted, max_rows=1, what="missing values").iloc[0]
    return [f"{name} is missing in {int(row[name]):,}" for name in names if row[name]]


def _declared(df: DataFrame, config: ScoreConfig, model: UpliftModel) -> Table:
    """The declaration of the table of scores.

    Raises:
        SpecError: A column cannot be carried along, or a name is taken.
    """
    unit = model.spec.options.unit
    names = tuple(dict.fromkeys((unit, *config.keep)))
    check_columns(df.columns, names, key="keep")
    made = (
        *(
            Column(
                name=effect_name(treatment),
                type="DOUBLE",
                comment=f"Effect of {treatment} on {model.spec.options.outcome}; null: no score",
                is_nullable=True,
            )
            for treatment in model.treatments
        ),
        Column(name="status", type="STRING", comment="scored, unseen_category or missing_value"),
        Column(name="learner", type="STRING", comment="Learner that scored"),
        Column(name="model_sha256", type="STRING", comment="Hash of the model that scored"),
    )
    taken = [field.name for field in made if field.name in names]
    if taken:
        raise SpecError("the source has this column already", given=taken[0], key="keep")
    return Table(
        name=config.output_table,
        comment=f"Effects by unit, scored by {model.spec.name}",
        fields=(*carried(df.select(*map(quoted, names)).schema, unit=unit), *made),
        key=(unit,),
        checks={},
    )


def _cast(field: Column) -> SparkColumn:
    return quoted(field.name).cast(field.data_type).alias(field.name)


def _run_key(config: ScoreConfig, stored: StoredModel, identity: str) -> str:
    parts = {
        "config": config.model_dump(mode="json"),
        "model": stored.sha256,
        "identity": identity,
        "code": code_version(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _report(context: Context, counts: dict[str, int], by: str, place: str) -> None:
    for name, n in counts.items():
        if n and name != STATUSES[0]:
            context.progress.warning(f"{n:,} rows are not scored: {name}")
    context.progress.text(f"\n{counts[STATUSES[0]]:,} rows scored by {by}: {place}")


JOB = CommandJob(name="score", config=ScoreConfig, run=run, check=check)
