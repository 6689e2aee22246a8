"""The vouchers of the passengers: their trips, the truth of both arms, and the analyses of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from scipy import stats

from causal.core import plan
from causal.core.pandas_engine import PandasEngine
from causal.core.result import Result
from causal.core.spec import validate
from causal.experiments import surrogate_index
from jobs import generate
from jobs.analyze import run_all
from jobs.runtime import analyses, truths
from jobs.runtime.cli import main
from jobs.runtime.context import Context
from jobs.runtime.progress import Progress
from jobs.runtime.settings import load_settings
from tests.world_tables import check_table
from transforms.synthetic.passengers.lives import rate_draw_given_platform
from transforms.synthetic.passengers.tables import (
    TRUTH_EFFECTS,
    TRUTH_VOUCHERS,
    VOUCHERS,
)
from transforms.synthetic.passengers.vouchers import METRICS

pytestmark = pytest.mark.usefixtures("many_small_queries")

SIZE = 4_000
Frames = Mapping[str, pd.DataFrame]


def _config(**given: object) -> generate.GenerateConfig:
    assert generate.JOB.defaults is not None
    chosen = {"world": "passengers", "size": SIZE, "seed": 7, **given}
    return validate(generate.GenerateConfig, {**generate.JOB.defaults({}), **chosen})


def _made(spark: SparkSession, *names: str, n_partitions: int = 2, **given: object) -> Frames:
    """Some tables of a world, in the order of their keys."""
    config = _config(**given)
    units = {"passenger_ids": spark.range(0, config.size, 1, n_partitions)}
    made = generate.JOB.build(config, units)
    assert generate.JOB.finish is not None
    made = {**made, **generate.JOB.finish(config, made)}
    tables = {name: made[name].toPandas() for name in names}
    return {
        name: frame.sort_values(list(frame.columns[:2]), ignore_index=True)
        for name, frame in tables.items()
    }


@pytest.fixture(scope="module")
def world(spark: SparkSession) -> Frames:
    names = (VOUCHERS.name, TRUTH_VOUCHERS.name, TRUTH_EFFECTS.name, "passenger_trips")
    return _made(spark, *names, "passengers")


@pytest.mark.parametrize("table", [VOUCHERS, TRUTH_VOUCHERS, TRUTH_EFFECTS], ids=lambda t: t.name)
def test_tables_have_unique_keys_and_no_missing_values(table: Any, world: Frames) -> None:
    check_table(table, world[table.name])


def test_partitions_do_not_matter(spark: SparkSession, world: Frames) -> None:
    names = (VOUCHERS.name, TRUTH_VOUCHERS.name, TRUTH_EFFECTS.name)
    for name, frame in _made(spark, *names, n_partitions=5).items():
        keys = [column for column in frame.columns if column not in ("value", *METRICS)]
        pd.testing.assert_frame_equal(
            frame.sort_values(keys, ignore_index=True),
            world[name].sort_values(keys, ignore_index=True),
            check_exact=True,
        )


def _seen(world: Frames, days: int) -> pd.DataFrame:
    """Number and sum of each passenger's trips in the first days, from the trips themselves."""
    trips = world["passenger_trips"].merge(world["passengers"], on="passenger_id")
    age = trips["started_at"] - pd.to_datetime(trips["registered_on"])
    first = trips[age < pd.Timedelta(days=days)].groupby("passenger_id")["fare"]
    everyone = world["passengers"]["passenger_id"]
    return first.agg(["size", "sum"]).reindex(everyone).fillna(0.0)


def test_who_has_no_voucher_does_what_the_trips_say(world: Frames) -> None:
    rows = world[VOUCHERS.name].set_index("passenger_id")
    plain = rows[rows["variant"] != "voucher"]
    for days, spend in ((14, "spend_14"), (84, "spend_84")):
        seen = _seen(world, days)
        known = plain[plain[spend].notna()]
        expected = seen.loc[known.index, "sum"].to_numpy()
        assert known[spend].to_numpy() == pytest.approx(expected, abs=1e-6)
    assert (plain["trips_14"] == _seen(world, 14).loc[plain.index, "size"]).all()
    is_over = pd.to_datetime(rows["registered_on"]) <= pd.Timestamp("2025-10-13") + pd.Timedelta(
        days=56
    )
    assert (rows["spend_84"].notna() == is_over).all()
    assert set(rows.loc[~is_over, "part"]) == {"voucher_trial"}


def test_what_is_seen_is_the_outcome_under_the_drawn_variant(world: Frames) -> None:
    rows = world[VOUCHERS.name]
    drawn = rows[rows["variant"].notna()].rename(columns={"part": "experiment"})
    both = drawn.merge(
        world[TRUTH_VOUCHERS.name],
        on=["experiment", "passenger_id", "variant"],
        suffixes=("", "_truth"),
    )
    assert len(both) == len(drawn)
    for name in METRICS:
        known = both[name].notna()
        assert (both.loc[known, name] == both.loc[known, f"{name}_truth"]).all()
    shares = drawn.groupby("experiment")["variant"].apply(lambda arm: (arm == "voucher").mean())
    assert (abs(shares - 0.5) < 4 * 0.5 / drawn.groupby("experiment").size() ** 0.5).all()


def _either(world: Frames) -> tuple[pd.DataFrame, pd.DataFrame]:
    truth = world[TRUTH_VOUCHERS.name].set_index(["experiment", "passenger_id"]).sort_index()
    without = truth[truth["variant"] == "control"].drop(columns="variant")
    return without, truth[truth["variant"] == "voucher"].drop(columns="variant")


def test_a_voucher_moves_those_alone_who_start_anew(world: Frames) -> None:
    without, treated = _either(world)
    restarted = without["is_restarted"]
    assert not without.loc[restarted, "has_ridden_14"].any()
    pd.testing.assert_frame_equal(treated[~restarted], without[~restarted])
    idle = without[~without["has_ridden_14"]]
    assert abs(idle["is_restarted"].mean() - 0.5) < 4 * 0.5 / len(idle) ** 0.5
    # Who starts anew lives as passengers of the same platform do: as many of them ride.
    platform = world[VOUCHERS.name].set_index("passenger_id")["is_first_platform"]
    is_first = platform.reindex(without.index.get_level_values("passenger_id")).to_numpy()
    ridden = without["has_ridden_14"].to_numpy()
    expected = np.where(is_first, ridden[is_first].mean(), ridden[~is_first].mean())
    off = treated["has_ridden_14"].to_numpy()[restarted] - expected[restarted]
    assert abs(off.mean()) < 4 * off.std() / len(off) ** 0.5


def test_true_effects_are_means_over_both_outcomes(world: Frames) -> None:
    without, treated = _either(world)
    effects = world[TRUTH_EFFECTS.name].set_index(["design", "metric", "scale"])["value"]
    assert len(effects) == 2 * len(METRICS) * 2
    for design in ("voucher_pilot", "voucher_trial"):
        for name in METRICS:
            base = without.loc[design, name].mean()
            change = treated.loc[design, name].mean() - base
            assert effects[design, name, "absolute"] == pytest.approx(change, rel=1e-9)
            assert effects[design, name, "relative"] == pytest.approx(change / base, rel=1e-9)


def test_the_fault_changes_late_fares_alone(spark: SparkSession, world: Frames) -> None:
    faulty = _made(spark, TRUTH_VOUCHERS.name, faults=["direct_effect"])
    (without, treated), (same, direct) = _either(world), _either(faulty)
    pd.testing.assert_frame_equal(without, same)
    early = [name for name in METRICS if name != "spend_84"]
    pd.testing.assert_frame_equal(treated[early], direct[early])
    late = treated["spend_84"] - treated["spend_14"]
    more = direct["spend_84"] - direct["spend_14"]
    # Each fare is rounded to cents.
    assert more.to_numpy() == pytest.approx(1.3 * late.to_numpy(), abs=0.01 * 200)
    assert more.sum() == pytest.approx(1.3 * late.sum(), rel=1e-3)


def test_rates_of_a_new_start_are_those_of_the_platform(spark: SparkSession) -> None:
    """The drawn places have the distribution function u + k (u^2 - u) / 2."""
    world = generate.passenger_plan(_config())
    uniform = world.draws.uniform("test", "id")
    for platform, slope in ((0, 0.5 / 0.45), (1, -0.5 / 0.55)):
        drawn = (
            spark.range(4000)
            .withColumn("platform", F.lit(platform))
            .select(rate_draw_given_platform(world, uniform).alias("u"))
            .toPandas()["u"]
        )
        found = stats.kstest(drawn, lambda u, k=slope: u + k * (u**2 - u) / 2)
        assert found.pvalue > 1e-3
        assert abs(drawn.mean() - 0.5 - slope / 12) < 4 * 0.29 / 4000**0.5


@pytest.mark.slow
def test_the_analyses_cover_the_truth_by_their_jobs(tmp_path: Path) -> None:
    given = ["--size", "6000", "--seed", "2", "--warehouse", str(tmp_path)]
    assert main(["generate", "--world", "passengers", *given]) == 0
    context = Context(settings=load_settings(warehouse=str(tmp_path)), progress=Progress())
    readouts = run_all(context, analyses.default_specs("analyses/passengers"))
    found = truths.compare(readouts, truths.read_truths(context.lakehouse))

    assert [(item.analysis, item.effect.estimator) for item in found] == [
        ("voucher_pilot", "surrogate_index"),
        ("voucher_pilot", "welch"),
        ("voucher_trial", "surrogate_index"),
    ]
    assert all(item.is_covered for item in found), found
    for item in readouts:
        assert not [check for check in item.result.diagnostics if check.passed is False]


def _analysed(spark: SparkSession, **given: object) -> tuple[Mapping[str, Result], pd.Series]:
    """Results of the shipped specs by design, and the true effects."""
    made = _made(spark, VOUCHERS.name, TRUTH_EFFECTS.name, **given)
    engine = PandasEngine(made[VOUCHERS.name])
    results = {
        path.stem: plan.run(surrogate_index.estimate(analyses.load(path).spec), engine)
        for path in analyses.default_specs("analyses/passengers")
    }
    return results, made[TRUTH_EFFECTS.name].set_index(["design", "metric", "scale"])["value"]


def test_the_back_test_tells_of_a_direct_effect(spark: SparkSession) -> None:
    results, truth = _analysed(spark, size=8_000, faults=["direct_effect"])
    for design, result in results.items():
        found = result.effects[0]
        assert found.ci_upper < truth[design, "spend_84", "absolute"]
    pilot = results["voucher_pilot"]
    (surrogacy,) = [check for check in pilot.diagnostics if check.name.startswith("surrogacy")]
    assert surrogacy.passed is False
    actual = pilot.effects[1]
    assert actual.ci_lower < truth["voucher_pilot", "spend_84", "absolute"] < actual.ci_upper


@pytest.mark.validation
@pytest.mark.timeout(3600)
def test_effects_of_many_worlds_are_unbiased(spark: SparkSession) -> None:
    seeds = range(1, 41)
    scores: dict[tuple[str, str], list[float]] = {}
    for seed in seeds:
        results, truth = _analysed(spark, size=SIZE, seed=seed)
        for design, result in results.items():
            for effect in result.effects:
                is_rest = effect.estimator.startswith("unexplained")
                value = 0.0 if is_rest else truth[design, "spend_84", "absolute"]
                z = (effect.estimate - value) / effect.std_error
                scores.setdefault((design, effect.estimator), []).append(z)
    for name, found in scores.items():
        print(name, np.mean(found), np.std(found))  # noqa: T201 - a study
        assert abs(np.mean(found)) < 4 / len(seeds) ** 0.5, name
        assert 0.6 < np.std(found) < 1.4, name
