"""Score histograms: all that an evaluation of uplift scores needs to know of the data.

Units are counted by score bin, fold and variant, with sums and sums of squares of their outcomes.
Every score its own bin gives the row-level figures exactly; coarser bins treat the units of a bin
as tied. The histogram is additive, so tens of millions of units cost what the bins cost.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from causal.core.errors import DataError
from causal.core.frames import Column, Condition, FrameRequest, GramRequest, Level
from causal.core.gram import Array, Gram, Key, grams
from causal.core.result import Diagnostic
from causal.core.spec import COLUMN_PATTERN, Part

_ROUNDING = 1e-9
_Index = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One variant's outcomes by score bin and fold.

    Attributes:
        n: Units, shape (b, f).
        total: Sum of outcomes, shape (b, f).
        squares: Sum of squared outcomes, shape (b, f).
    """

    n: Array
    total: Array
    squares: Array


@dataclass(frozen=True, kw_only=True)
class ScoreHistogram:
    """Outcomes of treated and control units by score bin (highest first) and fold.

    Attributes:
        score: Mean score of each bin, descending, shape (b,).
        treated: The treated units.
        control: The control units.
        pseudo: Pseudo-outcomes (doubly robust scores) of all units, if given.
    """

    score: Array
    treated: Arm
    control: Arm
    pseudo: Arm | None = None

    @property
    def n_bins(self) -> int:
        """Score bins."""
        return len(self.score)

    @property
    def n_folds(self) -> int:
        """Folds."""
        return int(self.treated.n.shape[1])

    @property
    def n(self) -> Array:
        """Units of both variants by bin, shape (b,)."""
        return np.asarray((self.treated.n + self.control.n).sum(axis=1), dtype=np.float64)

    @property
    def is_binary(self) -> bool:
        """Whether every outcome is 0 or 1 (as far as sums and squares tell)."""
        arms = (self.treated, self.control)
        return all(
            np.allclose(arm.total, arm.squares, rtol=1e-9, atol=_ROUNDING)
            and bool(((arm.total > -_ROUNDING) & (arm.total < arm.n + _ROUNDING)).all())
            for arm in arms
        )


class HistogramOptions(Part):
    """Where scores, variants and outcomes stand in a table with one row per unit.

    Attributes:
        score: Column of the predicted uplift.
        score_bin: Column of the score's bin (a number, ascending with the score); the score itself
            if left out: every distinct score is a bin.
        outcome: Column of the outcome.
        variant: Column of the arm.
        treatment: The arm whose effect was predicted.
        control: The arm it is compared with.
        fold: Column of the fold (a hash of the unit or cluster), for intervals by folds.
        pseudo_outcome: Column of doubly robust scores, for RATE without randomisation.
        pseudo_of: Whose scores count: units of the two arms, or those of all variants, which of
            several treatments were in another one.
    """

    score: str = Field(pattern=COLUMN_PATTERN)
    score_bin: str | None = Field(default=None, pattern=COLUMN_PATTERN)
    outcome: str = Field(pattern=COLUMN_PATTERN)
    variant: str = Field(pattern=COLUMN_PATTERN)
    treatment: Level
    control: Level
    fold: str | None = Field(default=None, pattern=COLUMN_PATTERN)
    pseudo_outcome: str | None = Field(default=None, pattern=COLUMN_PATTERN)
    pseudo_of: Literal["pair", "all"] = "pair"

    @model_validator(mode="after")
    def _arms_differ(self) -> "HistogramOptions":
        if str(self.treatment) == str(self.control):
            raise ValueError(f"treatment and control are both {self.control}")
        return self


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A histogram and what was left out of it.

    Attributes:
        histogram: The histogram.
        diagnostics: Rows left out, and why.
    """

    histogram: ScoreHistogram
    diagnostics: tuple[Diagnostic, ...]


def count(
    options: HistogramOptions,
    *,
    where: tuple[Condition, ...] = (),
    near: tuple[tuple[float, float], ...] = (),
) -> Generator[FrameRequest, pd.DataFrame, Counted]:
    """A plan that makes a score histogram in one pass; run it with `causal.core.plan.run`.

    Args:
        options: Where things stand.
        where: Conditions that rows must meet.
        near: Mean and spread of outcome, score and (if there are any) pseudo-outcome, roughly,
            where they are known: then the rows are looked at once and not twice.

    Raises:
        DataError: An arm has no units.

    Example:
        >>> import pandas as pd
        >>> from causal.core.pandas_engine import PandasEngine
        >>> from causal.core.plan import run
        >>> units = pd.DataFrame(
        ...     {
        ...         "uplift": [0.3, 0.3, 0.1, 0.1],
        ...         "arm": ["perk", "none", "perk", "none"],
        ...         "stayed": [1, 0, 1, 1],
        ...     }
        ... )
        >>> options = HistogramOptions(
        ...     score="uplift", outcome="stayed", variant="arm", treatment="perk", control="none"
        ... )
        >>> run(count(options), PandasEngine(units)).histogram.n.tolist()
        [2.0, 2.0]
    """
    bins = options.score if options.score_bin is None else options.score_bin
    folds = () if options.fold is None else (options.fold,)
    pseudo = () if options.pseudo_outcome is None else (Column(options.pseudo_outcome),)
    request = GramRequest(
        terms=(Column(options.outcome), Column(options.score), *pseudo),
        by=(bins, options.variant, *folds),
        where=where,
        near=near,
    )
    found = grams((yield request), request)
    return _counted(found, options)


def histogram_of(
    *,
    score: ArrayLike,
    treated: ArrayLike,
    outcome: ArrayLike,
    fold: ArrayLike | None = None,
    pseudo_outcome: ArrayLike | None = None,
) -> ScoreHistogram:
    """The histogram of units given as arrays; every distinct score is a bin.

    Args:
        score: Predicted uplift, shape (n,).
        treated: 1 (or True) where treated, 0 where control, shape (n,).
        outcome: Outcomes, shape (n,).
        fold: Fold of each unit.
        pseudo_outcome: Doubly robust scores.

    Raises:
        DataError: An arm has no units, or a value is not finite.
    """
    columns = {"score": score, "treated": treated, "outcome": outcome}
    values = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    bad = [name for name, column in values.items() if not np.isfinite(column).all()]
    if bad:
        raise DataError("values must be finite", given=bad)
    if not np.isin(values["treated"], (0.0, 1.0)).all():
        raise DataError("treated must be 0 or 1", given=np.unique(values["treated"]))
    ascending, at = np.unique(values["score"], return_inverse=True)
    at = len(ascending) - 1 - at.ravel()
    folds = np.zeros(len(at), dtype=np.int64) if fold is None else _codes(np.asarray(fold))
    shape = (len(ascending), int(folds.max()) + 1)
    where = at * shape[1] + folds

    def arm(y: Array, rows: Array) -> Arm:
        return Arm(
            n=_summed(where, rows, shape),
            total=_summed(where, rows * y, shape),
            squares=_summed(where, rows * y**2, shape),
        )

    is_treated = values["treated"]
    pseudo = None
    if pseudo_outcome is not None:
        scores = np.asarray(pseudo_outcome, dtype=np.float64)
        if not np.isfinite(scores).all():
            raise DataError("values must be finite", given="pseudo_outcome")
        pseudo = arm(scores, np.ones(len(at)))
    histogram = ScoreHistogram(
        score=ascending[::-1].copy(),
        treated=arm(values["outcome"], is_treated),
        control=arm(values["outcome"], 1 - is_treated),
        pseudo=pseudo,
    )
    _check(histogram)
    return histogram


def _summed(where: _Index, values: Array, shape: tuple[int, int]) -> Array:
    summed = np.bincount(where, values, minlength=shape[0] * shape[1])
    return summed.astype(np.float64).reshape(shape)


def _codes(values: NDArray[Any]) -> _Index:
    return np.asarray(np.unique(values, return_inverse=True)[1].ravel(), dtype=np.int64)


def _counted(found: dict[Key, Gram], options: HistogramOptions) -> Counted:
    used = {key: gram for key, gram in found.items() if gram.n > 0 and None not in key}
    arms = {str(options.treatment): "treated", str(options.control): "control"}
    kept = {key: gram for key, gram in used.items() if _text(key[1]) in arms}
    n_other = sum(gram.n for key, gram in used.items() if _text(key[1]) not in arms)
    n_missing = sum(gram.n_missing + (gram.n if None in key else 0) for key, gram in found.items())
    if not kept:
        raise DataError("no unit of either arm has a score and an outcome", given=n_missing)
    has_pseudo = options.pseudo_outcome is not None
    has_others = has_pseudo and options.pseudo_of == "all"
    seen = used if has_others else kept
    bins = sorted({_number(key[0]) for key in seen}, reverse=True)
    folds = sorted({key[2:] for key in seen}, key=str)
    rows = {value: position for position, value in enumerate(bins)}
    columns = {value: position for position, value in enumerate(folds)}
    names = ("treated", "control", "pseudo")
    sums = {name: np.zeros((3, len(bins), len(folds))) for name in names}
    score = np.zeros(len(bins))
    n = np.zeros(len(bins))
    for key, gram in seen.items():
        at = (rows[_number(key[0])], columns[key[2:]])
        n[at[0]] += gram.n
        score[at[0]] += gram.n * gram.mean[1]
        if key in kept:
            sums[arms[_text(key[1])]][:, *at] += _sums(gram, 0)
        if has_pseudo:
            sums["pseudo"][:, *at] += _sums(gram, 2)
    parts = {name: Arm(n=part[0], total=part[1], squares=part[2]) for name, part in sums.items()}
    histogram = ScoreHistogram(
        score=score / n,
        treated=parts["treated"],
        control=parts["control"],
        pseudo=parts["pseudo"] if has_pseudo else None,
    )
    _check(histogram)
    if (np.diff(histogram.score) > 0).any():
        raise DataError("mean scores must ascend with score_bin", given=options.score_bin)
    return Counted(
        histogram=histogram,
        diagnostics=(
            _note("missing_rows", n_missing, "units lack a score, variant, fold or outcome"),
            _note("other_variants", 0 if has_others else n_other, "units of other variants"),
        ),
    )


def _sums(gram: Gram, position: int) -> Array:
    mean = gram.mean[position]
    squares = gram.cross[position, position] + gram.n * mean**2
    return np.array([gram.n, gram.n * mean, squares])


def _note(name: str, n: float, what: str) -> Diagnostic:
    return Diagnostic(
        name=name,
        statistic=float(n),
        pvalue=None,
        passed=None,
        detail=f"{n:,.0f} {what} and are left out"
        if name == "missing_rows"
        else f"{n:,.0f} {what} are left out",
    )


def _text(level: Level | None) -> str:
    """A level as a spec writes it: a double 1.0 is the 1 of the spec."""
    if isinstance(level, float) and level.is_integer():
        return str(int(level))
    return str(level)


def _number(level: Level | None) -> float:
    if isinstance(level, str) or level is None:
        raise DataError("score_bin must hold numbers", given=level)
    return float(level)


def _check(histogram: ScoreHistogram) -> None:
    for name, arm in (("treated", histogram.treated), ("control", histogram.control)):
        if not arm.n.sum() > 0:
            raise DataError(f"there are no {name} units with a score and an outcome")
