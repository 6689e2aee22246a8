"""The voucher of the passengers, drawn in numpy: intervals hold the truth of each small world."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.core.gram import Array
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import Spec
from causal.experiments import surrogate_index
from jobs.runtime import analyses, places
from jobs.runtime.yaml_file import read_yaml
from transforms.synthetic.passengers.mixtures import (
    N_STEPS,
    beta_steps,
    gamma_steps,
    inverse_gamma_steps,
)
from transforms.synthetic.passengers.vouchers import EARLY_DAYS, LATE_DAYS

WORLD: Mapping[str, Any] = read_yaml(places.conf("worlds", "passengers.yaml")).data
SHARE, TILT = WORLD["platforms"]["ios"], WORLD["platform_tilt"]
FARES, VOUCHERS = WORLD["fares"], WORLD["vouchers"]
RATES = np.array(gamma_steps(WORLD["riding"]["shape"], rate=WORLD["riding"]["rate"]))
LEAVES = np.array(beta_steps(WORLD["leaving"]["a"], WORLD["leaving"]["b"]))
MONEY = FARES["shape"] * np.array(inverse_gamma_steps(FARES["spread"], rate=FARES["scale"]))
SPEC: Any = analyses.load(places.conf("analyses", "passengers", "voucher_pilot.yaml")).spec


def is_first(rng: np.random.Generator, place: Array) -> Array:
    """Whether the platform is the first, given the place of the rate among all rates."""
    return rng.uniform(size=len(place)) < SHARE + TILT * (place - 0.5)


def place_like(rng: np.random.Generator, platform: Array) -> Array:
    """Places of rates of other passengers with the same platforms, by rejection."""
    out = np.full(len(platform), np.nan)
    while (missing := np.flatnonzero(np.isnan(out))).size:
        place = rng.uniform(size=missing.size)
        taken = is_first(rng, place) == platform[missing]
        out[missing[taken]] = place[taken]
    return out


def step(steps: Array, uniform: Array) -> Array:
    return np.asarray(steps[(uniform * N_STEPS).astype(int)])


def life(rng: np.random.Generator, place: Array, *, later: Array) -> pd.DataFrame:
    """What passengers do in twelve weeks if they pay `later` times the fare after the second."""
    n = len(place)
    rate, leave = step(RATES, place), step(LEAVES, rng.uniform(size=n))
    n_wanted = rng.poisson(rate * LATE_DAYS)
    n_until_leaving = rng.geometric(leave)
    number = np.arange(n_wanted.max())
    ages = LATE_DAYS * rng.uniform(size=(n, len(number)))
    ages = np.sort(np.where(number < n_wanted[:, None], ages, np.inf), axis=1)
    is_taken = np.isfinite(ages) & (number < n_until_leaving[:, None])
    is_early = is_taken & (ages < EARLY_DAYS)
    money = step(MONEY, rng.uniform(size=n)) / FARES["shape"]
    fares = money[:, None] * rng.gamma(FARES["shape"], size=ages.shape) * is_taken
    trips = is_early.sum(axis=1)
    early = (fares * is_early).sum(axis=1)
    rest = later * (fares * ~is_early).sum(axis=1)
    return pd.DataFrame(
        {"has_ridden_14": trips > 0, "trips_14": trips, "spend_14": early, "spend_84": early + rest}
    )


def history(rng: np.random.Generator, n: int) -> pd.DataFrame:
    place = rng.uniform(size=n)
    out = life(rng, place, later=np.ones(n))
    return out.assign(
        passenger_id=np.arange(n), is_first_platform=is_first(rng, place), part="history"
    )


def pilot(rng: np.random.Generator, n: int, *, direct: float) -> tuple[pd.DataFrame, float]:
    """The rows of a pilot, and the mean effect on its passengers."""
    place = rng.uniform(size=n)
    platform = is_first(rng, place)
    own, untouched = np.random.default_rng(rng.integers(2**63)), np.ones(n)
    state = own.bit_generator.state
    without = life(own, place, later=untouched)
    own.bit_generator.state = state
    with_voucher = life(own, place, later=untouched + direct)
    other = life(rng, place_like(rng, platform), later=untouched + direct)
    is_restarted = ~without["has_ridden_14"] & (rng.uniform(size=n) < VOUCHERS["restart"])
    treated = other.where(is_restarted, with_voucher, axis=0)
    effect = float((treated["spend_84"] - without["spend_84"]).mean())
    has_voucher = rng.uniform(size=n) < VOUCHERS["share"]
    rows = treated.where(pd.Series(has_voucher), without, axis=0).astype(without.dtypes)
    return rows.assign(
        passenger_id=10**6 + np.arange(n),
        is_first_platform=platform,
        variant=np.where(has_voucher, "voucher", "control"),
        part="voucher_pilot",
    ), effect


def shares(
    *, n_worlds: int, n_history: int, n: int, seed: int, direct: float = 0.0, spec: Spec = SPEC
) -> dict[str, float]:
    """Shares of worlds whose intervals hold the effect, and whose back-test is passed."""
    held = {"index": 0, "actual": 0, "passed": 0}
    off = []
    for world in range(n_worlds):
        rng = np.random.default_rng([seed, world])
        rows, truth = pilot(rng, n, direct=direct)
        past = history(rng, n_history)
        engine = PandasEngine(pd.concat([rows, past], ignore_index=True))
        result = run(surrogate_index.estimate(spec), engine)
        by_index, actual, _ = result.effects
        (surrogacy,) = [d for d in result.diagnostics if d.name.startswith("surrogacy")]
        held["index"] += by_index.ci_lower <= truth <= by_index.ci_upper
        held["actual"] += actual.ci_lower <= truth <= actual.ci_upper
        held["passed"] += surrogacy.passed
        off.append((by_index.estimate - truth) / by_index.std_error)
    return {name: count / n_worlds for name, count in held.items()} | {"z": float(np.mean(off))}


def without_whether_ridden() -> Spec:
    options = SPEC.options.model_copy(
        update={"surrogates": ("trips_14", "spend_14", "is_first_platform")}
    )
    return SPEC.model_copy(update={"options": options})


def test_intervals_hold_the_truth_and_the_back_test_passes() -> None:
    found = shares(n_worlds=300, n_history=1000, n=1500, seed=1)
    for name in ("index", "actual", "passed"):
        held = round(found[name] * 300)
        assert stats.binomtest(held, 300, 0.95).pvalue > 1e-3, found
    assert abs(found["z"]) < 4 / 300**0.5


def test_a_direct_effect_fails_the_back_test_and_escapes_the_index() -> None:
    found = shares(
        n_worlds=60, n_history=3000, n=6000, seed=2, direct=WORLD["faults"]["direct_effect"]
    )
    assert found["passed"] < 0.2, found
    assert found["index"] < 0.2, found
    assert found["actual"] > 0.85, found


@pytest.mark.validation
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("n_history", "n"), [(300, 3000), (3000, 3000), (6000, 1500)])
def test_intervals_hold_the_truth_in_many_worlds(n_history: int, n: int) -> None:
    found = shares(n_worlds=1000, n_history=n_history, n=n, seed=3)
    print(n_history, n, found)  # noqa: T201 - docs/methods/surrogate_index.md
    assert all(0.93 <= found[name] <= 0.97 for name in ("index", "actual", "passed")), found


@pytest.mark.validation
def test_an_index_that_forgets_who_has_ridden_is_biased() -> None:
    found = shares(n_worlds=300, n_history=20_000, n=6000, seed=4, spec=without_whether_ridden())
    print(found)  # noqa: T201 - docs/worlds.md
    assert found["z"] > 0.3, found
