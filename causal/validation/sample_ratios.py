"""The sample-ratio checks on trial: false alarms, and how surely a wrong split is seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal.checks import srm
from causal.core.frames import Level
from causal.core.gram import Array
from causal.experiments.sequential_srm import CONCENTRATION, log_bayes_factor
from causal.validation import rates
from causal.validation.rates import Range, Rate, Subject
from causal.validation.replication import Findings, Size, Workers, generator

STUDY = "sample_ratio"
ALPHA = 0.001
N_UNITS = 52_260
"""Units with which the check at 0.001 sees 51 to 49 in nine experiments of ten.

That is the normal approximation's number; summed over the binomial law the check sees 89.95 %.
"""

FALSE_ALARMS, DETECTION = Range(lower=0.0, upper=0.003), Range(lower=0.895, upper=1.0)
_EXPERIMENTS, _WATCHED = 50, 5
_DAYS = 28
_SPLITS: Sequence[tuple[str, tuple[float, ...], tuple[float, ...]]] = (
    ("50:50", (0.5, 0.5), (0.5, 0.5)),
    ("51:49", (0.5, 0.5), (0.51, 0.49)),
    ("50:30:20", (0.5, 0.3, 0.2), (0.5, 0.3, 0.2)),
    ("51:29:20", (0.5, 0.3, 0.2), (0.51, 0.29, 0.2)),
)
"""Name of the true split, planned shares, true shares."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """A piece of work: experiments with one split.

    Attributes:
        name: The true split.
        planned: Planned shares.
        true: True shares.
        size: How much is simulated.
    """

    name: str
    planned: tuple[float, ...]
    true: tuple[float, ...]
    size: Size

    @property
    def is_pair(self) -> bool:
        """Whether there are two arms."""
        return len(self.true) == 2  # noqa: PLR2004 - a pair

    @property
    def is_wrong(self) -> bool:
        """Whether the units are not split as planned."""
        return self.planned != self.true


def study(size: Size, workers: Workers) -> Findings:
    """Alarms of the check at the end and of the one at every look.

    Args:
        size: How much is simulated.
        workers: Who runs it.
    """
    splits = [Split(name=name, planned=a, true=b, size=size) for name, a, b in _SPLITS]
    return Findings(rates=rates.frame([rate for part in workers(run, splits) for rate in part]))


def run(split: Split) -> list[Rate]:
    """The alarms of one split."""
    return [*_at_the_end(split), *_watched(split)]


def _at_the_end(split: Split) -> Iterator[Rate]:
    rng = generator(split.size.seed, STUDY, split.name)
    # The verdict depends on the counts alone, and with two arms few of them differ.
    times = _EXPERIMENTS if split.is_pair else _WATCHED
    counts = rng.multinomial(N_UNITS, split.true, size=times * split.size.replications)
    different, which = np.unique(counts, axis=0, return_inverse=True)
    alarms = np.array([_is_alarm(row, split.planned) for row in different])[which.ravel()]
    yield _rate(split, "chi-square", f"{N_UNITS:,} units", alarms)


def _is_alarm(counts: NDArray[np.int64], shares: tuple[float, ...]) -> bool:
    arms: dict[Level, int] = {arm: int(n) for arm, n in enumerate(counts)}
    return srm.check(arms, shares=shares, alpha=ALPHA).passed is False


def _watched(split: Split) -> Iterator[Rate]:
    """An alarm at any of four weeks of daily looks."""
    rng = generator(split.size.seed, STUDY, split.name, "watched")
    n = _WATCHED * split.size.replications
    daily = rng.multinomial(N_UNITS // _DAYS, split.true, size=(n, _DAYS))
    counts: Array = np.cumsum(daily, axis=1).astype(float)
    evidence = log_bayes_factor(counts, np.array(split.planned), concentration=CONCENTRATION)
    alarms = evidence.max(axis=1) >= -np.log(ALPHA)
    yield _rate(split, "sequential", f"{N_UNITS:,} units over {_DAYS} daily looks", alarms)


def _rate(split: Split, estimator: str, units: str, alarms: NDArray[np.bool_]) -> Rate:
    is_final = estimator == "chi-square"
    found = DETECTION if is_final and split.is_pair else rates.UNPROMISED
    subject = Subject(
        study=STUDY, metric_type=STUDY, estimator=estimator,
        scenario=f"{split.name} for {':'.join(f'{share:.0%}' for share in split.planned)}, {units}",
        seed=split.size.seed,
    )  # fmt: skip
    if split.is_wrong:
        return rates.share(subject, rates.POWER, alarms, promised=found)
    return rates.share(subject, rates.REJECTION, alarms, promised=FALSE_ALARMS)
