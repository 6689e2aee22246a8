"""Inverses and redundant columns of cross-product matrices, whatever the scales of the columns."""

from collections.abc import Sequence

import numpy as np
from scipy import linalg

from causal.core.errors import InferenceError
from causal.core.frames import Term, label
from causal.core.gram import Array

COLLINEAR = 1e-10
"""Share of a column's variance that must remain after the columns before it are projected out."""


def inverse(matrix: Array, terms: Sequence[Term]) -> Array:
    """Inverse of a positive definite cross-product matrix.

    Args:
        matrix: Shape (k, k).
        terms: What the rows stand for, for the message.

    Raises:
        InferenceError: A column is constant or a combination of the ones before it.
    """
    redundant = redundant_columns(matrix)
    if redundant:
        raise InferenceError(
            "these columns are constant or collinear with the others",
            given=[label(terms[j]) for j in redundant],
        )
    if len(matrix) == 0:
        return np.zeros((0, 0))
    scale = 1.0 / np.sqrt(np.diag(matrix))
    factor = linalg.cho_factor(matrix * np.outer(scale, scale), lower=True)
    inner = linalg.cho_solve(factor, np.eye(len(matrix)))
    return np.asarray((inner + inner.T) / 2 * np.outer(scale, scale), dtype=np.float64)


def redundant_columns(matrix: Array, *, tolerance: float = COLLINEAR) -> list[int]:
    """Columns of a cross-product matrix that the columns before them explain, in order."""
    diagonal = np.diag(matrix)
    positive = diagonal > 0
    scale = np.where(positive, 1.0 / np.sqrt(np.where(positive, diagonal, 1.0)), 0.0)
    work = matrix * np.outer(scale, scale)
    found = []
    for j in range(len(work)):
        pivot = work[j, j]
        if pivot <= tolerance:
            found.append(j)
            continue
        work = work - np.outer(work[:, j], work[j, :]) / pivot
    return found
