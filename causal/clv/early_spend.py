"""Spend of new customers from their first days: families of regressions compared, one chosen.

A customer's first days give recency, frequency and monetary value; the target is the spend of the
days that follow. Every candidate (a family and one point of its grid) is fitted on all folds but
one and judged on that one, over all folds; the candidate with the smallest mean squared error is
fitted on all of them and judged once more on customers held out from the search, which gives the
error that is told: the error of the best of many in the search itself would flatter it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, model_validator

from causal.clv.value_spec import ColumnName, LogOptions
from causal.core.errors import DataError
from causal.core.frames import BUCKET, HashBucket, SampleRequest
from causal.core.gram import Array
from causal.core.inference import critical_value
from causal.core.spec import Part, Spec

Family = Literal["mean", "ridge", "random_forest", "boosted"]
TARGET = "target"
MIN_ROWS = 200
"""Customers with a known target that the search must have."""
MAX_LEVELS = 255
_BUCKETS = 1000
_GRIDS: Mapping[Family, Mapping[str, tuple[float, ...]]] = MappingProxyType(
    {
        "mean": {},
        "ridge": {"penalty": (1.0, 100.0, 10_000.0)},
        "random_forest": {"max_depth": (5, 9), "min_samples_leaf": (5, 25)},
        "boosted": {"max_leaf_nodes": (4, 15), "max_iter": (50, 150)},
    }
)
_PARAMETERS: Mapping[Family, frozenset[str]] = MappingProxyType(
    {
        "mean": frozenset(),
        "ridge": frozenset({"penalty"}),
        "random_forest": frozenset({"max_depth", "min_samples_leaf", "n_estimators"}),
        "boosted": frozenset({"max_leaf_nodes", "max_iter", "learning_rate", "min_samples_leaf"}),
    }
)


class StoredModel(Part):
    """A model that was trained before.

    Attributes:
        path: Its file; relative paths start at the working directory, then at the spec's.
        sha256: The hash that was recorded when it was trained.
    """

    path: str = Field(min_length=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class EarlySpendOptions(LogOptions):
    """What is learned, from what, and which candidates compete.

    Attributes:
        feature_days: First days of a customer that features are made of.
        target_days: Days after those whose spend is predicted.
        categorical: Columns of `units` with levels, such as a city.
        families: Grids by family, each parameter with its values; an empty one means the default.
        folds: Folds of the search.
        held_out: Share of customers that the search does not see.
        max_rows: Customers that are drawn for all this.
        stored: A model that was trained before and scores now; nothing is learned then.
    """

    feature_days: int = Field(default=7, ge=1, le=365, strict=True)
    target_days: int = Field(default=30, ge=1, le=3650, strict=True)
    categorical: tuple[ColumnName, ...] = ()
    families: dict[Family, dict[str, tuple[float, ...]]] = Field(
        default_factory=lambda: {family: dict(grid) for family, grid in _GRIDS.items()},
        min_length=1,
    )
    folds: int = Field(default=5, ge=2, le=20, strict=True)
    held_out: float = Field(default=0.25, ge=0.05, le=0.5)
    max_rows: int = Field(default=50_000, ge=500, le=2_000_000, strict=True)
    stored: StoredModel | None = None

    @model_validator(mode="after")
    def _are_known(self) -> "EarlySpendOptions":
        if self.amount is None or self.units is None:
            raise ValueError("amount and units are required: spend since a registration is learned")
        for family, grid in self.families.items():
            unknown = sorted(set(grid) - _PARAMETERS[family])
            if unknown:
                allowed = ", ".join(sorted(_PARAMETERS[family])) or "none"
                raise ValueError(f"{family} has no parameter {unknown[0]}; it has: {allowed}")
            if any(not values for values in grid.values()):
                raise ValueError(f"{family}: a parameter needs one value or more")
        if len(self.candidates) > 64:  # noqa: PLR2004
            raise ValueError(f"{len(self.candidates)} candidates are more than the 64 allowed")
        return self

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features that are numbers."""
        return tuple(f"{name}_{self.feature_days}" for name in ("recency", "frequency", "monetary"))

    @property
    def prediction(self) -> str:
        """Name of the column of predictions."""
        return f"expected_spend_{self.target_days}"

    @property
    def candidates(self) -> "tuple[Candidate, ...]":
        """Every point of every grid, in their order."""
        found = []
        for family, given in self.families.items():
            grid = given or _GRIDS[family]
            found += [
                Candidate(family=family, parameters=tuple(zip(grid, values, strict=True)))
                for values in product(*grid.values())
            ]
        return tuple(found)


class EarlySpendSpec(Spec):
    """A prediction of the spend of new customers."""

    method: Literal["early_spend"]
    options: EarlySpendOptions

    def request(self) -> SampleRequest:
        """The customers that are learned from."""
        options = self.options
        return SampleRequest(
            unit="unit",
            max_rows=options.max_rows,
            numbers=(TARGET, *options.features),
            labels=options.categorical,
            known=(TARGET,),
            salt=self.seed,
            bucket=HashBucket("unit", _BUCKETS, salt=self.seed + 1),
        )


SPEC = EarlySpendSpec


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One point of a family's grid."""

    family: Family
    parameters: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """Family and parameters in a line."""
        shown = ", ".join(f"{name}={value:g}" for name, value in self.parameters)
        return f"{self.family}({shown})" if shown else self.family


class Regressor(Protocol):
    """A fitted model."""

    def predict(self, X: Array) -> Array:  # noqa: N803 - the name that scikit-learn has
        """Predictions, shape (n,), of features of shape (n, p)."""


@dataclass(frozen=True, kw_only=True)
class SpendModel:
    """A chosen model with all that it needs to score customers.

    Attributes:
        features: Names of the features that are numbers.
        levels: Known levels of each categorical feature.
        candidate: What it is.
        model: The fitted model.
    """

    features: tuple[str, ...]
    levels: tuple[tuple[str, tuple[str, ...]], ...]
    candidate: Candidate
    model: Regressor

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns that a customer needs, in the order of `score`."""
        return (*self.features, *(name for name, _ in self.levels))

    def score(self, columns: "Sequence[pd.Series[Any]]") -> Array:
        """Predictions, shape (n, 1), none below zero.

        Args:
            columns: The columns `inputs`.

        Raises:
            DataError: A value is missing, or a level was never seen in training.
        """
        matrix = design(columns, features=self.features, levels=self.levels)
        if not len(matrix):
            return np.empty((0, 1))
        return self.model.predict(matrix).clip(min=0.0)[:, None]


@dataclass(frozen=True, kw_only=True)
class Search:
    """What the search found.

    Attributes:
        model: The chosen model, fitted on the customers of the search.
        table: One row per candidate, best first: `candidate`, `family`, `rmse` out of fold with
            `ci_lower` and `ci_upper`, `mae`, `rank_correlation`, `worse_by` (its mean squared error
            less the best's) with `std_error`, both over the same customers.
        held_out: One row per held-out customer: `predicted` and `actual`.
        errors: `rmse` of these with `rmse_lower` and `rmse_upper`, `mae` with its interval,
            `rank_correlation`, and `rmse_mean`, that of predicting everyone the mean.
        n_searched: Customers of the search.
    """

    model: SpendModel
    table: pd.DataFrame
    held_out: pd.DataFrame
    errors: Mapping[str, float]
    n_searched: int


def search(spec: EarlySpendSpec, sample: pd.DataFrame) -> Search:
    """Compare the candidates and choose one.

    Args:
        spec: What is learned.
        sample: The answer to `spec.request()`: target, features and `BUCKET`.

    Raises:
        DataError: Too few customers, a target that does not vary, missing features, or a
            categorical feature with too many levels.
    """
    options = spec.options
    levels = tuple((name, _levels(sample[name])) for name in options.categorical)
    columns = [sample[name] for name in (*options.features, *options.categorical)]
    matrix = design(columns, features=options.features, levels=levels)
    target = sample[TARGET].to_numpy(dtype=np.float64)
    buckets = sample[BUCKET].to_numpy(dtype=np.int64)
    is_held = buckets < round(options.held_out * _BUCKETS)
    folds = buckets % options.folds
    searched = ~is_held
    _check_rows(target, is_held)
    x, y, fold = matrix[searched], target[searched], folds[searched]
    found = {
        candidate: _out_of_fold(candidate, x, y, folds=fold, seed=spec.seed)
        for candidate in options.candidates
    }
    table = _table(found, y, confidence_level=spec.confidence_level)
    best = options.candidates[int(table["position"].iloc[0])]
    model = SpendModel(
        features=options.features, levels=levels, candidate=best,
        model=_fitted(best, x, y, seed=spec.seed),
    )  # fmt: skip
    held = pd.DataFrame(
        {
            "predicted": model.model.predict(matrix[is_held]).clip(min=0.0),
            "actual": target[is_held],
        }
    )
    errors = _errors(held, spec.confidence_level)
    errors["rmse_mean"] = float(np.sqrt(np.mean((held["actual"] - y.mean()) ** 2)))
    return Search(
        model=model,
        table=table.drop(columns="position"),
        held_out=held,
        errors=MappingProxyType(errors),
        n_searched=int(searched.sum()),
    )


def design(
    columns: "Sequence[pd.Series[Any]]",
    *,
    features: Sequence[str],
    levels: Sequence[tuple[str, Sequence[str]]],
) -> Array:
    """Numbers, and an indicator per level, shape (n, p).

    Args:
        columns: The features, numbers first.
        features: Names of those that are numbers.
        levels: Names and known levels of the others.

    Raises:
        DataError: A value is missing or infinite, or a level is not known.
    """
    out = []
    for name, column in zip(features, columns, strict=False):
        values = pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
        if not np.isfinite(values).all():
            n_missing = int((~np.isfinite(values)).sum())
            raise DataError(f"{name} is missing or infinite", given=f"{n_missing:,} customers")
        out.append(values)
    for (name, known), column in zip(levels, columns[len(features) :], strict=True):
        codes = pd.Categorical(column, categories=list(known)).codes
        if (codes < 0).any():
            unseen = sorted({str(value) for value in column[codes < 0]})
            raise DataError(
                f"{name} has levels that the model was not trained on, or is missing",
                given=", ".join(unseen[:5]),
                allowed=list(known),
            )
        out += [(codes == code).astype(np.float64) for code in range(len(known))]
    return np.column_stack(out)


def _check_rows(target: Array, is_held: NDArray[np.bool_]) -> None:
    n_searched, n_held = int((~is_held).sum()), int(is_held.sum())
    if n_searched < MIN_ROWS or n_held < MIN_ROWS // 4:
        raise DataError(
            "too few customers have had the time that the target takes",
            given=f"{n_searched} for the search, {n_held} held out",
            allowed=f"{MIN_ROWS} and {MIN_ROWS // 4} or more",
        )
    if not np.ptp(target[~is_held]) > 0:
        raise DataError("everyone spent the same, so there is nothing to learn")


def _levels(column: "pd.Series[Any]") -> tuple[str, ...]:
    if column.isna().any():
        raise DataError(
            f"{column.name} is missing", given=f"{int(column.isna().sum()):,} customers"
        )
    found = tuple(sorted(set(column)))
    if len(found) > MAX_LEVELS:
        raise DataError(
            f"{column.name} has too many levels", given=len(found), allowed=f"{MAX_LEVELS}"
        )
    return found


def _out_of_fold(
    candidate: Candidate, matrix: Array, target: Array, *, folds: NDArray[np.int64], seed: int
) -> Array:
    out = np.empty(len(target))
    for fold in np.unique(folds):
        own = folds == fold
        model = _fitted(candidate, matrix[~own], target[~own], seed=seed)
        out[own] = model.predict(matrix[own]).clip(min=0.0)
    return out


def _fitted(candidate: Candidate, matrix: Array, target: Array, *, seed: int) -> Regressor:
    given: dict[str, Any] = {
        name: int(value) if float(value).is_integer() else value
        for name, value in candidate.parameters
    }
    model = _unfitted(candidate.family, given, seed=seed % 2**32)
    found: Regressor = model.fit(matrix, target)
    return found


def _unfitted(family: Family, given: dict[str, Any], *, seed: int) -> Any:
    match family:
        case "mean":
            from sklearn.dummy import DummyRegressor

            return DummyRegressor()
        case "ridge":
            from sklearn.linear_model import Ridge
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler

            return make_pipeline(StandardScaler(), Ridge(alpha=given["penalty"]))
        case "random_forest":
            from sklearn.ensemble import RandomForestRegressor

            return RandomForestRegressor(random_state=seed, n_jobs=1, **given)
        case "boosted":
            from sklearn.ensemble import HistGradientBoostingRegressor

            return HistGradientBoostingRegressor(early_stopping=False, random_state=seed, **given)


def _table(
    found: Mapping[Candidate, Array], target: Array, *, confidence_level: float
) -> pd.DataFrame:
    """The candidates, best first; ties go to the one that was named first."""
    squares = np.array([(predicted - target) ** 2 for predicted in found.values()])
    best = int(squares.mean(axis=1).argmin())
    rows = []
    for position, (candidate, predicted) in enumerate(found.items()):
        frame = pd.DataFrame({"predicted": predicted, "actual": target})
        errors = _errors(frame, confidence_level)
        worse = squares[position] - squares[best]
        rows.append(
            {
                "candidate": candidate.name,
                "family": candidate.family,
                "rmse": errors["rmse"],
                "ci_lower": errors["rmse_lower"],
                "ci_upper": errors["rmse_upper"],
                "mae": errors["mae"],
                "rank_correlation": errors["rank_correlation"],
                "worse_by": float(worse.mean()),
                "std_error": float(worse.std(ddof=1) / np.sqrt(len(worse))),
                "position": position,
            }
        )
    return pd.DataFrame(rows).sort_values("rmse", kind="stable", ignore_index=True)


def _errors(frame: pd.DataFrame, confidence_level: float) -> dict[str, float]:
    """Errors with intervals from the scatter of squared and absolute errors over customers."""
    off = (frame["actual"] - frame["predicted"]).to_numpy()
    z, n = critical_value(confidence_level), len(off)
    squares, sizes = off**2, np.abs(off)
    half = z * squares.std(ddof=1) / np.sqrt(n)
    half_mae = z * sizes.std(ddof=1) / np.sqrt(n)
    return {
        "rmse": float(np.sqrt(squares.mean())),
        "rmse_lower": float(np.sqrt(max(squares.mean() - half, 0.0))),
        "rmse_upper": float(np.sqrt(squares.mean() + half)),
        "mae": float(sizes.mean()),
        "mae_lower": float(sizes.mean() - half_mae),
        "mae_upper": float(sizes.mean() + half_mae),
        "rank_correlation": _rank_correlation(frame),
    }


def _rank_correlation(frame: pd.DataFrame) -> float:
    """Spearman's correlation; 0 where all predictions are the same."""
    ranks = frame.rank()
    if not (ranks.nunique() > 1).all():
        return 0.0
    return float(np.corrcoef(ranks["predicted"], ranks["actual"])[0, 1])
