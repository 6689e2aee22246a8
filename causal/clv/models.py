"""The models of repeat purchases by name; each is a module with the same functions."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, Protocol, cast

from causal.clv import bg_bb, bg_nbd, pareto_nbd
from causal.clv.cells import Cells, check
from causal.clv.maximum_likelihood import Fit, maximise
from causal.core.gram import Array

ModelName = Literal["bg_nbd", "pareto_nbd", "bg_bb"]


class PurchaseModel(Protocol):
    """What the module of a purchase model exposes."""

    NAME: str
    PARAMETERS: tuple[str, ...]

    def starts(self, cells: Cells) -> tuple[Array, ...]:
        """Starting parameters."""

    def log_likelihood(self, parameters: Array, cells: Cells) -> tuple[Array, Array]:
        """Log-likelihood by cell and its gradient by the parameters' logarithms."""

    def alive(self, parameters: Array, cells: Cells) -> Array:
        """Probability that a customer has not left."""

    def expected_purchases(self, parameters: Array, t: Array) -> Array:
        """Expected repeat purchases of a new customer by time t."""

    def conditional_purchases(self, parameters: Array, cells: Cells, t: float) -> Array:
        """Expected purchases of each cell's customers in the next t units of time."""

    def purchase_probabilities(self, parameters: Array, t: float, n_max: int) -> Array:
        """Probability of 0, 1, ..., `n_max` repeat purchases by time t."""


MODELS: Mapping[str, PurchaseModel] = MappingProxyType(
    {
        "bg_nbd": cast("PurchaseModel", bg_nbd),
        "pareto_nbd": cast("PurchaseModel", pareto_nbd),
        "bg_bb": cast("PurchaseModel", bg_bb),
    }
)


def fit_purchases(name: ModelName, cells: Cells) -> Fit:
    """A purchase model fitted on cells.

    Args:
        name: Which model.
        cells: Purchase histories with counts.

    Raises:
        DataError: A history is impossible.
        InferenceError: The likelihood has no maximum inside, or the fit did not converge.

    Example:
        >>> from causal.clv.cells import cells_of
        >>> cells = cells_of(
        ...     frequency=[0, 1, 1, 2, 2, 6, 6],
        ...     recency=[0, 4, 9, 7, 28, 12, 29],
        ...     age=[30, 30, 30, 30, 30, 30, 30],
        ...     count=[60, 5, 5, 3, 3, 2, 2],
        ... )
        >>> fit = fit_purchases("bg_nbd", cells)
        >>> fit.names
        ('r', 'alpha', 'a', 'b')
        >>> bool(fit.remaining < 1e-9)
        True
    """
    check(cells)
    if name == "bg_bb":
        bg_bb.check(cells)
    model = MODELS[name]
    return maximise(
        lambda parameters: model.log_likelihood(parameters, cells),
        count=cells.count,
        starts=model.starts(cells),
        model=name,
        names=model.PARAMETERS,
    )
