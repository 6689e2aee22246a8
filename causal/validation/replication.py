"""How large a study is, how its pieces are numbered, and who runs them.

Every simulated experiment draws from a generator of its own, named by the seed of the study, the
scenario and the experiment's number. So the same study gives the same digits on one core or many,
and whatever the order in which the pieces end.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import pandas as pd

Piece = TypeVar("Piece")
Found = TypeVar("Found")


class Workers(Protocol):
    """Runs a function on pieces of work, in any order; answers come in the order of the pieces.

    The function and the pieces must be picklable, for they may go to another process.
    """

    def __call__(
        self, work: Callable[[Piece], Found], pieces: Sequence[Piece], /
    ) -> Iterable[Found]:
        """What the function makes of each piece."""


def one_by_one(work: Callable[[Piece], Found], pieces: Sequence[Piece], /) -> Iterator[Found]:
    """Workers in this process."""
    return map(work, pieces)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is simulated.

    Attributes:
        replications: Experiments per estimator and scenario; cheap studies make multiples of it.
        confirmation: New experiments, in multiples of those, where the first ones leave a promise
            open; the new ones then count alone, for the first were chosen for what they showed.
        seed: Of everything.
    """

    replications: int
    confirmation: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a study found.

    Attributes:
        rates: One row per rate, columns as the fields of `Rate`.
        pvalues: Counts of p-values of true null hypotheses by bin: columns `metric_type`,
            `estimator`, `lower` (of the bin), `count`; empty where there are none.
    """

    rates: pd.DataFrame
    pvalues: pd.DataFrame = field(default_factory=pd.DataFrame)


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """The generator of one experiment or of one scenario.

    Args:
        seed: Seed of the study.
        *names: What tells it from the others: texts and numbers.
    """
    keys = [zlib.crc32(name.encode()) if isinstance(name, str) else name for name in names]
    return np.random.default_rng([seed, *keys])


def spans(start: int, stop: int, *, length: int) -> list[range]:
    """Consecutive ranges of at most a length."""
    return [range(at, min(at + length, stop)) for at in range(start, stop, length)]
