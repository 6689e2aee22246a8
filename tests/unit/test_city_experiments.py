"""Experiments on cities in the world of drivers: as drawn, as true, and as the suite reads them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal.core import plan as plans
from causal.core import registry
from causal.core.errors import SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.spec import Spec, validate
from causal.quasi.geo import geo_design
from jobs.generate import JOB, GenerateConfig, driver_plan
from jobs.runtime import analyses, places, truths
from tests.world_tables import check_table
from transforms.synthetic import worlds
from transforms.synthetic.tables import TRUTH_DRIVER_EFFECTS

Frames = Mapping[str, pd.DataFrame]
SPECS = (
    "peak_bonus",
    "city_campaign",
    "priority_dispatch_exposure",
    "priority_dispatch_direct",
)
QUICK: Mapping[str, Mapping[str, object]] = {
    "peak_bonus": {"randomisation_draws": 0},
    "city_campaign": {"n_replications": 60},
}
FLAT = {"city_sd": 0.0, "slot_sd": 0.0}
STILL = {"city_sd": 0.0, "swing_sd": 0.0, "growth_sd": 0.0, "week_sd": 1e-4}


def made(seed: int = 7, **blocks: dict[str, Any]) -> tuple[Frames, dict[truths.Key, float]]:
    """The tables of cities and their true effects, with keys of some blocks replaced."""
    assert JOB.defaults is not None
    defaults: Any = JOB.defaults({})
    for name, changed in blocks.items():
        defaults["drivers"][name] |= changed
    drawn = driver_plan(validate(GenerateConfig, {**defaults, "seed": seed}))
    frames = {
        table.name: pd.DataFrame(rows(drawn), columns=list(table.columns))
        for table, rows in worlds.CITY_ROWS
    }
    effects = pd.DataFrame(
        worlds.city_effect_rows(drawn), columns=list(TRUTH_DRIVER_EFFECTS.columns)
    )
    check_table(TRUTH_DRIVER_EFFECTS, effects)
    keys = effects[["world", "design", "estimand", "metric", "term", "scale"]]
    known = zip(keys.itertuples(index=False, name=None), effects["value"], strict=True)
    return frames, dict(known)


def spec_of(name: str, **options: object) -> Spec:
    """A spec of conf/analyses, with some options replaced."""
    spec: Any = analyses.load(places.conf("analyses", f"{name}.yaml")).spec
    return spec.model_copy(update={"options": spec.options.model_copy(update=options)})


def beside(spec: Spec, seed: int, **blocks: dict[str, Any]) -> pd.DataFrame:
    """Effects beside their truth."""
    frames, known = made(seed, **blocks)
    engine = PandasEngine(frames[str(spec.source.table)])
    result = plans.run(registry.method(spec.method).estimate(spec), engine)
    rows = [(effect, truths.truth_of(spec, effect, known)) for effect in result.effects]
    return pd.DataFrame(
        [
            {"term": f"{e.term} {e.scale}", "estimate": e.estimate, "truth": truth,
             "z": (e.estimate - truth) / e.std_error,
             "is_absolute": e.scale == "absolute", "is_covered": e.ci_lower <= truth <= e.ci_upper}
            for e, truth in rows if truth is not None
        ]
    )  # fmt: skip


def test_tables_are_whole_and_follow_the_seed() -> None:
    first, again, other = made(7), made(7), made(8)
    for table, _ in worlds.CITY_ROWS:
        check_table(table, first[0][table.name])
        pd.testing.assert_frame_equal(first[0][table.name], again[0][table.name])
        assert not first[0][table.name].equals(other[0][table.name])
    assert first[1] == again[1] != other[1]


def test_blocks_are_drawn_one_by_one_by_city() -> None:
    slots = made()[0]["driver_switchback_slots"]
    blocks = slots.groupby(["city", "block"])
    assert slots["city"].nunique() == 16
    assert (blocks["treatment"].nunique() == 1).all()
    assert (blocks.size() == 3).all()
    treated = blocks["treatment"].first().unstack()
    assert abs(treated.to_numpy().mean() - 0.5) < 4 * 0.5 / np.sqrt(treated.size)
    assert np.abs(np.corrcoef(treated)[np.triu_indices(16, 1)]).mean() < 0.2
    assert slots["slot"].min() == 28 * 6


def test_the_campaign_has_a_long_history_and_a_random_sample() -> None:
    weeks = made()[0]["driver_campaign_weeks"]
    starts = weeks.groupby("city")["first_treated_period"].first()
    assert starts.notna().sum() == 8
    assert set(starts.dropna()) == {4}
    assert (weeks["period"].min(), weeks["period"].max()) == (-52, 7)


def test_the_plan_of_the_campaign_promises_what_the_campaign_adds() -> None:
    """The plan sees the weeks before the start only, and finds the lift that is put in after it."""
    spec: Any = analyses.load(
        places.conf("plans", "city_campaign.yaml"), model=geo_design.SPEC
    ).spec
    quick = spec.options.model_copy(update={"n_draws": 4, "sizes": [8]})
    weeks = made()[0]["driver_campaign_weeks"]
    found = plans.run(
        geo_design.estimate(spec.model_copy(update={"options": quick})), PandasEngine(weeks)
    )

    best = found.tables["plan"].iloc[0]
    assert best["n_treated"] == 8
    assert best["aa_lower"] <= 0.05
    assert 0.0 < best["mde"] < 0.04
    assert found.tables["series"]["period"].max() == 3


def test_lasting_treatment_is_what_a_washed_out_switchback_finds() -> None:
    """Without noise the estimate is the truth; without a wash-out it falls short."""
    flat = {"switchback": FLAT}
    exact = beside(spec_of("peak_bonus", randomisation_draws=0), 7, **flat)
    assert exact["estimate"].to_numpy() == pytest.approx(exact["truth"], rel=1e-4)
    short = beside(spec_of("peak_bonus", randomisation_draws=0, wash_out=0), 7, **flat)
    ratio = (short["estimate"] / short["truth"]).item()
    assert ratio == pytest.approx(1 - 0.4 * 1 / 3, abs=0.02)


def test_carry_over_is_kept_beside_the_whole_effect() -> None:
    known = made()[1]
    names = ("trips_per_driver", "treated - control")
    both = {
        estimand: known["drivers", "peak_bonus", estimand, *names, "absolute"]
        for estimand in ("ate", "carry_over")
    }
    assert both["carry_over"] == pytest.approx(0.4 * both["ate"])


def test_without_noise_the_campaign_is_what_it_adds() -> None:
    found = beside(spec_of("city_campaign", n_replications=20), 7, campaign={**STILL, "lift": 0.1})
    assert set(found["term"]) == {"average absolute", "cumulative absolute", "average relative"}
    assert found["estimate"].to_numpy() == pytest.approx(found["truth"], rel=1e-3)


@pytest.mark.parametrize("name", SPECS)
def test_the_specs_of_conf_cover_the_truth(name: str) -> None:
    check_coverage(name, range(1, 7))


@pytest.mark.validation
@pytest.mark.parametrize("name", SPECS)
def test_the_specs_of_conf_cover_the_truth_of_many_worlds(name: str) -> None:
    check_coverage(name, range(101, 401))


def check_coverage(name: str, seeds: range) -> None:
    spec = spec_of(name, **QUICK.get(name, {}))
    rows = pd.concat([beside(spec, seed) for seed in seeds])
    assert len(rows) >= len(seeds)
    for term, found in rows[rows["is_absolute"]].groupby("term"):
        n, z = len(found), found["z"]
        covered = found["is_covered"].mean()
        seen = (
            f"{name}, {term}: {n} worlds, coverage {covered:.3f}, z {z.mean():.2f}, {z.std():.2f}"
        )
        assert abs(z.mean()) * np.sqrt(n) < 4, seen
        assert (z**2).mean() < 1 + 4 * np.sqrt(2 / n), seen
        assert covered > 0.95 - 4 * np.sqrt(0.95 * 0.05 / n), seen


def test_exposures_have_the_probabilities_of_the_design() -> None:
    units = made()[0]["driver_dispatch_units"]
    cities = units.groupby("city")
    assert (cities["saturation"].nunique() == 1).all()
    assert cities["saturation"].first().value_counts().to_dict() == {0: 14, 30: 13, 60: 13}
    weights = units.groupby("exposure")["inverse_probability"].unique()
    expected = {
        "untreated_0": 40 / 14,
        "treated_30": 40 / 13 / 0.3,
        "untreated_30": 40 / 13 / 0.7,
        "treated_60": 40 / 13 / 0.6,
        "untreated_60": 40 / 13 / 0.4,
    }
    assert set(weights.index) == set(expected)
    assert all(weights[name] == pytest.approx(value) for name, value in expected.items())
    # Horvitz and Thompson's count of all drivers, from each exposure
    totals = units.groupby("exposure")["inverse_probability"].sum() / len(units)
    assert totals.to_numpy() == pytest.approx(1.0, abs=0.4)


def test_the_direct_effect_is_that_on_the_drivers_of_the_most_treated_cities() -> None:
    frames, known = made()
    units = frames["driver_dispatch_units"]
    there = units[units["saturation"] == 60]
    without = there["trips"] / np.where(there["treatment"] == 1, 1.12, 1.0)
    true = known["drivers", "priority_dispatch", "direct", "trips", "treatment", "absolute"]
    assert true == pytest.approx(0.12 * without.mean(), rel=1e-4)


def test_a_plain_comparison_of_drivers_misses_the_effects() -> None:
    """Where drivers affect each other it is neither the own effect nor that of treating a city.

    The weighted contrasts of exposures cover their truth in the same worlds.
    """
    naive = validate(
        registry.method("ab").SPEC,
        {
            "name": "naive", "source": {"table": "driver_dispatch_units"}, "method": "ab",
            "options": {
                "unit": "participant", "variant": "treatment", "control": "0",
                "metrics": [{"name": "trips", "type": "mean", "column": "trips",
                             "covariates": ["pre_trips"]}],
            },
        },
    )  # fmt: skip
    n_covered, n_read = 0, 0
    for seed in range(21, 24):
        frames, known = made(seed)
        units = frames["driver_dispatch_units"]
        text = units.assign(treatment=units["treatment"].astype(str))
        found = plans.run(registry.method("ab").estimate(naive), PandasEngine(text))
        (plain,) = [e for e in found.effects if e.scale == "absolute" and e.estimator == "cuped"]
        for estimand, term in (("direct", "treatment"), ("total", "exposure=treated_60")):
            true = known["drivers", "priority_dispatch", estimand, "trips", term, "absolute"]
            assert not plain.ci_lower <= true <= plain.ci_upper
        for name in SPECS[2:]:
            rows = beside(spec_of(name), seed)
            n_covered, n_read = n_covered + int(rows["is_covered"].sum()), n_read + len(rows)
    assert n_read == 3 * 5
    assert n_covered >= n_read - 3


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("campaign.n_treated", 40, "none of the 40 cities untreated"),
        ("switchback.n_cities", 41, "more cities than there are"),
        ("dispatch.saturations", [30, 60], "0 must be among them"),
    ],
)
def test_a_wrong_parameter_is_refused(path: str, value: object, text: str) -> None:
    block, key = path.split(".")
    with pytest.raises(SpecError, match=text):
        made(7, **{block: {key: value}})
