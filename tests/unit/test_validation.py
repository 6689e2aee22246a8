"""The studies of the suite judge rates as they say, and draw what they say they draw."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.validation import (
    estimators,
    planned_power,
    rates,
    report,
    sample_ratios,
    stopping_rules,
    worlds,
)
from causal.validation.estimators import Trial, run_trial
from causal.validation.rates import Range, Rate, Subject
from causal.validation.replication import Size, generator, one_by_one, spans
from causal.validation.studies import STUDIES

SUBJECT = Subject(
    study="estimators", metric_type="mean", estimator="welch",
    scenario="independent units, no effect, absolute", seed=1,
)  # fmt: skip
TINY = Size(replications=20, confirmation=0, seed=3)


def hits(count: int, n: int) -> np.ndarray:
    return np.arange(n) < count


@pytest.mark.parametrize(
    ("count", "n", "passed"),
    [(100, 2000, True), (80, 2000, True), (79, 2000, None), (150, 2000, None), (180, 2000, False)],
)
def test_a_promise_is_kept_open_or_broken(*, count: int, n: int, passed: bool | None) -> None:
    found = rates.share(SUBJECT, rates.REJECTION, hits(count, n), promised=estimators.SIZE)

    assert found.passed is passed
    assert found.is_open == (passed is None)
    assert found.ci_lower < found.estimate == count / n < found.ci_upper


def test_what_was_not_promised_is_neither_open_nor_broken() -> None:
    found = rates.share(SUBJECT, rates.POWER, hits(3, 10))

    assert found.passed is None
    assert not found.is_open


def test_clopper_and_pearson_hold_the_interval_of_the_table() -> None:
    found = rates.share(SUBJECT, rates.POWER, hits(10, 100))

    assert (found.ci_lower, found.ci_upper) == pytest.approx((0.0490047, 0.1762226), abs=1e-7)


@pytest.mark.parametrize(("power", "passed"), [(1.0, True), (1.12, None), (1.3, False)])
def test_uniform_pvalues(*, power: float, passed: bool | None) -> None:
    """A sample as even as can be, then pushed towards zero."""
    even = (np.arange(2000) + 0.5) / 2000
    found = rates.uniformity(SUBJECT, even**power, n_tests=40, n_promised=2000)

    assert found.passed is passed


def test_a_range_of_shares_ends_at_zero_and_one() -> None:
    assert Range.around(0.99, slack=0.03) == Range(lower=pytest.approx(0.96), upper=1.0)


def test_experiments_do_not_depend_on_how_they_are_parted() -> None:
    def trial(numbers: range) -> pd.DataFrame:
        return run_trial(
            Trial(
                design="strata", metrics=("mean", "ratio"), has_effect=True, numbers=numbers, seed=5
            )
        )

    whole = trial(range(4))
    parts = pd.concat([trial(part) for part in spans(0, 4, length=3)], ignore_index=True)

    pd.testing.assert_frame_equal(whole, parts)
    assert not whole["pvalue"].duplicated().any()


def test_generators_differ_by_every_name() -> None:
    names = [("a", 1), ("a", 2), ("b", 1)]
    draws = {float(generator(7, *name).random()) for name in names}
    draws.add(float(generator(8, "a", 1).random()))

    assert len(draws) == 4
    assert float(generator(7, "a", 1).random()) in draws


def levels(frame: pd.DataFrame) -> Mapping[str, float]:
    """Each metric's level, from its definition."""
    followed = frame[frame["days"] >= 7]
    # Leaving days are drawn before they are censored at 0 to 42 days, independent of them.
    later = frame[frame["tracked_days"] >= 14]
    return {
        "mean": frame["profit"].mean(),
        "proportion": frame["bought"].mean(),
        "ratio": frame["orders"].sum() / frame["sessions"].sum(),
        "count": frame["visits"].mean(),
        "quantile_50": frame["latency"].quantile(0.5),
        "quantile_90": frame["latency"].quantile(0.9),
        "retention": followed["kept"].mean(),
        "retention_censored": 1 - (later["churn_day"] <= 14).mean(),
    }


def test_true_effects_are_those_of_the_draws() -> None:
    """From 400 experiments: 128,000 units in control, 192,000 in treatment."""
    rng = np.random.default_rng(1)
    everyone = pd.concat([worlds.units(rng, has_effect=True) for _ in range(400)])
    bound = everyone["spend"].quantile(0.99)
    everyone["bounded"] = everyone["spend"].clip(upper=bound)
    arms = [everyone[everyone["variant"] == arm] for arm in (worlds.CONTROL, worlds.TREATMENT)]
    control, treatment = ({**levels(arm), "winsorised_mean": arm["bounded"].mean()} for arm in arms)
    truths = worlds.truths()

    assert set(truths) == set(control) == set(worlds.METRICS)
    for name, truth in truths.items():
        assert control[name] == pytest.approx(truth.level, rel=0.02), name
        gap = treatment[name] - control[name]
        assert gap == pytest.approx(truth.absolute, rel=0.1), name
        assert truth.on("relative") == truth.absolute / truth.level


def test_homes_have_the_levels_of_units_and_hang_together() -> None:
    rng = np.random.default_rng(2)
    drawn = [worlds.homes(rng, has_effect=False) for _ in range(250)]
    everyone = pd.concat(
        [frame.assign(home=frame["home"] + 60 * at) for at, frame in enumerate(drawn)]
    )
    truths = worlds.truths()
    for name, level in levels(everyone).items():
        if name != "retention_censored":
            assert level == pytest.approx(truths[name].level, rel=0.02), name
    latency = np.log(everyone["latency"])
    means, sizes = (
        latency.groupby(everyone["home"]).transform("mean"),
        everyone.groupby("home").size(),
    )
    within = ((latency - means) ** 2).sum() / (len(everyone) - len(sizes))

    assert 1 - within / latency.var() == pytest.approx(0.1, abs=0.01)
    assert everyone.groupby("home")["variant"].nunique().max() == 1


def test_every_design_reads_its_metrics() -> None:
    found = estimators.study(Size(replications=6, confirmation=0, seed=1), one_by_one)
    table = found.rates
    read = table[table["quantity"] == rates.REJECTION]

    assert list(table.columns) == list(Rate.__annotations__)
    assert set(read["metric_type"]) == {*worlds.METRICS, estimators.SRM}
    assert set(read["estimator"]) >= {
        "welch", "cuped", "post_stratified", "post_stratified_cuped", "cluster_robust_cr1",
        "cuped_cr1", "cluster_robust_cr2", "cuped_cr2", "quantile", "quantile_cr2", "kaplan_meier",
    }  # fmt: skip
    assert (read["n_replications"] == 6).all()
    assert (table.loc[table["quantity"] == rates.COVERAGE, "n_replications"] == 3).all()
    assert found.pvalues.groupby(["metric_type", "estimator"])["count"].sum().eq(6).all()


def one_design(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    design = dataclasses.replace(estimators.DESIGNS["clusters, cr1"], **changes)
    monkeypatch.setattr(estimators, "DESIGNS", {"of a test": design})
    estimators._spec_of.cache_clear()


def test_errors_that_take_homes_for_units_break_the_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one_design(monkeypatch, metrics=("mean",), options={})
    found = estimators.study(Size(replications=120, confirmation=0, seed=1), one_by_one).rates
    is_raw = found["estimator"] == "welch_cr1"
    sizes = found[is_raw & (found["quantity"] == rates.REJECTION)]

    assert len(sizes) == 2
    assert report.is_broken(sizes).all()
    assert (sizes["estimate"] > 0.1).all()
    estimators._spec_of.cache_clear()


def test_new_experiments_decide_an_open_promise_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rate is that of experiments made anew here, by the numbers of a second round only."""
    shares = {worlds.CONTROL: 0.5, worlds.TREATMENT: 0.5}
    one_design(monkeypatch, metrics=("mean", "proportion"), options={"expected_shares": shares})
    rounds: list[list[Trial]] = []

    def recorded(work: Any, trials: Any) -> Any:
        rounds.append(list(trials))
        return one_by_one(work, trials)

    first = estimators.study(Size(replications=20, confirmation=0, seed=2), one_by_one).rates
    final = estimators.study(Size(replications=20, confirmation=2, seed=2), recorded).rates
    assert len(rounds) == 2
    keys = ["metric_type", "estimator"]
    assert list(final[keys].itertuples()) == list(first[keys].itertuples())
    for has_effect, n in ((False, 20), (True, 10)):
        label = ", effect," if has_effect else ", no effect,"
        mine = first[first["scenario"].str.contains(label)]
        undecided = set(mine.loc[report.is_open(mine), "metric_type"]) - {estimators.SRM}
        assert undecided, label
        again = [trial for trial in rounds[1] if trial.has_effect == has_effect]
        assert {trial.metrics for trial in again} == {tuple(sorted(undecided))}
        assert [at for trial in again for at in trial.numbers] == list(range(n, n + 40))
        made = {
            "first": run_trial(
                Trial(
                    design="of a test", metrics=("mean", "proportion"), has_effect=has_effect,
                    numbers=range(n), seed=2,
                )
            ),
            "again": pd.concat([run_trial(trial) for trial in again]),
        }  # fmt: skip
        shown = final[final["scenario"].str.contains(label)]
        rejecting = shown["quantity"].isin([rates.REJECTION, rates.POWER])
        for row in shown[rejecting].to_dict("records"):
            is_new = row["metric_type"] in {*undecided, estimators.SRM}
            found = made["again" if is_new else "first"]
            is_own = (found["metric"] == row["metric_type"]) & (
                found["estimator"] == row["estimator"]
            )
            own = found[is_own & (found["scale"] == row["scenario"].split(", ")[-1])]
            assert row["n_replications"] == len(own) == (40 if is_new else n)
            if row["quantity"] == rates.REJECTION or row["scenario"].endswith("absolute"):
                assert row["estimate"] == (own["pvalue"] < estimators.ALPHA).mean()
    estimators._spec_of.cache_clear()


def test_uniformity_is_promised_of_a_number_of_experiments() -> None:
    """Of five samples of that number the middle one counts."""
    rng = np.random.default_rng(1)
    powers = (1.0, 1.3, 1.02, 1.04, 1.3)
    samples = [rng.random(2000) ** power for power in powers]
    pvalues = np.concatenate(samples)
    each = [
        stats.kstwobign.sf(math.sqrt(2000) * stats.kstest(sample, "uniform").statistic)
        for sample in samples
    ]
    distance = stats.kstest(pvalues, "uniform").statistic
    together = stats.kstwobign.sf(math.sqrt(10_000) * distance)

    def pvalue(n_promised: int) -> float:
        return rates.uniformity(SUBJECT, pvalues, n_tests=10, n_promised=n_promised).estimate

    assert pvalue(2000) == pytest.approx(np.median(each), rel=1e-9)
    assert pvalue(10_000) == pvalue(7000) == pytest.approx(together, rel=1e-9)
    assert together < 1e-6 < rates.KS_ALPHA < pvalue(2000)


def test_stopping_rules_in_few_paths() -> None:
    table = stopping_rules.study(TINY, one_by_one).rates
    stops = table[table["quantity"] == rates.REJECTION].set_index(["scenario", "estimator"])

    assert not report.is_broken(table).any()
    assert len(stops.index.unique()) == len(stops)
    for n_looks, known in stopping_rules.PEEKING.items():
        found = stops.loc[(f"{n_looks} equal looks, no effect", "fixed horizon, looked at")]
        assert found["ci_lower"] - 0.02 < known < found["ci_upper"] + 0.02
    always = stops.loc[stops.index.get_level_values(1).isin(stopping_rules.ALWAYS_VALID)]
    assert (always["estimate"] < 0.055).all()


def test_looking_at_a_fixed_test_would_break_the_promise_of_a_rule() -> None:
    z = np.random.default_rng(1).standard_normal((4000, 5)).cumsum(axis=1) / np.sqrt(range(1, 6))
    crossed = (np.abs(z) > 1.96).any(axis=1)
    found = rates.share(SUBJECT, rates.REJECTION, crossed, promised=stopping_rules.LEVEL)

    assert found.passed is False


def test_sample_ratios_in_few_experiments() -> None:
    table = sample_ratios.study(TINY, one_by_one).rates

    assert not report.is_broken(table).any()
    wrong = table[(table["quantity"] == rates.POWER) & (table["estimator"] == "chi-square")]
    assert (wrong["estimate"] > 0.85).all()


def test_planned_power_in_few_experiments() -> None:
    table = planned_power.study(TINY, one_by_one).rates

    assert len(table) == len(planned_power.WORLDS)
    assert not report.is_broken(table).any()
    assert (table["target_upper"] - table["target_lower"]).between(0.0599, 0.0601).all()


RUN = report.Run(
    command="./spark-submit.sh validate",
    seed=1,
    replications=2000,
    is_confirmed=True,
    versions={"numpy": "2"},
)


def test_the_page_marks_what_is_broken_and_open() -> None:
    table = rates.frame(
        [
            rates.share(SUBJECT, rates.REJECTION, hits(count, 2000), promised=estimators.SIZE)
            if name == "welch"
            else rates.share(
                dataclasses.replace(SUBJECT, estimator=name), rates.REJECTION, hits(count, 2000),
                promised=estimators.SIZE,
            )
            for name, count in (("welch", 100), ("cuped", 130), ("wrong", 200))
        ]
    )  # fmt: skip
    text = report.page(table, RUN, figures={"estimators": ["images/x.png"]})

    assert "| mean | `welch` | 5.0 |" in text
    assert "| mean | `cuped` | *6.5* |" in text
    assert "| mean | `wrong` | **10.0** |" in text
    assert "| Estimators | 3 | 1 | 1 | 1 |" in text
    assert "- broken: estimators, mean, wrong" in text
    assert "](images/x.png)" in text
    assert "seed 1, 2,000 experiments" in text
    pvalues = pd.DataFrame({"metric_type": ["mean"], "count": [3]})
    data = json.loads(report.as_json(table, pvalues, RUN))
    assert [row["passed"] for row in data["rates"]] == [True, None, False]
    assert data["seed"] == 1


def test_every_study_has_a_place_on_the_page() -> None:
    from causal.validation import wording

    assert set(STUDIES) == set(wording.TITLES) == set(wording.TEXTS) == set(report._TABLES)
