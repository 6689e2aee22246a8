"""A predicted outcome as covariate: cross-fitted, so that no row is predicted by what it taught.

CUPED removes the variance that a linear function of the covariates explains. Where the relation is
not linear, a learner's prediction of the outcome explains more, and it is one number per row: an
ordinary covariate. Rows are parted into folds by a hash, a model per fold is trained on a sample of
the rows of the other folds, and each row is predicted by the model that has not seen its fold.

Why this is sound: given the other folds, a row's prediction is a function of its features alone.
Features that are known before the treatment are independent of the assignment, so the prediction
is a covariate like any other, whatever the model is worth; and the error of the training does not
enter the variance of the adjusted effect to first order. That holds if the target is a column of
the time before the experiment and the features are older still (CUPAC, Tang et al. 2020) and if it
is the outcome itself, over all arms together and without the arm among the features (MLRATE, Guo et
al. 2021). Where clusters were assigned, folds part clusters: a row's neighbours carry its arm.

Sources: Tang, Huang, Kastelman and Bauman (2020), "Control using predictions as covariates in
switchback experiments" (DoorDash); Guo, Coey, Konutgan, Li, Schoener and Goldman (2021), "Machine
learning for variance reduction in online experiments", NeurIPS; Chernozhukov et al. (2018),
"Double/debiased machine learning", for the cross-fitting.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, model_validator

from causal.core.buckets import bucket_numbers
from causal.core.errors import DataError
from causal.core.frames import (
    BUCKET,
    Column,
    FrameRequest,
    GramRequest,
    HashBucket,
    KeyRequest,
    SampleRequest,
)
from causal.core.gram import Array, Gram, grams
from causal.core.levels import codes_of, levels_of
from causal.core.spec import COLUMN_PATTERN, Part, Spec

MIN_ROWS = 100
"""Rows with a target that each model must be trained on."""

Model = Literal["gradient_boosting", "ridge"]
_ColumnName = Annotated[str, Field(pattern=COLUMN_PATTERN)]


class CupacOptions(Part):
    """What is predicted, and how.

    Attributes:
        unit: Column of the unit; it must identify a row.
        target: Column that is predicted: of the time before the experiment, or the outcome.
        prediction: Name of the column that is added.
        features: Columns of numbers, known before the treatment; may be missing.
        categorical: Columns of levels, known before the treatment; may be missing.
        fold_by: Column whose values are parted into folds: what was assigned to the arms, such as
            a household; the unit if left out.
        folds: How many.
        model: `gradient_boosting`: histogram-based boosted trees; `ridge`: a penalised linear
            regression on standardised features.
        max_rows: Rows that are drawn for training.
        iterations: Trees.
        leaves: Leaves of a tree at most.
        learning_rate: Share of each tree that is added.
        penalty: Of the ridge regression, in units of one row.
        keep: Columns of the source that the table of predictions has beside the unit; all if left
            out.
    """

    unit: _ColumnName
    target: _ColumnName
    prediction: str = Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$")
    features: tuple[_ColumnName, ...] = ()
    categorical: tuple[_ColumnName, ...] = ()
    fold_by: _ColumnName | None = None
    folds: int = Field(default=5, ge=2, le=50, strict=True)
    model: Model = "gradient_boosting"
    max_rows: int = Field(default=200_000, ge=500, le=5_000_000, strict=True)
    iterations: int = Field(default=150, ge=1, le=5000, strict=True)
    leaves: int = Field(default=15, ge=2, le=1024, strict=True)
    learning_rate: float = Field(default=0.1, gt=0, le=1)
    penalty: float = Field(default=1.0, gt=0)
    keep: tuple[_ColumnName, ...] | None = Field(default=None, min_length=1)

    @property
    def inputs(self) -> tuple[str, ...]:
        """All features, numbers first."""
        return (*self.features, *self.categorical)

    @model_validator(mode="after")
    def _columns_differ(self) -> "CupacOptions":
        if not self.inputs:
            raise ValueError("features or categorical: at least one column to predict from")
        repeated = [name for name in self.inputs if self.inputs.count(name) > 1]
        if repeated:
            raise ValueError(f"{repeated[0]} is listed twice")
        for name in (self.target, self.unit):
            if name in self.inputs:
                raise ValueError(f"{name} is the target or the unit, not a feature")
        if self.prediction in (*self.inputs, self.target, self.unit, self.fold_by):
            raise ValueError("prediction is the name of a new column")
        return self

    @model_validator(mode="after")
    def _options_fit_model(self) -> "CupacOptions":
        of_trees = {"iterations", "leaves", "learning_rate"}
        wrong = of_trees if self.model == "ridge" else {"penalty"}
        given = sorted(wrong & self.model_fields_set)
        if given:
            raise ValueError(f"{given[0]} is no option of {self.model}")
        return self


class CupacSpec(Spec):
    """A prediction that is to be used as covariate."""

    method: Literal["cupac"]
    options: CupacOptions

    @property
    def fold(self) -> HashBucket:
        """How rows are parted into folds."""
        options = self.options
        return HashBucket(options.fold_by or options.unit, options.folds, salt=self.seed)

    @property
    def kept(self) -> tuple[str, ...]:
        """Columns of the source that are named to be kept, the unit first."""
        return tuple(dict.fromkeys((self.options.unit, *(self.options.keep or ()))))


SPEC = CupacSpec


class Regressor(Protocol):
    """A fitted model."""

    def predict(self, X: Array) -> Array:  # noqa: N803 - the name that scikit-learn has
        """Predictions, shape (n,), of features of shape (n, p)."""


@dataclass(frozen=True, kw_only=True)
class Forecasts:
    """A model for each fold, none of which has seen a row of it.

    Attributes:
        options: What is predicted from what.
        models: One per fold.
        levels: Known levels of each categorical feature.
        n_rows: Rows that fulfil the conditions.
        n_without_target: Of these, without a target: predicted, but no model learned from them.
        n_drawn: Rows that models were trained on.
        r_squared: Share of the target's variance that the predictions of the rows drawn explain,
            each made by the model that has not seen it; below zero: less than its mean does.
        correlation: Of these predictions with the target; its square is the share of the variance
            that the covariate removes.
    """

    options: CupacOptions
    models: tuple[Regressor, ...]
    levels: Mapping[str, tuple[str, ...]]
    n_rows: int
    n_without_target: int
    n_drawn: int
    r_squared: float
    correlation: float

    def predict(self, folds: NDArray[np.int64], columns: Sequence["pd.Series[Any]"]) -> Array:
        """Predictions of rows, each by the model of its fold; NaN without one.

        Args:
            folds: Shape (n,); negative where there is none.
            columns: The features in the order of `options.inputs`.
        """
        matrix = design(self.options, columns, self.levels)
        out = np.full(len(folds), np.nan)
        for fold, model in enumerate(self.models):
            rows = np.flatnonzero(folds == fold)
            if len(rows):
                out[rows] = model.predict(matrix[rows])
        return out


def train(spec: CupacSpec) -> Generator[FrameRequest, pd.DataFrame, Forecasts]:
    """Train a model per fold; a plan that any engine answers.

    Raises:
        DataError: A unit is null or occurs twice, `fold_by` is null somewhere, a fold leaves too
            few rows to learn from, the target does not vary, or a feature has too many levels.
    """
    options = spec.options
    where = spec.source.conditions
    keys = yield KeyRequest(key=(options.unit,), where=where)
    _check_units(options, keys)
    request = GramRequest(terms=(Column(options.target),), where=where, bucket=spec.fold)
    by_fold = grams((yield request), request)
    _check_folds(spec, {key[0]: gram for key, gram in by_fold.items()})
    sample = yield SampleRequest(
        unit=options.unit,
        max_rows=options.max_rows,
        numbers=(options.target, *options.features),
        labels=options.categorical,
        known=(options.target,),
        salt=spec.seed,
        bucket=spec.fold,
        where=where,
    )
    counts = [(gram.n, gram.n_missing) for gram in by_fold.values()]
    return fitted(
        spec,
        sample,
        n_rows=sum(n + n_missing for n, n_missing in counts),
        n_without_target=sum(n_missing for _, n_missing in counts),
    )


def fitted(
    spec: CupacSpec, sample: pd.DataFrame, *, n_rows: int, n_without_target: int
) -> Forecasts:
    """The models from rows that were drawn.

    Args:
        spec: What is predicted.
        sample: The rows: target, features and `BUCKET`.
        n_rows: Rows that there are.
        n_without_target: Of these, without a target.

    Raises:
        DataError: The rows are too few, do not vary, or a feature has too many levels.
    """
    options = spec.options
    levels = {name: levels_of(sample[name], name) for name in options.categorical}
    target = sample[options.target].to_numpy(dtype=np.float64)
    folds = sample[BUCKET].to_numpy(dtype=np.int64)
    matrix = design(options, [sample[name] for name in options.inputs], levels)
    _check_finite(matrix, options)
    models = []
    for fold in range(options.folds):
        kept = folds != fold
        if kept.sum() < MIN_ROWS or not np.ptp(target[kept]) > 0:
            raise DataError(
                "too few rows, or rows that are all alike, to learn from",
                given=f"{int(kept.sum())} rows without fold {fold}",
                allowed=f"at least {MIN_ROWS} that vary in {options.target}",
            )
        models.append(_fit(spec, matrix[kept], target[kept]))
    out_of_fold = np.full(len(target), np.nan)
    for fold, model in enumerate(models):
        if (folds == fold).any():
            out_of_fold[folds == fold] = model.predict(matrix[folds == fold])
    rest = target - out_of_fold
    spread = target - target.mean()
    return Forecasts(
        options=options,
        models=tuple(models),
        levels=levels,
        n_rows=n_rows,
        n_without_target=n_without_target,
        n_drawn=len(sample),
        r_squared=1.0 - float(rest @ rest) / float(spread @ spread),
        correlation=_correlation(out_of_fold, target),
    )


def predictions(forecasts: Forecasts, spec: CupacSpec, frame: pd.DataFrame) -> Array:
    """Predictions of the rows of a pandas frame, shape (n,): what a notebook adds as a column.

    Example:
        >>> import numpy as np
        >>> from causal.core.pandas_engine import PandasEngine
        >>> from causal.core.plan import run
        >>> from causal.core.spec import validate
        >>> rng = np.random.default_rng(1)
        >>> before = rng.normal(size=1000)
        >>> users = pd.DataFrame(
        ...     {"user": range(1000), "before": before, "spend": before**2 + rng.normal(size=1000)}
        ... )
        >>> spec = validate(
        ...     SPEC,
        ...     {
        ...         "name": "forecast",
        ...         "source": {"table": "users"},
        ...         "method": "cupac",
        ...         "options": {
        ...             "unit": "user",
        ...             "target": "spend",
        ...             "features": ["before"],
        ...             "prediction": "predicted_spend",
        ...         },
        ...     },
        ... )
        >>> forecasts = run(train(spec), PandasEngine(users))
        >>> found = predictions(forecasts, spec, users)
        >>> bool(np.corrcoef(found, users["spend"])[0, 1] > 0.7)
        True
    """
    folds = bucket_numbers(frame[spec.fold.column], spec.fold)
    return forecasts.predict(folds, [frame[name] for name in spec.options.inputs])


def design(
    options: CupacOptions, columns: Sequence["pd.Series[Any]"], levels: Mapping[str, Sequence[str]]
) -> Array:
    """Features as numbers, NaN where missing, shape (n, p).

    Trees see a level as its number; the ridge regression sees an indicator of each. A level that
    no row drawn had is missing.

    Args:
        options: Which columns there are.
        columns: The features in the order of `options.inputs`.
        levels: Known levels of each categorical feature.
    """
    out = []
    for name, column in zip(options.inputs, columns, strict=True):
        if name not in levels:
            out.append(column.to_numpy(dtype=np.float64, na_value=np.nan))
            continue
        codes = codes_of(column, levels[name])
        if options.model == "ridge":
            out += [(codes == code).astype(np.float64) for code in range(len(levels[name]))]
        else:
            out.append(np.where(codes < 0, np.nan, codes))
    return np.column_stack(out)


def _fit(spec: CupacSpec, matrix: Array, target: Array) -> Regressor:
    if spec.options.model == "ridge":
        return _Ridge.of(matrix, target, penalty=spec.options.penalty)
    from sklearn.ensemble import HistGradientBoostingRegressor

    options = spec.options
    is_categorical = [False] * len(options.features) + [True] * len(options.categorical)
    model = HistGradientBoostingRegressor(
        max_iter=options.iterations,
        max_leaf_nodes=options.leaves,
        learning_rate=options.learning_rate,
        l2_regularization=1.0,
        early_stopping=False,
        categorical_features=is_categorical if any(is_categorical) else None,
        random_state=spec.seed % 2**32,
    )
    found: Regressor = model.fit(matrix, target)
    return found


@dataclass(frozen=True)
class _Ridge:
    """A ridge regression on standardised features, missing ones at their mean.

    Attributes:
        center: Means of the features, shape (p,).
        scale: Their standard deviations; 1 where a feature does not vary, shape (p,).
        slopes: Shape (p,).
        level: Mean of the target.
    """

    center: Array
    scale: Array
    slopes: Array
    level: float

    @classmethod
    def of(cls, matrix: Array, target: Array, *, penalty: float) -> "_Ridge":
        known = ~np.isnan(matrix)
        counts = np.maximum(known.sum(axis=0), 1)
        center = np.where(known, matrix, 0.0).sum(axis=0) / counts
        off = np.where(known, matrix - center, 0.0)
        scale = np.sqrt((off**2).mean(axis=0))
        scale = np.asarray(np.where(scale > 0, scale, 1.0), dtype=np.float64)
        x, level = off / scale, float(target.mean())
        inner = x.T @ x + penalty * np.eye(x.shape[1])
        return cls(center, scale, np.linalg.solve(inner, x.T @ (target - level)), level)

    def predict(self, X: Array) -> Array:  # noqa: N803 - as scikit-learn's models
        off = np.where(np.isnan(X), 0.0, (X - self.center) / self.scale)
        return np.asarray(self.level + off @ self.slopes, dtype=np.float64)


def _check_units(options: CupacOptions, keys: pd.DataFrame) -> None:
    row = keys.to_dict("records")[0]
    if row["n_null"]:
        raise DataError(f"{options.unit} is null", given=f"{row['n_null']} of {row['n']} rows")
    if row["n_duplicated"]:
        raise DataError(
            f"{options.unit} must identify a row",
            given=f"{row['n_duplicated']} occur more than once, such as {row['examples'][0]}",
            allowed="one row per unit; source.where chooses those of one experiment",
        )


def _check_folds(spec: CupacSpec, by_fold: Mapping[object, Gram]) -> None:
    lost = by_fold.get(None)
    if lost is not None:
        raise DataError(
            f"{spec.fold.column} is null, so some rows have no fold",
            given=f"{lost.n + lost.n_missing} rows",
        )
    if not by_fold:
        raise DataError("the source has no rows after the filters")


def _check_finite(matrix: Array, options: CupacOptions) -> None:
    names = [name for j, name in enumerate(options.features) if np.isinf(matrix[:, j]).any()]
    if names:
        raise DataError("a feature holds infinite values", given=names)


def _correlation(predicted: Array, target: Array) -> float:
    if not np.ptp(predicted) > 0:
        return 0.0
    return float(np.corrcoef(predicted, target)[0, 1])
