"""Simulated experiments with one column for every type of metric, and the effects that are true.

Every value is a function of standard normal draws, so units and homes have the same distribution of
every column and hence the same true effects: what homes change is that the draws of units who
live together are correlated. Treatment changes the column of each metric by a known amount.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from causal.core.gram import Array
from causal.core.result import Scale

CONTROL_SHARE = 0.4
"""Of independent units; homes are assigned half and half."""

CONTROL, TREATMENT = 0, 1

_N_UNITS = 800
_N_HOMES, _MEAN_HOME = 60, 10
_ICC = 0.1
"""Share of the variance of each draw that a home has in common."""

_TIERS = (0.5, 0.3, 0.2)
_MEAN_TIER = _TIERS[1] + 2 * _TIERS[2]
_PROFIT, _BOUGHT, _ORDERS, _VISITS = 0.7, 0.08, 0.15, 0.12
_SPEND, _LATENCY, _KEPT, _STAYS = 0.25, 0.08, 0.1, (0.97, 0.98)
_UPPER_QUANTILE = 0.99
_SPEND_SD = math.hypot(0.6, 0.5)
_HORIZON, _LATER_HORIZON = 7, 14


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The true effect on a metric.

    Attributes:
        level: The control level.
        absolute: Difference of the levels.
    """

    level: float
    absolute: float

    def on(self, scale: Scale) -> float:
        """The effect on a scale."""
        return self.absolute if scale == "absolute" else self.absolute / self.level


METRICS: Mapping[str, Mapping[str, Any]] = {
    "mean": {"type": "mean", "column": "profit", "covariates": ["pre_profit"]},
    "proportion": {"type": "proportion", "column": "bought", "covariates": ["bought_before"]},
    "ratio": {
        "type": "ratio", "numerator": "orders", "denominator": "sessions",
        "covariates": [{"numerator": "pre_orders", "denominator": "pre_sessions"}],
    },
    "count": {"type": "count", "column": "visits", "covariates": ["pre_visits"]},
    "winsorised_mean": {
        "type": "mean", "column": "spend", "covariates": ["pre_spend"],
        "winsorise": {"upper_quantile": _UPPER_QUANTILE},
    },
    "quantile_50": {"type": "quantile", "column": "latency", "quantile": 0.5},
    "quantile_90": {"type": "quantile", "column": "latency", "quantile": 0.9},
    "retention": {
        "type": "retention", "column": "kept", "observed_days": "days", "horizon": _HORIZON,
    },
    "retention_censored": {
        "type": "retention", "churn_day": "churn_day", "observed_days": "tracked_days",
        "horizon": _LATER_HORIZON,
    },
}  # fmt: skip
"""By metric: its declaration in a spec. The last one is for independent units."""

MOMENTS = ("mean", "proportion", "ratio", "count", "winsorised_mean")
"""The metrics that are functions of means, and have covariates."""


@dataclass(frozen=True)
class _Draws:
    """Correlated standard normal draws.

    Attributes:
        rng: Where they come from.
        home: Home of each unit, shape (n,); `None`: every unit on its own.
    """

    rng: np.random.Generator
    home: NDArray[np.intp] | None
    n: int

    def normal(self) -> Array:
        own = self.rng.normal(size=self.n)
        if self.home is None:
            return own
        common = self.rng.normal(size=_N_HOMES)[self.home]
        return math.sqrt(_ICC) * common + math.sqrt(1 - _ICC) * own

    def uniform(self) -> Array:
        from scipy import special

        return np.asarray(special.ndtr(self.normal()))


def units(rng: np.random.Generator, *, has_effect: bool) -> pd.DataFrame:
    """Independent units, each assigned to treatment with a probability of 60 %."""
    treated = rng.random(_N_UNITS) >= CONTROL_SHARE
    return _frame(_Draws(rng, None, _N_UNITS), treated, has_effect=has_effect)


def homes(rng: np.random.Generator, *, has_effect: bool) -> pd.DataFrame:
    """Units in sixty homes of unequal sizes; each home is assigned by a coin."""
    sizes = 1 + rng.poisson(_MEAN_HOME - 1, _N_HOMES)
    home = np.repeat(np.arange(_N_HOMES), sizes)
    treated = (rng.random(_N_HOMES) < 0.5)[home]  # noqa: PLR2004 - a coin
    frame = _frame(_Draws(rng, home, len(home)), treated, has_effect=has_effect)
    return frame.assign(home=home)


def _frame(draws: _Draws, treated: NDArray[np.bool_], *, has_effect: bool) -> pd.DataFrame:
    lift = np.asarray(treated * float(has_effect), dtype=np.float64)
    tier = np.searchsorted(np.cumsum(_TIERS)[:-1], draws.uniform()).astype(np.float64)
    columns = {
        **_profit(draws, tier, lift),
        **_bought(draws, tier, lift),
        **_orders(draws, lift),
        **_visits(draws, lift),
        **_spend(draws, lift),
        "latency": np.exp(5 + 0.5 * draws.normal()) * (1 + _LATENCY * lift),
        **_kept(draws, tier, lift),
    }
    head = {"unit": np.arange(len(tier)), "variant": treated.astype(int)}
    return pd.DataFrame({**head, "tier": tier, **columns})


def _profit(draws: _Draws, tier: Array, lift: Array) -> dict[str, Array]:
    before = 5 + 2 * draws.normal()
    noise = 2 * np.exp(0.5 * draws.normal())
    return {"profit": 10 + 0.8 * before + tier + noise + _PROFIT * lift, "pre_profit": before}


def _bought(draws: _Draws, tier: Array, lift: Array) -> dict[str, Array]:
    before = (draws.uniform() < 0.3).astype(float)  # noqa: PLR2004 - three in ten
    share = 0.1 + 0.2 * before + 0.03 * tier + _BOUGHT * lift
    return {"bought": (draws.uniform() < share).astype(float), "bought_before": before}


def _orders(draws: _Draws, lift: Array) -> dict[str, Array]:
    from scipy import special

    rng, habit = draws.rng, np.exp(0.5 * draws.normal())
    taste = special.ndtr(-0.6 + 0.3 * draws.normal())
    sessions, before = 1 + rng.poisson(4 * habit), 1 + rng.poisson(4 * habit)
    found = {
        "orders": rng.binomial(sessions, np.minimum(taste * (1 + _ORDERS * lift), 1.0)),
        "sessions": sessions,
        "pre_orders": rng.binomial(before, taste),
        "pre_sessions": before,
    }
    return {name: values.astype(np.float64) for name, values in found.items()}


def _visits(draws: _Draws, lift: Array) -> dict[str, Array]:
    rate = 3 * np.exp(0.6 * draws.normal() - 0.18)
    return {
        "visits": draws.rng.poisson(rate * (1 + _VISITS * lift)).astype(np.float64),
        "pre_visits": draws.rng.poisson(rate).astype(np.float64),
    }


def _spend(draws: _Draws, lift: Array) -> dict[str, Array]:
    taste = 0.6 * draws.normal()
    return {
        "spend": np.exp(1 + taste + 0.5 * draws.normal()) * (1 + _SPEND * lift),
        "pre_spend": np.exp(taste + 0.3 * draws.normal()),
    }


def _kept(draws: _Draws, tier: Array, lift: Array) -> dict[str, Array]:
    """On the seventh day, for those followed as long; and leaving days, as far as followed."""
    stay = np.where(lift > 0, _STAYS[1], _STAYS[0])
    leaves = draws.rng.geometric(1 - stay) - 1.0
    tracked = draws.rng.integers(0, 43, draws.n).astype(float)
    return {
        "kept": (draws.uniform() < 0.5 + 0.05 * tier + _KEPT * lift).astype(float),
        "days": draws.rng.integers(4, 29, draws.n).astype(float),
        "churn_day": np.where(leaves <= tracked, leaves, np.nan),
        "tracked_days": tracked,
    }


def truths() -> dict[str, Truth]:
    """The true effects by metric, in closed form.

    A winsorised mean's bound is the quantile of both arms together, so its effect is that at the
    population's bound, in the shares that independent units have; for homes it differs in the
    fourth digit.
    """
    from scipy import special

    orders = float(special.ndtr(-0.6 / math.sqrt(1 + 0.3**2)))
    profit = 10 + 0.8 * 5 + _MEAN_TIER + 2 * math.exp(0.5**2 / 2)
    kept = 0.5 + 0.05 * _MEAN_TIER
    median = math.exp(5)
    high = math.exp(5 + 0.5 * float(special.ndtri(0.9)))
    left = [share ** (_LATER_HORIZON + 1) for share in _STAYS]
    return {
        "mean": Truth(level=profit, absolute=_PROFIT),
        "proportion": Truth(level=0.1 + 0.2 * 0.3 + 0.03 * _MEAN_TIER, absolute=_BOUGHT),
        "ratio": Truth(level=orders, absolute=_ORDERS * orders),
        "count": Truth(level=3.0, absolute=_VISITS * 3.0),
        "winsorised_mean": _bounded_spend(),
        "quantile_50": Truth(level=median, absolute=_LATENCY * median),
        "quantile_90": Truth(level=high, absolute=_LATENCY * high),
        "retention": Truth(level=kept, absolute=_KEPT),
        "retention_censored": Truth(level=left[0], absolute=left[1] - left[0]),
    }


def _bounded_spend() -> Truth:
    """Means of log-normal spend up to the common bound of both arms."""
    from scipy import optimize, special

    centres = (1.0, 1.0 + math.log1p(_SPEND))
    shares = (CONTROL_SHARE, 1 - CONTROL_SHARE)

    def below(bound: float) -> float:
        return sum(
            share * float(special.ndtr((math.log(bound) - centre) / _SPEND_SD))
            for share, centre in zip(shares, centres, strict=True)
        )

    bound = float(optimize.brentq(lambda b: below(b) - _UPPER_QUANTILE, 0.1, 1e4))
    control, treatment = (_limited_mean(bound, centre) for centre in centres)
    return Truth(level=control, absolute=treatment - control)


def _limited_mean(bound: float, centre: float) -> float:
    """Expectation of `min(X, bound)` for a log-normal X."""
    from scipy import special

    z = (math.log(bound) - centre) / _SPEND_SD
    mean = math.exp(centre + _SPEND_SD**2 / 2)
    return float(mean * special.ndtr(z - _SPEND_SD) + bound * special.ndtr(-z))
