"""What an instrumental-variable estimate stands for, as far as spec and data tell.

With one 0/1 treatment, one 0/1 instrument and no covariates two-stage least squares estimates the
effect on compliers (Imbens and Angrist 1994). Covariates keep it an average of such effects if they
are saturated, a dummy for each of their cells: the average is over the cells, each weighed by its
size, the variance of its instrument and its share of compliers (Angrist and Imbens 1995). Otherwise
it need not be an average of effects on compliers, unless the mean of the instrument is linear in
the covariates (Blandhol, Bonney, Mogstad and Torgovitsky 2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from causal.core.frames import Column
from causal.core.result import Estimand
from causal.instruments.options import IvOptions
from causal.regression.data import RegressionData


@dataclass(frozen=True)
class Meaning:
    """What the coefficient of a treatment is called, and one sentence about it."""

    estimand: Estimand
    detail: str


def meaning(options: IvOptions, data: RegressionData, *, is_binary_pair: bool) -> Meaning:
    """What the estimate stands for.

    Args:
        options: The analysis.
        data: What it was computed from.
        is_binary_pair: Whether there is one 0/1 treatment and one 0/1 instrument.
    """
    if not is_binary_pair:
        return Meaning(
            "coefficient",
            "a weighted average of effects over instruments and levels of treatment: late needs "
            "one 0/1 treatment and one 0/1 instrument",
        )
    columns = _covariates(options)
    if not columns:
        return Meaning("late", "the effect on compliers, whom the instrument moves")
    if _is_saturated(options, data, columns):
        return Meaning(
            "late",
            "an average of the effects on compliers over the cells of the covariates, which "
            "weighs cells by size, variance of the instrument and share of compliers",
        )
    return Meaning(
        "coefficient",
        "the covariates are not saturated (not a dummy for each of their cells): an average of "
        "effects on compliers only if the mean of the instrument is linear in them, as where it "
        "is randomised whatever they are",
    )


def _covariates(options: IvOptions) -> tuple[str, ...]:
    absorbed = () if options.absorb is None else (options.absorb,)
    return (*options.covariates, *options.categorical, *absorbed)


def _is_saturated(options: IvOptions, data: RegressionData, columns: Sequence[str]) -> bool:
    """Whether the covariates are cells, with a parameter for each."""
    if not all(data.is_binary(Column(name)) for name in options.covariates):
        return False
    if not options.has_constant:
        return False
    crossed = {frozenset(parts) for parts in options.interactions}
    needed = (
        frozenset(parts)
        for size in range(2, len(columns) + 1)
        for parts in combinations(columns, size)
    )
    return all(parts in crossed for parts in needed)
