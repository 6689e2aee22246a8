"""The parameter files of the worlds, and what the generate job refuses, without Spark."""

from typing import Any

import numpy as np
import pytest

from causal.core.errors import SpecError
from causal.core.spec import validate
from jobs.generate import (
    JOB,
    GenerateConfig,
    checkout_plan,
    driver_plan,
    passenger_plan,
    subscriber_plan,
)
from transforms.synthetic.plan import Plan
from transforms.synthetic.randomness import Draws


def _config(**given: object) -> GenerateConfig:
    defaults = JOB.defaults
    assert defaults is not None
    return validate(GenerateConfig, {**defaults({}), **given})


def _changed(path: str, value: object, *, world: str = "subscribers") -> dict[str, Any]:
    """The default parameters with one key of a world replaced."""
    defaults = JOB.defaults
    assert defaults is not None
    data: dict[str, Any] = dict(defaults({}))
    block = data[world]
    *parents, last = path.split(".")
    for parent in parents:
        block = block[int(parent) if parent.isdigit() else parent]
    block[last] = value
    return data


def test_the_files_of_conf_are_valid() -> None:
    config = _config()
    assert {trial.experiment for trial in config.subscribers.trials} == {
        "loyalty_rewards",
        "partner_discount",
        "ad_free",
        "premium_upgrade",
    }
    assert config.subscribers.rollout.name == "early_content"
    assert config.n_drivers == config.size // 5


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("churn.dayly_hazard", 0.1, "unknown key"),
        ("starts_on", "2026-01-06", "Monday"),
        ("pre_days", 30, "whole weeks"),
        ("rollout.cohorts", {3: 60}, "untreated"),
        ("tiers.basic.share", 0.9, "must add to 1"),
        ("households.patterns", [[1, 2], [1, 1]], "same block size"),
        ("trials.0.population", 0.9, "more than 1"),
        ("trials.0.variants.0.share", 0.9, "must add to 1"),
        ("trials.0.design", "encouragement", "uptake"),
        ("usage.day_sd", -1.0, "greater than or equal to 0"),
    ],
)
def test_a_wrong_parameter_is_one_line_with_its_reason(path: str, value: object, text: str) -> None:
    with pytest.raises(SpecError, match=text) as caught:
        validate(GenerateConfig, _changed(path, value))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("trial.share", 1.0, "less than 1"),
        ("trial.control", "treatment", "are both called treatment"),
        ("trial.effect.complettion", 0.1, "unknown key, did you mean 'completion'"),
        ("starts_on", "2026-01-06", "Monday"),
        ("devices.mobile.share", 0.9, "must add to 1"),
        ("channels.direct.share", 0.9, "must add to 1"),
        ("countries.US", 0.9, "must add to 1"),
        ("visits.further_sessions", [0.1, 0.2], "likelier than a second"),
        ("faults.segment_imbalance", 0.5, "leaves a device with one variant"),
        ("faults.pre_period_imbalance", 0.5, "leaves frequent visitors with one variant"),
        ("faults.sample_ratio", 0.5, "unknown key"),
    ],
)
def test_a_wrong_parameter_of_the_shop_is_one_line(path: str, value: object, text: str) -> None:
    with pytest.raises(SpecError, match=text) as caught:
        validate(GenerateConfig, _changed(path, value, world="checkout"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("starts_on", "2026-01-06", "Monday"),
        ("registration_days", 30, "whole weeks"),
        ("riding.weekday", [1, 1, 1, 1, 1, 1, 2], "must add to 1"),
        ("cities.lisbon", 0.9, "must add to 1"),
        ("platforms.ios", 0.9, "must add to 1"),
        ("platform_tilt", 1.0, "takes a share out of"),
        ("fares.spread", 1.0, "greater than 1"),
        ("leaving.c", 1.0, "unknown key"),
        ("vouchers.from_day", 84, "before the last of 84"),
        ("vouchers.pilot_share", 1.0, "less than 1"),
        ("vouchers.restart", 1.5, "less than or equal to 1"),
        ("faults.direct_effect", -1.0, "greater than or equal to -0.9"),
    ],
)
def test_a_wrong_parameter_of_the_passengers_is_one_line(
    path: str, value: object, text: str
) -> None:
    with pytest.raises(SpecError, match=text) as caught:
        validate(GenerateConfig, _changed(path, value, world="passengers"))
    assert "\n" not in str(caught.value)


def test_faults_are_those_of_the_chosen_worlds() -> None:
    with pytest.raises(SpecError, match="no world of 'both' has the fault missing_day"):
        _config(faults=["missing_day"])
    with pytest.raises(SpecError, match="no world of 'checkout' has the fault weak_instrument"):
        _config(world="checkout", faults=["weak_instrument"])
    with pytest.raises(SpecError, match="no world of 'both' has the fault direct_effect"):
        _config(faults=["direct_effect"])
    both = _config(world="all", faults=["missing_day", "weak_instrument", "novelty"])
    assert passenger_plan(both).faults == set()
    direct = _config(world="passengers", faults=["direct_effect"])
    assert passenger_plan(direct).faults == {"direct_effect"}
    assert checkout_plan(both).faults == {"missing_day", "novelty"}
    assert subscriber_plan(both).faults == {"weak_instrument", "novelty"}


@pytest.mark.parametrize(
    ("world", "n_worlds"),
    [("both", 2), ("all", 4), ("checkout", 1), ("drivers", 1), ("passengers", 1)],
)
def test_a_world_writes_its_tables(world: str, n_worlds: int) -> None:
    config = _config(world=world)
    assert len(config.worlds) == n_worlds
    names = JOB.writes(config)
    assert any(name.startswith("checkout_") for name in names) == ("checkout" in config.worlds)
    assert sum(name.endswith("_effects") for name in names) == n_worlds


@pytest.mark.parametrize(
    "given",
    [{"size": -5}, {"days": 28}, {"days": 50}, {"seed": -1}, {"faults": ["typo"]}, {"world": "x"}],
)
def test_a_wrong_option_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        _config(**given)


@pytest.mark.parametrize("make_plan", [subscriber_plan, driver_plan])
def test_cohorts_have_their_sizes_and_differ_by_seed(make_plan: Any) -> None:
    plans: list[Plan[Any, Any]] = [make_plan(_config(seed=seed)) for seed in (1, 1, 2)]
    first, again, other = (plan.places.first_treated_periods for plan in plans)
    assert first == again != other
    cohorts = plans[0].world.rollout.cohorts
    assert {period: first.count(period) for period in cohorts} == cohorts
    assert sum(plans[0].places.weights) == pytest.approx(1.0)


def test_faults_change_what_they_name_in_the_places() -> None:
    calm = subscriber_plan(_config(seed=3)).places
    names = ["trend_violation", "dynamic_rollout", "heterogeneous_rollout"]
    faulty = subscriber_plan(_config(seed=3, faults=names)).places
    is_treated = np.array([period is not None for period in calm.first_treated_periods])
    growth = np.log(faulty.factors / calm.factors)
    assert np.allclose(growth[~is_treated], 0.0)
    assert np.allclose(growth[is_treated], 0.02 * np.arange(calm.n_weeks))
    assert set(calm.intensities.ravel()) == {0.0, 1.0}
    assert len(set(faulty.intensities.ravel().round(6))) > 5


def test_few_draws_have_the_moments_of_their_distribution() -> None:
    draws, n = Draws(seed=1, world="test"), 40_000
    uniform, normal = draws.few_uniforms("u", np.arange(n)), draws.few_normals("z", np.arange(n))
    assert abs(uniform.mean() - 0.5) < 4 * (1 / 12 / n) ** 0.5
    assert abs(normal.mean()) < 4 / n**0.5
    assert abs(normal.var() - 1.0) < 4 * (2 / n) ** 0.5
    assert abs(np.corrcoef(uniform, normal)[0, 1]) < 4 / n**0.5
    assert not np.allclose(uniform, Draws(seed=2, world="test").few_uniforms("u", np.arange(n)))
