"""Answers requests from Gram frames that were aggregated before, without touching the data.

A Gram is additive, so a frame by (variant, region, day) also answers by (variant), over some of its
terms, for some values of its keys; and since a score is a product of two linear combinations of
terms, a frame by cluster answers the meat as well. What no stored frame answers goes to the next
engine.

A stored frame counts a row as missing if any of *its* terms is, so it answers for other sets of
terms only when it has no missing rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import (
    Condition,
    Constant,
    Engine,
    FrameRequest,
    GramRequest,
    Indicator,
    Linear,
    MeatRequest,
    Product,
    Term,
    columns_of,
    describe,
    numeric_columns_of,
)
from causal.core.gram import Array, Gram, Key, grams, pack, pooled

Stored = tuple[FrameRequest, pd.DataFrame]


class Recorder:
    """An engine that remembers what it answered.

    Args:
        engine: The engine that answers.
        known: Answers to other analyses of the same rows; what is new is added.
    """

    def __init__(self, engine: Engine, known: dict[FrameRequest, pd.DataFrame]) -> None:
        self._engine = engine
        self._known = known
        self.answers: list[Stored] = []

    @property
    def columns(self) -> dict[str, str]:
        """Column names and kinds."""
        return dict(self._engine.columns)

    def __call__(self, request: FrameRequest) -> pd.DataFrame:
        """Answer and remember."""
        if request not in self._known:
            self._known[request] = self._engine(request)
        self.answers.append((request, self._known[request]))
        return self._known[request]


class StoredGramEngine:
    """An engine on stored answers.

    Args:
        stored: Requests and the frames that answered them.
        otherwise: Engine for what they do not answer; without one such a request is an error.
    """

    def __init__(self, stored: Iterable[Stored], *, otherwise: Engine | None = None) -> None:
        self._exact: dict[FrameRequest, pd.DataFrame] = dict(stored)
        self._grams = tuple(
            _Frame(request, grams(frame, request))
            for request, frame in self._exact.items()
            if isinstance(request, GramRequest)
            and request.absorb is None
            and request.crossed == "all"
        )
        self._otherwise = otherwise

    @property
    def columns(self) -> Mapping[str, str]:
        """Columns of the source, or those that the stored frames know of."""
        if self._otherwise is not None:
            return self._otherwise.columns
        kinds = {name: "string" for request in self._exact for name in columns_of(request)}
        return kinds | {name: "number" for r in self._exact for name in numeric_columns_of(r)}

    def __call__(self, request: FrameRequest) -> pd.DataFrame:
        """The frame that the request describes.

        Raises:
            DataError: No stored frame answers it and there is no other engine.
        """
        answer = self.stored_answer(request)
        if answer is not None:
            return answer
        if self._otherwise is None:
            raise DataError("no stored frame answers this request", given=describe(request))
        return self._otherwise(request)

    def stored_answer(self, request: FrameRequest) -> pd.DataFrame | None:
        """The answer from the stored frames alone, or `None`."""
        if request in self._exact:
            return self._exact[request]
        for frame in self._grams:
            match request:
                case GramRequest():
                    answer = frame.gram(request)
                case MeatRequest():
                    answer = frame.meat(request)
                case _:
                    answer = None
            if answer is not None:
                return answer
        return None


@dataclass(frozen=True)
class _Frame:
    """One stored Gram frame."""

    request: GramRequest
    grams: Mapping[Key, Gram]

    def gram(self, request: GramRequest) -> pd.DataFrame | None:
        kept = self._kept(request.where)
        if kept is None or not self._covers_gram(request, kept):
            return None
        at = [self.request.keys.index(name) for name in request.keys]
        groups: dict[Key, list[Gram]] = {}
        for key, gram in kept.items():
            groups.setdefault(tuple(key[i] for i in at), []).append(gram.subset(request.terms))
        rows = [
            dict(zip(request.keys, key, strict=True)) | _row(pooled(parts))
            for key, parts in sorted(groups.items(), key=lambda item: str(item[0]))
        ]
        columns = [*request.keys, "n", "n_missing", "n_units", "sum_weights", "mean", "cross"]
        return pd.DataFrame(rows, columns=columns)

    def meat(self, request: MeatRequest) -> pd.DataFrame | None:
        kept = self._kept(request.where)
        if kept is None or not self._covers_meat(request, kept):
            return None
        at = [self.request.by.index(name) for name in request.cluster]
        sums: dict[Key, Array] = {}
        n = 0
        for key, gram in kept.items():
            scores = self._scores(request, key, gram)
            if scores is None:
                return None
            cluster = tuple(key[i] for i in at)
            n += gram.n
            if gram.n:
                sums[cluster] = sums.get(cluster, np.zeros(len(scores))) + scores
        stacked = np.array(list(sums.values())).reshape(len(sums), len(request.scores))
        row = {
            "n": n, "n_missing": 0, "n_clusters": len(sums), "cross": pack(stacked.T @ stacked),
        }  # fmt: skip
        return pd.DataFrame([row])

    def _covers_gram(self, request: GramRequest, kept: Mapping[Key, Gram]) -> bool:
        same_terms = set(request.terms) == set(self.request.terms)
        return (
            request.absorb is None
            and request.crossed == "all"
            and request.weight == self.request.weight
            and set(request.terms) <= set(self.request.terms)
            and set(request.by) <= set(self.request.by)
            and request.bucket in {None, self.request.bucket}
            and request.summed_by == self.request.summed_by
            and (same_terms or not _has_missing(kept))
        )

    def _covers_meat(self, request: MeatRequest, kept: Mapping[Key, Gram]) -> bool:
        is_clustered = bool(request.cluster) and set(request.cluster) <= set(self.request.by)
        has_null = any(
            key[self.request.by.index(name)] is None for key in kept for name in request.cluster
        ) if is_clustered else False  # fmt: skip
        return (
            request.absorb is None
            and not self.request.summed_by
            and request.weight == self.request.weight
            and is_clustered
            and not has_null
            and not _has_missing(kept)
        )

    def _kept(self, where: tuple[Condition, ...]) -> Mapping[Key, Gram] | None:
        """The Grams of the keys that fulfil conditions beyond the stored ones; `None`: unknown."""
        if not set(self.request.where) <= set(where):
            return None
        extra = [condition for condition in where if condition not in self.request.where]
        if any(condition.column not in self.request.by for condition in extra):
            return None
        at = [(self.request.by.index(item.column), item.values) for item in extra]
        # A value that no key equals may still be one in another spelling: 1 and '1', dates.
        if any(not set(values) <= {key[i] for key in self.grams} for i, values in at):
            return None
        return {
            key: gram
            for key, gram in self.grams.items()
            if all(key[i] is not None and key[i] in values for i, values in at)
        }

    def _scores(self, request: MeatRequest, key: Key, gram: Gram) -> Array | None:
        """Sums of the scores over the rows of one key, shape (p,)."""
        levels = dict(zip(self.request.keys, key, strict=True))
        out = []
        for score in request.scores:
            left = _form(score.left, gram, levels)
            right = _form(score.right, gram, levels)
            if left is None or right is None:
                return None
            out.append(_score_sum(left, right, gram))
        return np.array(out)


def _form(term: Term, gram: Gram, levels: Mapping[str, object]) -> Array | None:
    """A term as coefficients of (1, the Gram's terms) within a key; `None` if it is not linear."""
    size = len(gram.terms) + 1
    if term in gram.terms:
        return _unit(gram.index(term) + 1, size)
    match term:
        case Constant(value):
            return value * _unit(0, size)
        case Indicator(column, level) if column in levels and levels[column] is not None:
            return float(levels[column] == level) * _unit(0, size)
        case Linear(terms, coefficients):
            parts = [_form(part, gram, levels) for part in terms]
            known = [part for part in parts if part is not None]
            return np.asarray(coefficients) @ np.array(known) if len(known) == len(parts) else None
        case Product(factors):
            return _product([_form(factor, gram, levels) for factor in factors])
        case _:
            return None


def _unit(position: int, size: int) -> Array:
    unit = np.zeros(size)
    unit[position] = 1.0
    return unit


def _product(forms: list[Array | None]) -> Array | None:
    """A product is linear if all its factors but one are constant within the key."""
    scale, varying = 1.0, None
    for form in forms:
        if form is None:
            return None
        if not form[1:].any():
            scale *= float(form[0])
        elif varying is None:
            varying = form
        else:
            return None
    if varying is None:
        size = len(forms[0]) if forms and forms[0] is not None else 0
        return scale * _unit(0, size)
    return scale * varying


def _score_sum(left: Array, right: Array, gram: Gram) -> float:
    """Sum of the products of two combinations of (1, terms), centred to keep digits."""
    mean = np.concatenate([[1.0], gram.mean])
    between = gram.sum_weights * float(left @ mean) * float(right @ mean)
    return between + float(left[1:] @ gram.cross @ right[1:])


def _row(gram: Gram) -> dict[str, object]:
    return {
        "n": gram.n, "n_missing": gram.n_missing, "n_units": 0, "sum_weights": gram.sum_weights,
        "mean": gram.mean, "cross": pack(gram.cross),
    }  # fmt: skip


def _has_missing(kept: Mapping[Key, Gram]) -> bool:
    return any(gram.n_missing for gram in kept.values())
