"""An experiment is read look by look, and its scorecard says what the numbers say."""

import dataclasses
import datetime as dt
import html.parser
import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal.checks import health
from causal.core.errors import DataError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.experiments import ab
from causal.experiments.arm_contrasts import compare
from causal.experiments.arm_posteriors import BetaPrior, beta_posterior
from causal.experiments.bayes import NormalPrior
from causal.experiments.decision import decide
from causal.experiments.roi import Economics, roi
from causal.experiments.sequential import evaluate
from causal.experiments.sequential_looks import Look
from causal.scorecard import experiment_readout, looks, wording
from causal.scorecard.entry_days import entry_days
from causal.scorecard.experiment_readout import ExperimentReadout
from causal.scorecard.report import decision_rows, report, report_json
from causal.scorecard.scorecard_figures import figures
from causal.scorecard.scorecard_page import page
from causal.scorecard.scorecard_text import markdown
from tests import experiment_worlds as worlds
from tests.experiment_worlds import PROVENANCE, TERM

USERS = worlds.users(5000)


@pytest.fixture(scope="module")
def readout() -> ExperimentReadout:
    return worlds.looked(worlds.spec(), [USERS[:1500], USERS[:3000], USERS])


def test_the_first_look_goes_on_and_does_not_ship() -> None:
    found = worlds.looked(worlds.spec(), [USERS[:1500]])
    (decision,) = found.decisions.decisions

    assert found.sequential[TERM].decision == "continue"
    assert decision.verdict == "needs_more_data"
    assert [reason.rule for reason in decision.failed if reason.rule == "sequential"]
    alone = decide(run(ab.estimate(found.spec), PandasEngine(USERS)), found.spec.rule)
    assert alone.decisions[0].verdict == "ship"


def test_the_looks_are_tested_as_the_sequential_module_tests_them(
    readout: ExperimentReadout,
) -> None:
    options = readout.spec.sequential
    assert options is not None
    effects = [
        run(ab.estimate(readout.spec), PandasEngine(frame)).effects[0]
        for frame in (USERS[:1500], USERS[:3000], USERS)
    ]
    expected = evaluate(
        [
            Look(name=str(n), estimate=item.estimate, std_error=item.std_error,
                 information=float(n))
            for n, item in zip((1500, 3000, 5000), effects, strict=True)
        ],
        options,
    )  # fmt: skip
    found = readout.sequential[TERM]

    assert (found.decision, found.stopped_at) == (expected.decision, expected.stopped_at)
    assert found.adjusted == expected.adjusted
    for ours, theirs in zip(found.looks, expected.looks, strict=True):
        assert dataclasses.replace(ours, name="") == dataclasses.replace(theirs, name="")
    rows = {item.estimator: item for item in readout.result.effects}
    assert rows["cuped_sequential"].pvalue == expected.looks[-1].pvalue
    assert rows["cuped_sequential"].ci_lower == expected.looks[-1].ci_lower
    assert rows["cuped_sequential"].estimate == effects[-1].estimate


def test_a_stop_at_this_look_is_an_effect_of_its_own() -> None:
    found = worlds.looked(worlds.spec(), [USERS[:1500], USERS[:3000]])
    tested = found.sequential[TERM]
    assert tested.stopped_at == 2
    assert tested.adjusted is not None
    rows = {(item.estimator, item.scale): item for item in found.result.effects}

    at_stop = rows["cuped_stage_wise", "absolute"]
    assert (at_stop.estimate, at_stop.ci_lower, at_stop.ci_upper, at_stop.pvalue) == (
        tested.adjusted.estimate,
        tested.adjusted.ci_lower,
        tested.adjusted.ci_upper,
        tested.adjusted.pvalue,
    )
    assert found.decisions.decisions[0].verdict == "ship"


def test_a_stop_for_harm_rolls_back() -> None:
    worse = worlds.users(5000, lift=-1.0)
    found = worlds.looked(worlds.spec(), [worse[:1500], worse])
    (decision,) = found.decisions.decisions

    assert found.sequential[TERM].decision == "stop_efficacy"
    assert decision.verdict == "roll_back"
    assert "worse" in next(r.detail for r in decision.failed if r.rule == "sequential")


def test_a_futility_stop_holds() -> None:
    same = worlds.users(6000, lift=0.0, seed=5)
    sequential = {
        "information": "units", "maximum_information": 6000, "planned_fractions": [0.5, 1.0],
        "futility": {"power": 0.8, "is_binding": True}, "alternative": "increase", "alpha": 0.025,
    }  # fmt: skip
    found = worlds.looked(worlds.spec(sequential=sequential), [same[:3000]])
    (decision,) = found.decisions.decisions

    assert found.sequential[TERM].decision == "stop_futility"
    assert decision.verdict == "hold"
    assert "lack of an effect" in decision.text


def test_a_metric_that_should_fall_ships_when_it_fell() -> None:
    fall = worlds.users(5000, lift=-1.0)
    metrics = [{"name": "profit", "type": "mean", "column": "profit", "role": "primary",
                "direction": "decrease", "covariates": ["before"]}]  # fmt: skip
    spec = worlds.spec(options={**worlds.SPEC["options"], "metrics": metrics})
    found = worlds.looked(spec, [fall[:1500], fall])

    assert found.decisions.decisions[0].verdict == "ship"
    assert found.roi[TERM].gain_per_year > 0


def test_a_red_check_blocks_the_decision_and_says_why() -> None:
    lost = USERS[(USERS["variant"] == "perk") | (USERS["user"] % 4 > 0)]
    found = worlds.looked(worlds.spec(), [lost])
    (decision,) = found.decisions.decisions

    assert decision.verdict == "hold"
    assert any("sample" in item.name for item in health.stops(found.result))
    assert found.stops
    made = page(found, PROVENANCE, {})
    assert "Stop: a health check or guardrail is red" in made
    assert wording.number(0.0) in made
    for reason in found.stops:
        assert reason.split(";")[0] in made


def test_the_sequential_ratio_is_of_all_looks(readout: ExperimentReadout) -> None:
    check = {item.name: item for item in readout.result.diagnostics}["sequential_sample_ratio"]
    arms = USERS["variant"].value_counts()

    assert check.passed
    assert f"{arms['perk']:,}" in check.detail
    assert "3 looks" in check.detail


def test_units_that_disappear_between_looks_are_said() -> None:
    found = worlds.looked(worlds.spec(sequential=None), [USERS[:3000], USERS[:2900]])
    checks = {item.name: item for item in found.result.diagnostics}

    assert checks["units_by_look"].passed is False
    assert checks["repeated_looks"].passed is False
    assert "sequential_sample_ratio" not in checks


def test_a_plan_changed_between_looks_blocks_the_decision() -> None:
    first = worlds.looked(worlds.spec(), [USERS[:1500]])
    changed = worlds.spec(sequential={"information": "units", "maximum_information": 5000})
    found = experiment_readout.read(
        changed,
        run(ab.estimate(changed), PandasEngine(USERS)),
        earlier=first.looks,
        as_of=dt.date(2026, 12, 1),
    )

    assert found.decisions.decisions[0].verdict == "hold"
    assert "give the experiment a new name" in found.stops[0]


def test_posteriors_take_the_prior_and_region_of_the_spec() -> None:
    spec = worlds.spec(
        bayes={"prior": {"sd": 0.02}, "rope": [-0.01, 0.01], "beta": {"alpha": 0.5, "beta": 0.5}}
    )
    found = worlds.looked(spec, [USERS])
    rows = found.result.tables["posteriors"].set_index(["metric", "scale", "posterior"])
    decides = rows.loc["profit", "relative", "effect"]
    plain = {(e.metric, e.scale): e for e in reversed(found.result.effects)}["profit", "relative"]

    assert abs(decides["mean"]) < abs(plain.estimate)
    assert (decides["rope_lower"], decides["rope_upper"]) == (-0.01, 0.01)
    assert found.decisions.decisions[0].gain.mean == decides["mean"]
    assert found.spec.rule.prior == NormalPrior(sd=0.02)
    kept = USERS.groupby("variant")["kept"].agg(["sum", "size"])
    arms = [
        beta_posterior(int(row["sum"]), n=int(row["size"]), prior=BetaPrior(alpha=0.5, beta=0.5))
        for row in (kept.loc["perk"], kept.loc["control"])
    ]
    expected = compare(arms[0], arms[1])
    beta = rows.loc["kept", "relative", "arms"]
    assert beta["median"] == pytest.approx(expected.relative.median, rel=1e-9)
    assert beta["prob_better"] == pytest.approx(expected.prob_greater, rel=1e-9)
    fall = rows.loc["refund_rate", "absolute", "effect"]
    assert fall["prob_better"] == pytest.approx(1 - fall["prob_positive"])


def test_the_return_is_that_of_the_measured_effect(readout: ExperimentReadout) -> None:
    effect = readout.result.effects[0]
    assert (effect.metric, effect.scale) == ("profit", "absolute")
    expected = roi(effect, Economics(**worlds.SPEC["roi"]))

    assert readout.roi[TERM].profit_per_year == expected.profit_per_year


# --- looks in order


def test_a_look_joins_those_before_it(readout: ExperimentReadout) -> None:
    at = looks.place(readout.looks, as_of=dt.date(2026, 11, 28))

    assert (at.look, len(at.held), at.has_followers) == (4, 0, False)
    assert list(dict.fromkeys(at.earlier["look"])) == [1, 2, 3]


def test_the_last_look_may_be_restated(readout: ExperimentReadout) -> None:
    at = looks.place(readout.looks, as_of=dt.date(2026, 11, 21))

    assert (at.look, at.has_followers) == (3, False)
    assert set(at.earlier["look"]) == {1, 2}


def test_a_look_before_others_is_refused(readout: ExperimentReadout) -> None:
    with pytest.raises(DataError, match="later ones were made already"):
        looks.place(readout.looks, as_of=dt.date(2026, 11, 10))


def test_an_earlier_look_can_be_shown_again_but_not_changed(readout: ExperimentReadout) -> None:
    at = looks.place(readout.looks, as_of=dt.date(2026, 11, 14))
    same = readout.looks[readout.looks["look"] == 2]

    looks.check_unchanged(same, at)
    moved = same.assign(
        estimate=same["estimate"] + np.where(same["metric"] == "profit", 0.001, 0.0)
    )
    with pytest.raises(DataError, match="cannot be restated: the estimate of profit"):
        looks.check_unchanged(moved, at)


def test_nothing_follows_a_final_look() -> None:
    found = worlds.looked(worlds.spec(), [USERS[:1500], USERS[:2000]], is_final=True)

    assert found.sequential[TERM].decision in {"stop_end", "stop_efficacy"}
    with pytest.raises(DataError, match="ended with an earlier look"):
        looks.place(found.looks, as_of=dt.date(2026, 12, 1))


def test_looks_after_the_planned_end_are_refused() -> None:
    spec = worlds.spec(sequential={"information": "units", "maximum_information": 2000})
    with pytest.raises(DataError, match="after the planned end"):
        worlds.looked(spec, [USERS[:2000], USERS[:3000]])


def test_a_look_that_lacks_the_metric_is_refused(readout: ExperimentReadout) -> None:
    table = readout.looks[(readout.looks["look"] != 2) | (readout.looks["metric"] != "profit")]
    with pytest.raises(DataError, match="looks lack the effect on profit"):
        looks.sequence(table, metric="profit", term=TERM, scale="absolute")


def test_days_are_read_in_every_form() -> None:
    days = [dt.date(2026, 11, 2), "2026-11-01", pd.Timestamp("2026-11-01 13:00"), None]
    found = entry_days(pd.DataFrame({"day": days, "n": [5, 1, 2, 4]}, dtype=object), "day")

    assert found.units == {dt.date(2026, 11, 1): 3, dt.date(2026, 11, 2): 5}
    assert (found.last, found.n_without) == (dt.date(2026, 11, 2), 4)
    with pytest.raises(DataError, match="holds what is no day"):
        entry_days(pd.DataFrame({"day": ["soon"], "n": [1]}), "day")


# --- the scorecard


class Reader(html.parser.HTMLParser):
    """Tags and texts of a page; fails on tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def made(readout: ExperimentReadout) -> str:
    return page(readout, PROVENANCE, figures(readout))


def read_page(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    return reader


def test_the_page_needs_nothing_else(made: str) -> None:
    reader = read_page(made)
    images = [attrs for tag, attrs in reader.tags if tag == "img"]

    assert reader.open == []
    assert len(images) == 3
    assert all(str(attrs["src"]).startswith("data:image/png;base64,iVBOR") for attrs in images)
    assert all(attrs["alt"] for attrs in images)
    assert not {"script", "link", "iframe"}.intersection(tag for tag, _ in reader.tags)
    assert "http" not in made.replace("http-equiv", "")


HOSTILE = '"><script>alert(1)</script> & <b>|x|</b> `rm` [y](z)'


def test_texts_are_not_markup() -> None:
    data: dict[str, Any] = {**worlds.SPEC["options"]}
    renamed = USERS.assign(variant=USERS["variant"].map({"perk": HOSTILE, "control": "control"}))
    spec = worlds.spec(
        description=HOSTILE, options={**data, "expected_shares": {"control": 1, HOSTILE: 1}}
    )
    found = worlds.looked(spec, [renamed])
    reader = read_page(page(found, PROVENANCE, figures(found)))

    assert reader.open == []
    assert "script" not in {tag for tag, _ in reader.tags}
    assert "b" not in {tag for tag, _ in reader.tags}
    assert HOSTILE in "".join(reader.texts)
    text = markdown(found, PROVENANCE)
    assert "<script>" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in rows}
    assert widths == {4, 8, 9}


def test_the_numbers_are_those_of_the_effects(readout: ExperimentReadout, made: str) -> None:
    shown = "".join(read_page(made).texts)
    text = markdown(readout, PROVENANCE)
    for effect in readout.result.effects:
        if effect.estimator in {"cuped", "welch"} and effect.metric != "profit":
            change = wording.change(effect.estimate, effect.scale)
            for where in (shown, text):
                assert f"{change} ({wording.interval(effect)})" in where
    (decision,) = readout.decisions.decisions
    assert wording.chance(decision.gain.prob_worse) in shown
    assert wording.number(readout.roi[TERM].profit_per_year.mean, is_signed=True) in shown
    assert "Roll the change out." in shown


def test_the_report_holds_every_number_unrounded(readout: ExperimentReadout) -> None:
    found = json.loads(report_json(readout, PROVENANCE))
    effects = {
        (item["metric"], item["term"], item["scale"]): item["estimate"] for item in found["effects"]
    }
    for effect in looks.trusted_effects(readout.result):
        assert effects[effect.metric, effect.term, effect.scale] == effect.estimate
    (decision,) = found["decisions"]
    assert decision["verdict"] == readout.decisions.decisions[0].verdict == "ship"
    assert decision["prob_worse"] == readout.decisions.decisions[0].gain.prob_worse
    assert len(decision["reasons"]) == len(readout.decisions.decisions[0].reasons)
    assert (
        found["sequential"][TERM]["looks"][0]["pvalue"] == readout.sequential[TERM].looks[0].pvalue
    )
    assert found["roi"][0]["profit_per_year"] == readout.roi[TERM].profit_per_year.mean
    assert found["look"] == 3
    assert found["provenance"]["version"] == 3


def test_infinite_ends_have_a_name_in_json() -> None:
    spec = worlds.spec(sequential={"information": "units", "maximum_information": 10**7})
    found = worlds.looked(spec, [USERS[:1500]])
    shown = json.loads(report_json(found, PROVENANCE))["sequential"][TERM]["looks"][0]

    assert found.sequential[TERM].looks[0].ci_lower == -np.inf
    assert (shown["ci_lower"], shown["ci_upper"]) == ("-Infinity", "Infinity")
    assert "\N{INFINITY}" in markdown(found, PROVENANCE)


def test_decision_rows_carry_the_return_and_the_test(readout: ExperimentReadout) -> None:
    (row,) = decision_rows(readout)

    assert row["sequential_decision"] == readout.sequential[TERM].decision
    assert row["profit_per_year"] == readout.roi[TERM].profit_per_year.mean
    assert {item["rule"] for item in json.loads(row["reasons"])} >= {"health", "gain", "sequential"}
    bare = worlds.looked(worlds.spec(sequential=None, roi=None), [USERS])
    (row,) = decision_rows(bare)
    assert row["sequential_decision"] is None
    assert row["profit_per_year"] is None
    assert report(bare, PROVENANCE)["roi"] == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1234.4, "1,234"), (-0.01234567, "\N{MINUS SIGN}0.01235"), (12.0, "12")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "< 0.1 %"), (1.0, "> 99.9 %"), (0.5, "50.0 %"), (0.0449, "4.5 %")]
)
def test_chances_never_claim_certainty(value: float, text: str) -> None:
    assert wording.chance(value) == text


def test_infinite_changes_are_shown_as_such() -> None:
    assert wording.change(-np.inf, "absolute") == "\N{MINUS SIGN}\N{INFINITY}"
    assert wording.change(0.0123, "relative") == "+1.23 %"
