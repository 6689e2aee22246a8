"""A model of uplift: learners trained on a sample, with all that scoring and valuing need.

The rows are drawn from units that a hash chose for training, equally many of each arm: the arms are
the strata, and a feature is distributed alike in the arms of a randomised design, so learners need
no weights. The classifier of an arm that was not randomised is weighted back.

The model also knows the outcome in every arm, for doubly robust scores of the units that were held
out, and the hash that says which these are: whoever values it can tell them.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal.core.errors import DataError
from causal.core.frames import Column, Condition, FrameRequest, GramRequest, Level, SampleRequest
from causal.core.gram import Array, Gram, grams
from causal.core.result import Diagnostic
from causal.core.unit_keys import check_units
from causal.experiments.levels import ROUNDING
from causal.uplift.arm_balance import check_overlap, check_randomised
from causal.uplift.inputs import SCORED, Inputs
from causal.uplift.learners import (
    MIN_ROWS,
    ArmModels,
    Codes,
    TrainedLearner,
    TrainingRows,
    arm_models,
    train,
)
from causal.uplift.learners_options import UpliftLearnersSpec

MIN_ARM_ROWS = 5 * MIN_ROWS
"""Training rows that every arm must have."""


@dataclass(frozen=True, kw_only=True)
class UpliftModel:
    """Learners and what belongs to them.

    Attributes:
        spec: What was learned.
        inputs: The features as they were in training.
        learners: By name, in the order of the spec.
        arms: Models of the outcome in every arm, and of the arm.
        edges: Ends of the score bins by learner, shape (m, b - 1): quantiles of the training
            rows' scores.
        outcome: Mean and standard deviation of the training rows' outcomes.
        n_rows: Training rows there are, by arm.
        n_drawn: Training rows learned from, by arm.
        n_without_outcome: Further training rows, which nothing was learned from.
        balance: Whether the features tell the arms apart.
    """

    spec: UpliftLearnersSpec
    inputs: Inputs
    learners: Mapping[str, TrainedLearner] = field(repr=False)
    arms: ArmModels = field(repr=False)
    edges: Mapping[str, Array] = field(repr=False)
    outcome: tuple[float, float]
    n_rows: tuple[int, ...]
    n_drawn: tuple[int, ...]
    n_without_outcome: int = 0
    balance: tuple[Diagnostic, ...] = ()

    @property
    def treatments(self) -> tuple[str, ...]:
        """Names of the treatments."""
        return tuple(str(arm) for arm in self.spec.options.treatments)

    def effects(self, columns: Sequence["pd.Series[Any]"], *, learner: str) -> Array:
        """Status and effects of rows, shape (n, 1 + m); effects are NaN unless a row is scored.

        Args:
            columns: The features in the order of `inputs.columns`.
            learner: Which one.
        """
        matrix, status = self.inputs.read(columns)
        found = _where_scored(self.learners[learner].effects, matrix, status)
        return np.column_stack([status, found if found is not None else self._nothing(status)])

    def near(self, learner: str, number: int) -> tuple[tuple[float, float], ...]:
        """Rough mean and spread of outcome, score and doubly robust gain, as in training.

        Args:
            learner: Whose score.
            number: Of the treatment, from 1.
        """
        edges = self.edges[learner][number - 1]
        score = (float(edges.mean()), float(edges.std()))
        return (self.outcome, score, (score[0], self.outcome[1]))

    def evaluation_names(self) -> tuple[str, ...]:
        """Names of the columns of `evaluation`."""
        arms = range(len(self.treatments) + 1)
        each = [
            name_of(what, learner, treatment)
            for what in ("effect", "bin")
            for learner in self.learners
            for treatment in arms[1:]
        ]
        chances = [] if self.spec.options.is_randomised else [f"chance_{arm}" for arm in arms]
        return ("status", *each, *(f"predicted_{arm}" for arm in arms), *chances)

    def evaluation(self, columns: Sequence["pd.Series[Any]"]) -> Array:
        """All that an evaluation wants to know of rows, one column for each `evaluation_names`."""
        matrix, status = self.inputs.read(columns)
        found = _where_scored(self._evaluated, matrix, status)
        if found is None:
            found = np.full((len(status), len(self.evaluation_names()) - 1), np.nan)
        return np.column_stack([status, found])

    def _evaluated(self, matrix: Array) -> Array:
        effects = {name: learner.effects(matrix) for name, learner in self.learners.items()}
        bins = [
            np.searchsorted(edges, values, side="left")
            for name, found in effects.items()
            for edges, values in zip(self.edges[name], found.T, strict=True)
        ]
        parts = [*effects.values(), *bins, self.arms.outcomes_of(matrix)]
        if not self.spec.options.is_randomised:
            least = self.spec.training.min_propensity
            parts.append(np.maximum(self.arms.chances_of(matrix), least))
        return np.column_stack(parts)

    def _nothing(self, status: NDArray[np.int64]) -> Array:
        return np.full((len(status), len(self.treatments)), np.nan)


def name_of(what: str, learner: str, treatment: int) -> str:
    """Name of a column of a learner's treatment, which is numbered from 1."""
    return f"{what}_{learner}_{treatment}"


def _where_scored(score: Any, matrix: Array, status: NDArray[np.int64]) -> Array | None:
    """Scores of the rows that can be scored, NaN elsewhere; `None` if there is no such row."""
    known = status == SCORED
    if not known.any():
        return None
    if known.all():
        return np.asarray(score(matrix), dtype=np.float64)
    some = score(matrix[known])
    out = np.full((len(status), some.shape[1]), np.nan)
    out[known] = some
    return out


def learn(spec: UpliftLearnersSpec) -> Generator[FrameRequest, pd.DataFrame, UpliftModel]:
    """Train the learners of a spec; a plan to be run on the rows that are not held out.

    Raises:
        DataError: A unit is null or occurs twice, an arm has too few rows, the outcome does not
            vary, a feature cannot be learned from.
    """
    options, where = spec.options, spec.source.conditions
    yield from check_units((options.unit,), where)
    request = GramRequest(terms=(Column(options.outcome),), by=(options.variant,), where=where)
    found = grams((yield request), request)
    n_rows = rows_by_arm({key[0]: gram.n for key, gram in found.items()}, options.arms)
    check_arms(n_rows, options.arms)
    _check_outcome(found.values(), options.outcome)
    samples = []
    for arm in options.arms:
        request_ = SampleRequest(
            unit=options.unit,
            max_rows=options.max_rows // len(options.arms),
            numbers=(options.outcome, *options.features),
            labels=options.categorical,
            known=(options.outcome,),
            salt=spec.sample_salt,
            where=(*where, Condition(options.variant, (arm,))),
        )
        samples.append((yield request_))
    n_lost = sum(gram.n_missing for gram in found.values())
    return replace(learned(spec, samples, n_rows=n_rows), n_without_outcome=n_lost)


def learned(
    spec: UpliftLearnersSpec, samples: Sequence[pd.DataFrame], *, n_rows: Sequence[int]
) -> UpliftModel:
    """The model of rows that were drawn.

    Args:
        spec: What is learned.
        samples: The rows of each arm, control first: outcome and features.
        n_rows: Training rows that there are, by arm.

    Raises:
        DataError: A feature cannot be learned from.
    """
    options = spec.options
    sample = pd.concat(samples, ignore_index=True)
    inputs = Inputs.of(
        sample, numbers=options.features, labels=options.categorical, missing=options.missing
    )
    matrix, _ = inputs.read([sample[name] for name in inputs.columns])
    n_drawn = [len(part) for part in samples]
    arms = np.repeat(np.arange(len(samples), dtype=np.int64), n_drawn)
    outcome = sample[options.outcome].to_numpy(dtype=np.float64)
    rows = TrainingRows(features=matrix, treatment=arms, outcome=outcome)
    weights = np.divide(n_rows, n_drawn)
    weighted = TrainingRows(features=matrix, treatment=arms, outcome=outcome, weights=weights[arms])
    training = spec.training
    learners: dict[str, TrainedLearner] = {
        name: train(rows, learner=name, training=training) for name in options.learners
    }
    shares = np.arange(1, options.bins) / options.bins
    return UpliftModel(
        spec=spec,
        inputs=inputs,
        learners=learners,
        arms=arm_models(weighted, training=training),
        edges={
            name: np.quantile(learner.effects(matrix), shares, axis=0).T
            for name, learner in learners.items()
        },
        outcome=(float(outcome.mean()), float(outcome.std())),
        n_rows=tuple(n_rows),
        n_drawn=tuple(n_drawn),
        balance=tuple(_balance(spec, matrix, arms, weights)),
    )


def _balance(
    spec: UpliftLearnersSpec, features: Array, arms: Codes, weights: Array
) -> Iterator[Diagnostic]:
    training = spec.training
    if not spec.options.is_randomised:
        yield check_overlap(
            features, arms, weights=weights, least=training.min_propensity, seed=training.seed
        )
    elif spec.options.cluster is None:
        yield check_randomised(features, arms, seed=training.seed)


def _check_outcome(arms: Iterable[Gram], outcome: str) -> None:
    """The outcome varies within some arm."""
    if not any(
        gram.n > 0 and np.sqrt(gram.cross[0, 0] / gram.n) > ROUNDING * abs(gram.mean[0])
        for gram in arms
    ):
        raise DataError(
            "the outcome does not vary within any arm: there is nothing to learn",
            given=outcome,
            key="options.outcome",
        )


def rows_by_arm(counts: Mapping[Level | None, int], arms: Sequence[Level]) -> list[int]:
    """Rows of each arm, whatever type its column has.

    Args:
        counts: Rows by level of the column.
        arms: The arms.
    """
    texts: dict[str, int] = {}
    for level, n in counts.items():
        text = str(int(level)) if isinstance(level, float) and level.is_integer() else str(level)
        texts[text] = texts.get(text, 0) + n
    return [texts.get(str(arm), 0) for arm in arms]


def check_arms(n_rows: Sequence[int], arms: Sequence[Level]) -> None:
    """Every arm has rows to learn from.

    Raises:
        DataError: One has too few; names it.
    """
    few = [f"{arm} ({n:,})" for arm, n in zip(arms, n_rows, strict=True) if n < MIN_ARM_ROWS]
    if few:
        raise DataError(
            "an arm has too few units with an outcome to learn from",
            given=few,
            allowed=f"at least {MIN_ARM_ROWS} outside the held-out share; or leave it out of "
            "treatments",
            key="options.treatments",
        )
