"""What a method hands back for one outcome, and the result of several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from causal.core.gram import Array
from causal.core.result import Diagnostic, Effect, Result


@dataclass(frozen=True, kw_only=True)
class Readout:
    """Effects, checks and tables of one outcome."""

    effects: tuple[Effect, ...]
    diagnostics: tuple[Diagnostic, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def combined(readouts: Mapping[str, Readout]) -> Result:
    """The result of all outcomes, their tables below each other.

    Where there are several outcomes, the names of checks and params carry that of the outcome.

    Args:
        readouts: Readouts by outcome.
    """
    suffixes = {outcome: f":{outcome}" if len(readouts) > 1 else "" for outcome in readouts}
    parts = tuple(readouts.values())
    return Result(
        effects=tuple(effect for part in parts for effect in part.effects),
        diagnostics=tuple(
            replace(item, name=f"{item.name}{suffixes[outcome]}")
            for outcome, part in readouts.items()
            for item in part.diagnostics
        ),
        params={
            f"{name}{suffixes[outcome]}": value
            for outcome, part in readouts.items()
            for name, value in part.params.items()
        },
        tables=_below_each_other(parts),
    )


def covariance_table(names: Sequence[str], covariance: Array, *, metric: str) -> pd.DataFrame:
    """A covariance in long form: metric, row, column, covariance.

    Args:
        names: The K estimates.
        covariance: Shape (K, K).
        metric: The outcome.
    """
    labels = pd.Series(list(names), dtype=object).to_numpy()
    return pd.DataFrame(
        {
            "metric": metric,
            "row": np.repeat(labels, len(labels)),
            "column": np.tile(labels, len(labels)),
            "covariance": covariance.ravel(),
        }
    )


def _below_each_other(readouts: Sequence[Readout]) -> dict[str, pd.DataFrame]:
    names = dict.fromkeys(name for readout in readouts for name in readout.tables)
    return {
        name: pd.concat(
            [readout.tables[name] for readout in readouts if name in readout.tables],
            ignore_index=True,
        )
        for name in names
    }
