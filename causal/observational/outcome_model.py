"""Linear models of the outcome in both arms, from the arms' moments."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from causal.core.cross_products import inverse
from causal.core.errors import InferenceError, SpecError
from causal.core.frames import Constant, Linear, Term
from causal.core.gram import Array
from causal.observational.study import CONTROL, TREATED, Arms, Study

Interactions = Literal["all", "none"] | list[str]


@dataclass(frozen=True, kw_only=True)
class OutcomeModel:
    """Least squares of the outcome on q regressors z; in arm t, z = designs[t] @ (1, columns).

    Everything is in the basis of the study.

    Attributes:
        coefficients: What (1, columns) are multiplied with in each arm, two of shape (k + 1,).
        designs: Two of shape (q, k + 1).
        bread: Inverse of the cross-product of z, shape (q, q).
    """

    coefficients: tuple[Array, Array]
    designs: tuple[Array, Array]
    bread: Array


def fit_outcome(study: Study, arms: Arms, *, interactions: Interactions) -> OutcomeModel:
    """Fit the model.

    Args:
        study: The rows.
        arms: Moments of the columns and the outcome by arm.
        interactions: Columns whose slopes differ between the arms: `all` (a regression for each
            arm), `none` (one shift), or names.

    Raises:
        SpecError: An interaction names no column.
        InferenceError: The regressors are collinear within the arms, or rows are too few.
    """
    designs = _designs(study, interactions)
    sums = [study.basis.moment(arm) for arm in arms]
    cross = sum(
        (d @ m[:-1, :-1] @ d.T for d, m in zip(designs, sums, strict=True)),
        np.zeros((len(designs[0]), len(designs[0]))),
    )
    if study.n <= len(cross):
        raise InferenceError("too few rows for the model of the outcome", given=study.n)
    right = sum((d @ m[:-1, -1] for d, m in zip(designs, sums, strict=True)), np.zeros(len(cross)))
    bread = inverse(cross, _labels(study, interactions))
    beta = bread @ right
    return OutcomeModel(
        coefficients=(designs[CONTROL].T @ beta, designs[TREATED].T @ beta),
        designs=designs,
        bread=bread,
    )


def _designs(study: Study, interactions: Interactions) -> tuple[Array, Array]:
    size = len(study.columns) + 1
    one = np.eye(size)
    shifted = one[_shifted(study, interactions)]
    return np.vstack([one, 0.0 * shifted]), np.vstack([one, shifted])


def _shifted(study: Study, interactions: Interactions) -> list[int]:
    """The columns of the basis whose coefficients differ between the arms; always the first."""
    if interactions == "all":
        return list(range(len(study.columns) + 1))
    found = [0]
    for name in () if interactions == "none" else interactions:
        at = [j for j, column in enumerate(study.columns) if name in {column.name, column.group}]
        if not at:
            raise SpecError(
                "no such column in the model of the outcome",
                given=name, allowed=study.names, key="options.outcome_interactions",
            )  # fmt: skip
        found += [j + 1 for j in at]
    return sorted(set(found))


def _labels(study: Study, interactions: Interactions) -> Sequence[Term]:
    terms: list[Term] = [Constant(), *study.covariates]
    treated = study.is_arm[TREATED]
    return [*terms, *(Linear((treated, terms[j]), (1, 1)) for j in _shifted(study, interactions))]
