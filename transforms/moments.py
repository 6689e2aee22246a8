"""From sums of shifted values to means and centred cross-products, on the driver."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal.core.frames import packed_indices

Array = NDArray[np.float64]


def sums_of(frame: pd.DataFrame, size: int, *, n_crossed: int | None = None) -> tuple[Array, Array]:
    """The columns `s*` and `c*_*` of aggregated rows, shapes (r, p) and (r, q(q+1)/2).

    Args:
        frame: The rows.
        size: p.
        n_crossed: q, how many terms have products; all of them if left out.
    """
    products = [f"c{i}_{j}" for i, j in packed_indices(size if n_crossed is None else n_crossed)]
    return (
        frame[[f"s{i}" for i in range(size)]].to_numpy(dtype=np.float64),
        frame[products].to_numpy(dtype=np.float64),
    )


def centred(sums: Array, products: Array, weights: Array, shift: Array) -> tuple[Array, Array]:
    """Means and packed centred cross-products of each row; zeros where the weights sum to zero.

    Args:
        sums: `sum w (x - shift)`, shape (r, p).
        products: Packed `sum w (x - shift)(x - shift)'`, shape (r, p(p+1)/2), or (r, 0).
        weights: Sum of the weights, shape (r,).
        shift: A constant close to the mean, shape (p,).
    """
    rows, columns = np.triu_indices(sums.shape[1] if products.shape[1] else 0)
    safe = np.where(weights > 0, weights, 1.0)[:, None]
    # Infinite values make the sums NaN, which whoever reads the answer refuses by name.
    with np.errstate(invalid="ignore", over="ignore"):
        mean = np.where(weights[:, None] > 0, shift + sums / safe, 0.0)
        return mean, products - sums[:, rows] * sums[:, columns] / safe
