"""The methods of the suite by name; a method's module is imported when it is first used."""

import importlib
from collections.abc import Generator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, cast

import pandas as pd

from causal.core.errors import SpecError
from causal.core.frames import FrameRequest, FromSource
from causal.core.result import Result
from causal.core.spec import Spec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Plan = Generator[FrameRequest | FromSource, pd.DataFrame, Result]

MODULES: Mapping[str, str] = MappingProxyType(
    {
        "ab": "causal.experiments.ab",
        "did": "causal.quasi.did",
        "staggered": "causal.quasi.staggered",
        "synthetic_control": "causal.quasi.synthetic_control",
        "synthetic_did": "causal.quasi.synthetic_did",
        "switchback": "causal.quasi.geo.switchback",
        "bsts": "causal.quasi.bsts",
        "iv": "causal.quasi.iv",
        "ols": "causal.quasi.ols",
        "weighting": "causal.quasi.weighting",
        "matching": "causal.quasi.matching",
        "uplift": "causal.uplift.linear_uplift",
        "dml": "causal.quasi.dml",
        "surrogate_index": "causal.experiments.surrogate_index",
    }
)


class Method(Protocol):
    """What a method's module exposes."""

    SPEC: type[Spec]

    def estimate(self, spec: Any) -> Plan:
        """Yield requests, receive their frames, return the result."""

    def figures(self, spec: Any, result: Result) -> Mapping[str, "Figure"]:
        """Figures of a result, by file name without ending."""


def names() -> tuple[str, ...]:
    """The names a spec's `method` may have."""
    return tuple(MODULES)


def method(name: str) -> Method:
    """The method's module.

    Raises:
        SpecError: No method has this name.
    """
    if name not in MODULES:
        raise SpecError("unknown method", given=name, allowed=names(), key="method")
    return cast("Method", importlib.import_module(MODULES[name]))
