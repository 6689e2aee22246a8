"""Learners of effects on a bounded sample of rows: metalearners and causal forests of EconML.

For effects that are not linear; those that are need no rows (`causal.uplift.linear_learners`).
Several treatments are learned against one control. Plain functions on arrays: where the sample
comes from, and where its scores go, is somebody else's matter. EconML, scikit-learn and LightGBM
are imported when a learner is first trained.

S, T and X: Kuenzel, Sekhon, Bickel and Yu 2019; DR: Kennedy 2023; R: Nie and Wager 2021; forest:
Athey, Tibshirani and Wager 2019.
"""

import hashlib
import hmac
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from causal.core.errors import DataError, SpecError
from causal.core.gram import Array

LearnerName = Literal["s", "t", "x", "dr", "r", "forest"]
BaseModel = Literal["linear", "boosted", "lightgbm"]
Codes = NDArray[np.int64]

CONTROL = 0
MIN_ROWS = 20
"""Rows that every arm must have."""
_WEIGHTED: tuple[LearnerName, ...] = ("dr", "r", "forest")
_FOREST_GROUP = 4


@dataclass(frozen=True, kw_only=True)
class TrainingRows:
    """A sample of rows.

    Attributes:
        features: Numbers, missing ones as NaN only for boosted trees, shape (n, p).
        treatment: 0 for control, 1 to m for the treatments, shape (n,).
        outcome: Shape (n,).
        weights: Rows of the population that a row of the sample stands for; `None`: equally many.
    """

    features: Array
    treatment: Codes
    outcome: Array
    weights: Array | None = None

    def __post_init__(self) -> None:
        """Every arm from 0 to m has rows, and all arrays are of one length."""
        n = len(self.outcome)
        shapes = [len(self.features), len(self.treatment)]
        shapes += [] if self.weights is None else [len(self.weights)]
        if self.features.ndim != 2 or any(size != n for size in shapes):  # noqa: PLR2004
            raise DataError("features, treatment, outcome and weights differ in their rows")
        if not np.isfinite(self.outcome).all():
            raise DataError("outcomes hold NaN or infinite values")
        if self.weights is not None and not (np.isfinite(self.weights) & (self.weights > 0)).all():
            raise DataError("weights must be positive numbers")
        codes, counts = np.unique(self.treatment, return_counts=True)
        if len(codes) < 2 or not np.array_equal(codes, np.arange(len(codes))):  # noqa: PLR2004
            raise DataError("arms are numbered from 0 without gaps", given=codes.tolist())
        if counts.min() < MIN_ROWS:
            raise DataError(
                "an arm has too few rows to learn from",
                given=f"{counts.min()} rows", allowed=f"at least {MIN_ROWS}",
            )  # fmt: skip

    @property
    def n_treatments(self) -> int:
        """Arms beside the control."""
        return int(self.treatment.max())

    def subset(self, rows: NDArray[np.bool_], *, arm: int | None = None) -> "TrainingRows":
        """Some of the rows.

        Args:
            rows: Which, shape (n,).
            arm: A treatment that becomes number 1.
        """
        codes = self.treatment[rows]
        return TrainingRows(
            features=self.features[rows],
            treatment=codes if arm is None else (codes == arm).astype(np.int64),
            outcome=self.outcome[rows],
            weights=None if self.weights is None else self.weights[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Training:
    """How learners are trained.

    Attributes:
        base: Models inside: `linear`, `boosted` (scikit-learn's histogram trees) or `lightgbm`.
        is_randomised: Whether every row had the same chance of each arm; else the chances are
            learned from the features.
        n_trees: Trees of a boosted model or of the forest.
        max_leaves: Leaves of a boosted tree.
        min_leaf_rows: Rows of a leaf.
        learning_rate: Of boosted models.
        n_folds: Folds of DR, R and forest.
        min_propensity: Chances below it count as it, in the DR learner.
        seed: Of everything that is drawn.
    """

    base: BaseModel = "boosted"
    is_randomised: bool = True
    n_trees: int = 100
    max_leaves: int = 15
    min_leaf_rows: int = 20
    learning_rate: float = 0.1
    n_folds: int = 2
    min_propensity: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if self.n_folds < 2:  # noqa: PLR2004
            raise SpecError("cross-fitting takes two or more folds", given=self.n_folds)
        if self.n_trees < _FOREST_GROUP or self.n_trees % _FOREST_GROUP:
            raise SpecError(
                "trees come in groups", given=self.n_trees, allowed=f"multiples of {_FOREST_GROUP}"
            )


DEFAULT = Training()


@dataclass(frozen=True, kw_only=True)
class TrainedLearner:
    """A learner that scores rows.

    Attributes:
        learner: Which one.
        n_treatments: Arms beside the control.
        n_features: Columns it was trained on.
        models: EconML's estimators: one, or one per treatment for the R-learner.
    """

    learner: LearnerName
    n_treatments: int
    n_features: int
    models: tuple[Any, ...] = field(repr=False)

    def effects(self, features: Array) -> Array:
        """Effect of every treatment against the control, shape (n, m).

        Args:
            features: Shape (n, p).

        Raises:
            DataError: The columns are not those of the training.
        """
        self._check(features)
        columns = [
            np.asarray(model.effect(features, T0=low, T1=high), dtype=np.float64).reshape(-1)
            for model, low, high in self._contrasts()
        ]
        return np.column_stack(columns)

    def intervals(self, features: Array, *, confidence_level: float = 0.95) -> tuple[Array, Array]:
        """Pointwise intervals of the effects, of the forest alone, two of shape (n, m).

        Args:
            features: Shape (n, p).
            confidence_level: Nominal coverage.

        Raises:
            SpecError: The learner has none.
        """
        if self.learner != "forest":
            raise SpecError("only a forest has intervals of its effects", given=self.learner)
        self._check(features)
        pairs = [
            model.effect_interval(features, T0=low, T1=high, alpha=1.0 - confidence_level)
            for model, low, high in self._contrasts()
        ]
        low, high = (np.column_stack([np.ravel(pair[end]) for pair in pairs]) for end in (0, 1))
        return low, high

    def _contrasts(self) -> list[tuple[Any, int, int]]:
        if len(self.models) == self.n_treatments > 1:
            return [(model, 0, 1) for model in self.models]
        return [(self.models[0], 0, arm) for arm in range(1, self.n_treatments + 1)]

    def _check(self, features: Array) -> None:
        if features.ndim != 2 or features.shape[1] != self.n_features:  # noqa: PLR2004
            raise DataError(
                "these are not the columns that the learner was trained on",
                given=list(features.shape), allowed=f"{self.n_features} columns",
            )  # fmt: skip


def train(
    rows: TrainingRows, *, learner: LearnerName, training: Training = DEFAULT
) -> TrainedLearner:
    """Learn the effect of every treatment against the control.

    Args:
        rows: The sample.
        learner: `s`, `t`, `x`, `dr`, `r` or `forest`.
        training: How.

    Raises:
        SpecError: S-, T- and X-learners take no weights.
    """
    if rows.weights is not None and learner not in _WEIGHTED:
        raise SpecError(
            "this learner takes no weights: draw rows with equal chances, or take another one",
            given=learner, allowed=_WEIGHTED,
        )  # fmt: skip
    if learner == "r":
        arms = range(1, rows.n_treatments + 1)
        pairs = [rows.subset(np.isin(rows.treatment, (CONTROL, arm)), arm=arm) for arm in arms]
        models = tuple(_fitted(_residual_learner(training), pair) for pair in pairs)
    else:
        makers = {
            "s": _single_learner, "t": _arm_learner, "x": _imputing_learner,
            "dr": _doubly_robust_learner, "forest": _forest,
        }  # fmt: skip
        models = (_fitted(makers[learner](training), rows),)
    return TrainedLearner(
        learner=learner,
        n_treatments=rows.n_treatments,
        n_features=rows.features.shape[1],
        models=models,
    )


def dumped(learner: object) -> tuple[bytes, str]:
    """A learner (or what holds some) as bytes, and their SHA-256 to be recorded beside them."""
    data = pickle.dumps(learner, protocol=5)
    return data, hashlib.sha256(data).hexdigest()


def loaded(data: bytes, *, sha256: str) -> Any:
    """What `dumped` was given, of these bytes, if they are the ones that were recorded.

    Args:
        data: What `dumped` gave.
        sha256: Their recorded hash.

    Raises:
        DataError: They are others; nothing of them is run.
    """
    found = hashlib.sha256(data).hexdigest()
    if not hmac.compare_digest(found, sha256):
        raise DataError("the stored learner is not the recorded one", given=found, allowed=sha256)
    return pickle.loads(data)  # noqa: S301 - its hash was checked


@dataclass(frozen=True, kw_only=True)
class ArmPredictions:
    """What models say of every arm that had no part in training on the row.

    Attributes:
        outcomes: Predicted outcome in every arm, shape (n, m + 1).
        propensities: Chance of every arm, shape (n, m + 1).
    """

    outcomes: Array
    propensities: Array


@dataclass(frozen=True, kw_only=True)
class ArmModels:
    """Models of the outcome in every arm and of the arm itself.

    Attributes:
        outcomes: One model per arm, control first.
        chances: A classifier of the arm.
    """

    outcomes: tuple[Any, ...] = field(repr=False)
    chances: Any = field(repr=False)

    def predictions(self, features: Array) -> ArmPredictions:
        """What they say of rows of features, shape (n, p)."""
        return ArmPredictions(
            outcomes=self.outcomes_of(features), propensities=self.chances_of(features)
        )

    def outcomes_of(self, features: Array) -> Array:
        """Predicted outcome in every arm of rows of features, shape (n, m + 1)."""
        return np.column_stack([model.predict(features) for model in self.outcomes])

    def chances_of(self, features: Array) -> Array:
        """Chance of every arm of rows of features, shape (n, m + 1)."""
        return np.asarray(self.chances.predict_proba(features), dtype=np.float64)


def arm_models(rows: TrainingRows, *, training: Training = DEFAULT) -> ArmModels:
    """Models for doubly robust scores of rows that are not among these.

    Args:
        rows: The rows.
        training: How.
    """
    outcomes = []
    for arm in range(rows.n_treatments + 1):
        at = rows.treatment == arm
        weights = None if rows.weights is None else rows.weights[at]
        fit = _regressor(training).fit(rows.features[at], rows.outcome[at], sample_weight=weights)
        outcomes.append(fit)
    chances = _classifier(training).fit(rows.features, rows.treatment, **_weights(rows))
    return ArmModels(outcomes=tuple(outcomes), chances=chances)


def cross_fitted(
    rows: TrainingRows, *, folds: Codes, training: Training = DEFAULT
) -> ArmPredictions:
    """Predictions for doubly robust scores: of each fold by models of the others.

    Args:
        rows: The rows.
        folds: Number of each row's fold, shape (n,); units of a cluster share one.
        training: How.

    Raises:
        DataError: The other folds lack an arm.
    """
    shape = (len(rows.outcome), rows.n_treatments + 1)
    outcomes, propensities = np.zeros(shape), np.zeros(shape)
    numbers: Sequence[int] = np.unique(folds).tolist()
    if len(numbers) < 2:  # noqa: PLR2004
        raise DataError("cross-fitting takes two or more folds", given=len(numbers))
    for fold in numbers:
        own = folds == fold
        rest = rows.subset(~own)
        if rest.n_treatments < rows.n_treatments:
            raise DataError("the other folds lack an arm", given=f"fold {fold}")
        found = arm_models(rest, training=training).predictions(rows.features[own])
        outcomes[own], propensities[own] = found.outcomes, found.propensities
    return ArmPredictions(outcomes=outcomes, propensities=propensities)


def _weights(rows: TrainingRows) -> dict[str, Array]:
    return {} if rows.weights is None else {"sample_weight": rows.weights}


def _fitted(model: Any, rows: TrainingRows) -> Any:
    """A fitted estimator; EconML draws its folds from the seed that it was made with."""
    return model.fit(rows.outcome, rows.treatment, X=rows.features, **_weights(rows))


def _single_learner(training: Training) -> Any:
    from econml.metalearners import SLearner

    return SLearner(overall_model=_regressor(training))


def _arm_learner(training: Training) -> Any:
    from econml.metalearners import TLearner

    return TLearner(models=_regressor(training))


def _imputing_learner(training: Training) -> Any:
    from econml.metalearners import XLearner

    return XLearner(models=_regressor(training), propensity_model=_classifier(training))


def _doubly_robust_learner(training: Training) -> Any:
    from econml.dr import DRLearner

    return DRLearner(
        model_propensity=_classifier(training),
        model_regression=_regressor(training),
        model_final=_regressor(training),
        min_propensity=training.min_propensity,
        cv=training.n_folds,
        random_state=training.seed,
    )


def _residual_learner(training: Training) -> Any:
    from econml.dml import NonParamDML

    return NonParamDML(
        model_y=_regressor(training),
        model_t=_classifier(training),
        model_final=_regressor(training),
        discrete_treatment=True,
        cv=training.n_folds,
        random_state=training.seed,
    )


def _forest(training: Training) -> Any:
    from econml.dml import CausalForestDML

    return CausalForestDML(
        model_y=_regressor(training),
        model_t=_classifier(training),
        discrete_treatment=True,
        n_estimators=training.n_trees,
        min_samples_leaf=training.min_leaf_rows,
        subforest_size=_FOREST_GROUP,
        cv=training.n_folds,
        n_jobs=1,
        random_state=training.seed,
    )


def _regressor(training: Training) -> Any:
    match training.base:
        case "linear":
            from sklearn.linear_model import LinearRegression

            return LinearRegression()
        case "boosted":
            from sklearn.ensemble import HistGradientBoostingRegressor

            return HistGradientBoostingRegressor(**_boosted(training))
        case "lightgbm":
            from lightgbm import LGBMRegressor

            return LGBMRegressor(**_light(training))


def _classifier(training: Training) -> Any:
    """A model of the arm: its shares where treatment was randomised."""
    if training.is_randomised:
        from sklearn.dummy import DummyClassifier

        return DummyClassifier(strategy="prior")
    match training.base:
        case "linear":
            from sklearn.linear_model import LogisticRegression

            # Newton's steps do not depend on the scale of the features, and take weights.
            return LogisticRegression(C=1e6, max_iter=1000, solver="newton-cholesky")
        case "boosted":
            from sklearn.ensemble import HistGradientBoostingClassifier

            return HistGradientBoostingClassifier(**_boosted(training))
        case "lightgbm":
            from lightgbm import LGBMClassifier

            return LGBMClassifier(**_light(training))


def _boosted(training: Training) -> dict[str, Any]:
    return {
        "max_iter": training.n_trees, "max_leaf_nodes": training.max_leaves,
        "min_samples_leaf": training.min_leaf_rows, "learning_rate": training.learning_rate,
        "early_stopping": False, "random_state": training.seed,
    }  # fmt: skip


def _light(training: Training) -> dict[str, Any]:
    """One thread and fixed order: the same rows give the same trees."""
    return {
        "n_estimators": training.n_trees, "num_leaves": training.max_leaves,
        "min_child_samples": training.min_leaf_rows, "learning_rate": training.learning_rate,
        "random_state": training.seed, "n_jobs": 1, "deterministic": True, "force_row_wise": True,
        "verbose": -1,
    }  # fmt: skip
