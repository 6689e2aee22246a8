"""Predictions of trained models as a column: rows stay where they are, models travel to them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, types
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import pandas_udf

from causal.core.errors import SpecError
from causal.core.frames import BUCKET, Condition, HashBucket
from transforms.columns import Transform
from transforms.sampling import label
from transforms.schema import Field, Table
from transforms.terms import bucketed, filtered, kinds, quoted

Predict = Callable[[NDArray[np.int64], Sequence["pd.Series[Any]"]], NDArray[np.float64]]
"""From folds and features to predictions, one per row."""

Score = Callable[[Sequence["pd.Series[Any]"]], NDArray[np.float64]]
"""From the inputs of rows to several predictions of each."""
_SCORES = "(scores)"

_DDL = {
    "bigint": "BIGINT",
    "int": "INT",
    "smallint": "INT",
    "tinyint": "INT",
    "double": "DOUBLE",
    "float": "DOUBLE",
    "string": "STRING",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}


def with_prediction(
    *,
    name: str,
    predict: Predict,
    numbers: Sequence[str],
    labels: Sequence[str],
    fold: HashBucket,
    where: tuple[Condition, ...] = (),
) -> Transform:
    """Add what each row is predicted to have, by the model that has not seen its fold.

    The models are pickled into the tasks, so executors need the library that they are from and the
    suite itself (`--py-files`, or the wheel). A model of a few hundred trees has a megabyte or so.

    Args:
        name: The column that is added.
        predict: The models.
        numbers: Features that are numbers, in the order that `predict` takes them.
        labels: Features that are levels, after those.
        fold: How rows are parted into folds.
        where: Rows that are kept.

    Raises:
        SpecError: There is a column of this name already.
    """

    def score(*columns: pd.Series) -> pd.Series:
        return pd.Series(predict(columns[0].to_numpy(dtype=np.int64), columns[1:]))

    def transform(df: DataFrame) -> DataFrame:
        check_new(name, df.columns)
        inputs = _features(df, numbers, labels)
        rows = bucketed(filtered(df, where, kinds(df)), fold)
        number = F.coalesce(quoted(BUCKET), F.lit(-1)).cast("bigint")
        # The stubs know functions of a few named columns.
        predicted = pandas_udf(score, "double")(number, *inputs)  # type: ignore[call-overload]
        return rows.select(*map(quoted, df.columns), predicted.alias(name))

    return transform


def check_new(name: str, columns: Sequence[str], *, key: str | None = "options.prediction") -> None:
    """The name of a prediction is not that of a column of the source.

    Raises:
        SpecError: There is a column of this name already.
    """
    if name in columns:
        raise SpecError("the source has this column already", given=name, key=key)


def with_predictions(
    *, names: Sequence[str], predict: Score, numbers: Sequence[str], labels: Sequence[str]
) -> Transform:
    """Add several predictions of each row, all by the same call; null where one is NaN.

    The models travel as those of `with_prediction` do.

    Args:
        names: The columns that are added.
        predict: From features to predictions, shape (n, number of names).
        numbers: Features that are numbers, in the order that `predict` takes them.
        labels: Features that are levels, after those.

    Raises:
        SpecError: There is a column of such a name already.
    """

    def transform(df: DataFrame) -> DataFrame:
        for name in names:
            check_new(name, df.columns, key=None)
        scored = with_scores(names=names, score=predict, inputs=_features(df, numbers, labels))
        known = [F.when(~F.isnan(quoted(name)), quoted(name)).alias(name) for name in names]
        return scored(df).select(*map(quoted, df.columns), *known)

    return transform


def _features(df: DataFrame, numbers: Sequence[str], labels: Sequence[str]) -> list[Column]:
    """Features as models take them: numbers as doubles, then levels as text."""
    inputs = [quoted(column).cast("double") for column in numbers]
    return inputs + [label(df, column) for column in labels]


def declared(schema: types.StructType, *, table: str, unit: str, prediction: str) -> Table:
    """The declaration of a table of predictions: columns of the source and one more.

    Args:
        schema: Of the columns that are carried along.
        table: Name of the table.
        unit: Column that identifies a row.
        prediction: Column of the prediction.

    Raises:
        SpecError: A column has a type or a name that no declared table has.
    """
    made = Field(
        name=prediction,
        type="DOUBLE",
        comment="Prediction by a model that has not seen the row's fold",
        is_nullable=True,
    )
    return scored_table(
        schema, table=table, unit=unit, made=(made,), comment=f"Rows of the source and {prediction}"
    )


def scored_table(
    schema: types.StructType, *, table: str, unit: str, made: Sequence[Field], comment: str
) -> Table:
    """The declaration of a table that is made for the user: columns of a source, and new ones.

    Args:
        schema: Of the columns that are carried along.
        table: Name of the table.
        unit: Column that identifies a row.
        made: The columns that are added.
        comment: What a row is.

    Raises:
        SpecError: A column has a type or a name that no declared table has.
    """
    fields = (*carried(schema, unit=unit), *made)
    return Table(name=table, comment=comment, fields=fields, key=(unit,), checks={})


def with_scores(*, names: Sequence[str], score: Score, inputs: Sequence[Column]) -> Transform:
    """Add several predictions of one model; what `score` refuses stops the job.

    Args:
        names: The columns that are added, DOUBLE.
        score: From the inputs of some rows to their predictions, an array of shape (n, names).
        inputs: Columns that it is given, in its order.
    """

    def scored(*columns: pd.Series) -> pd.DataFrame:
        return pd.DataFrame(score(columns), columns=list(names))

    def transform(df: DataFrame) -> DataFrame:
        fields = ", ".join(f"`{name}` double" for name in names)
        # The stubs know functions of a few named columns.
        made = pandas_udf(scored, fields)(*inputs)  # type: ignore[call-overload]
        # Its own step, so that the model is asked once and not once a column.
        rows = df.select(*map(quoted, df.columns), made.alias(_SCORES))
        return rows.select(*map(quoted, df.columns), f"`{_SCORES}`.*")

    return transform


def carried(schema: types.StructType, *, unit: str) -> tuple[Field, ...]:
    """Columns of a source as those of a table.

    Args:
        schema: Of the columns.
        unit: The one that identifies a row.

    Raises:
        SpecError: A column has a type or a name that no declared table has.
    """
    return tuple(
        Field(
            name=field.name,
            type=_ddl(field),
            comment="As in the source",
            is_nullable=field.name != unit,
        )
        for field in schema.fields
    )


def _ddl(field: types.StructField) -> str:
    kind = field.dataType.simpleString()
    if kind not in _DDL:
        raise SpecError(
            "this column cannot be carried along",
            given=f"{field.name} ({kind})",
            allowed=f"{', '.join(sorted(_DDL))}; or name the columns to keep",
            key="options.keep",
        )
    return _DDL[kind]
