"""Models of uplift: what specs refuse, how rows are read, and what is found on held-out ones."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.core.buckets import bucket_numbers
from causal.core.errors import CausalError, DataError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.uplift import learners_readout, policy_options
from causal.uplift.arm_balance import check_overlap, check_randomised, permuted_pvalue, whitened
from causal.uplift.inputs import MISSING, SCORED, UNSEEN, Inputs
from causal.uplift.learned_model import UpliftModel, learn
from causal.uplift.learners import dumped, loaded
from causal.uplift.learners_options import SPEC, UpliftLearnersSpec
from causal.uplift.policy import doubly_robust_scores
from causal.uplift.spending import bracket
from jobs import policy, score, uplift
from jobs.runtime.places import root

OPTIONS: dict[str, Any] = {
    "unit": "user",
    "outcome": "spend",
    "variant": "arm",
    "control": "none",
    "treatments": ["mail", "call"],
    "features": ["x"],
    "categorical": ["tier"],
    "segments": ["tier"],
    "learners": ["t"],
    "base": "linear",
    "groups": 4,
    "bins": 20,
    "draws": 200,
}
ARMS = ("none", "mail", "call")


def spec_of(**changes: Any) -> UpliftLearnersSpec:
    data = {"name": "who", "source": {"table": "users"}, "method": "uplift_learners", "seed": 4}
    return validate(SPEC, {**data, "options": {**OPTIONS, **changes}})


def users(n: int = 4000, *, seed: int = 1, chances: tuple[float, ...] = (0.4, 0.3, 0.3)) -> Any:
    rng = np.random.default_rng(seed)
    x, tier = rng.normal(size=n), rng.choice(["a", "b"], n)
    arm = rng.choice(3, n, p=chances)
    effect = np.column_stack([np.zeros(n), 1 + x, np.where(tier == "a", 2.0, -1.0)])
    spend = 5 + x + effect[np.arange(n), arm] + rng.normal(size=n)
    return pd.DataFrame(
        {
            "user": np.arange(n),
            "home": np.arange(n) // 2,
            "arm": np.array(ARMS)[arm],
            "x": x,
            "tier": tier,
            "spend": spend,
        }
    )


def parts(spec: UpliftLearnersSpec, frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    is_held_out = bucket_numbers(frame[spec.split.column], spec.split) < spec.n_held_out
    return frame[~is_held_out], frame[is_held_out].reset_index(drop=True)


def evaluated(model: UpliftModel, held_out: pd.DataFrame) -> tuple[pd.DataFrame, Result]:
    """The frame that evaluations read, made by one process, and what they find."""
    names = list(model.evaluation_names())
    found = model.evaluation([held_out[name] for name in model.inputs.columns])
    frame = pd.concat([held_out, pd.DataFrame(found, columns=names)], axis=1)
    frame["fold"] = frame["home"] % 200
    rows = run(learners_readout.held_out(model.spec), PandasEngine(frame))
    chances = (
        np.tile(rows.shares(model.spec), (len(frame), 1))
        if model.spec.options.is_randomised
        else frame[[f"chance_{arm}" for arm in range(3)]].to_numpy()
    )
    scores = doubly_robust_scores(
        outcome=frame["spend"].to_numpy(),
        treatment=frame["arm"].map(ARMS.index).to_numpy(dtype=np.int64),
        predictions=frame[[f"predicted_{arm}" for arm in range(3)]].to_numpy(),
        propensities=chances,
    )
    for number in (1, 2):
        frame[f"gain_{number}"] = scores[:, number] - scores[:, 0]
    return frame, run(learners_readout.estimate(model, rows), PandasEngine(frame))


@pytest.fixture(scope="module")
def model() -> UpliftModel:
    return run(learn(spec_of()), PandasEngine(parts(spec_of(), users())[0]))


def test_effects_are_found_on_units_held_out(model: UpliftModel) -> None:
    frame, result = evaluated(model, parts(model.spec, users())[1])
    effects = result.to_frame().set_index("term")
    truth = {
        "mail - none": 1 + frame["x"].mean(),
        "call - none": np.where(frame["tier"] == "a", 2.0, -1.0).mean(),
        "call - none | tier=b": -1.0,
        "mail - none | tier=a": 1 + frame.loc[frame["tier"] == "a", "x"].mean(),
    }
    for term, value in truth.items():
        row = effects.loc[term]
        assert abs(row["estimate"] - value) < 4 * row["std_error"]
    gain = frame["gain_1"]
    assert effects.loc["mail - none", "estimate"] == pytest.approx(gain.mean(), rel=1e-9)
    assert effects.loc["mail - none", "std_error"] == pytest.approx(
        gain.std(ddof=1) / np.sqrt(len(gain)), rel=1e-9
    )
    assert effects.loc["mail - none | autoc", "ci_lower"] > 0
    assert effects.loc["mail - none | group 1 of 4", "estimate"] > 1.5
    assert not [check for check in result.failed_checks if check.name == "held_out"]
    wanted = {"ranking", "groups", "calibration", "qini_curve", "toc_curve", "inputs"}
    assert wanted <= set(result.tables)
    text = " ".join(learners_readout.sentences(model.spec, result))
    assert "tier=b: call - none gives -" in text
    assert "is harmed" in text
    assert "Scores find those who benefit more" in text
    assert set(learners_readout.figures(model.spec, result)) == {
        f"{name}_t_{arm}" for name in ("uplift_by_group", "qini", "toc") for arm in ("mail", "call")
    }
    assert "calibration_slope/t/mail" in learners_readout.metrics(result)


def test_clusters_are_held_out_whole_and_errors_are_theirs() -> None:
    spec = spec_of(cluster="home")
    training, held_out = parts(spec, users())
    assert not set(training["home"]) & set(held_out["home"])
    frame, result = evaluated(run(learn(spec), PandasEngine(training)), held_out)
    row = result.effects[0]
    sums = frame.assign(off=frame["gain_1"] - frame["gain_1"].mean()).groupby("home")["off"].sum()
    g, n = len(sums), len(frame)
    assert row.n_clusters == g
    assert row.df == g - 1
    assert row.std_error == pytest.approx(np.sqrt((sums**2).sum() * g / (g - 1)) / n, rel=1e-9)


def test_what_was_not_randomised_is_compared_by_doubly_robust_scores_alone() -> None:
    rng = np.random.default_rng(3)
    frame = users(6000)
    chance = 1 / (1 + np.exp(-frame["x"]))
    arm = np.where(rng.random(6000) < chance, "mail", "none")
    frame["spend"] = 5 + 2 * frame["x"] + (arm == "mail") * (1 + frame["x"]) + rng.normal(size=6000)
    frame["arm"] = arm
    spec = spec_of(treatments=["mail"], propensity="learned", learners=["dr"])
    training, held_out = parts(spec, frame)
    model = run(learn(spec), PandasEngine(training))
    names = list(model.evaluation_names())
    found = model.evaluation([held_out[name] for name in model.inputs.columns])
    scored = pd.concat([held_out, pd.DataFrame(found, columns=names)], axis=1)
    scores = doubly_robust_scores(
        outcome=scored["spend"].to_numpy(),
        treatment=(scored["arm"] == "mail").to_numpy().astype(np.int64),
        predictions=scored[["predicted_0", "predicted_1"]].to_numpy(),
        propensities=scored[["chance_0", "chance_1"]].to_numpy(),
    )
    scored["gain_1"] = scores[:, 1] - scores[:, 0]
    rows = run(learners_readout.held_out(spec), PandasEngine(scored))
    result = run(learners_readout.estimate(model, rows), PandasEngine(scored))
    naive = scored.groupby("arm")["spend"].mean()
    assert naive["mail"] - naive["none"] > 2
    ate = result.effects[0]
    assert abs(ate.estimate - (1 + scored["x"].mean())) < 4 * ate.std_error
    groups = result.tables["groups"]
    assert (np.abs(groups["uplift"] - groups["score"]) < 4 * groups["std_error"]).all()
    assert "qini_curve" not in result.tables
    assert set(result.tables["ranking"]["figure"]) == {"autoc", "rate_qini"}


def test_planned_shares_are_checked() -> None:
    spec = spec_of(propensity={"none": 0.34, "mail": 0.33, "call": 0.33})
    trained = run(learn(spec), PandasEngine(parts(spec, users())[0]))
    _, result = evaluated(trained, parts(spec, users())[1])
    (check,) = [item for item in result.diagnostics if item.name == "sample_ratio"]
    assert check.passed is False


def test_rows_that_are_new_in_kind_have_no_effect(model: UpliftModel) -> None:
    rows = pd.DataFrame({"x": [0.5, np.nan, 0.1, np.inf], "tier": ["a", "b", "c", None]})
    found = model.effects([rows["x"], rows["tier"]], learner="t")
    assert found[:, 0].tolist() == [SCORED, MISSING, UNSEEN, MISSING]
    assert np.isnan(found[:, 1:]).any(axis=1).tolist() == [False, True, True, True]
    none = model.evaluation([rows["x"][1:], rows["tier"][1:]])
    assert np.isnan(none[:, 1:]).all()


def test_missing_features_are_learned_from_where_that_is_asked_for() -> None:
    sample = pd.DataFrame({"x": [1.0, np.nan, 3.0, 8.0], "tier": ["a", None, "b", "b"]})
    inputs = Inputs.of(sample, numbers=["x"], labels=["tier"], missing="model")
    matrix, status = inputs.read([sample["x"], sample["tier"]])
    np.testing.assert_array_equal(matrix, [[1, 0, 0, 0], [3, 1, 0, 1], [3, 0, 1, 0], [8, 0, 1, 0]])
    assert status.tolist() == [SCORED] * 4
    with pytest.raises(DataError, match=r"x \(1 of 4\), tier \(1 of 4\)"):
        Inputs.of(sample, numbers=["x"], labels=["tier"], missing="refuse")
    with pytest.raises(DataError, match="infinite"):
        Inputs.of(sample.replace(8.0, np.inf), numbers=["x"], labels=[], missing="model")
    with pytest.raises(DataError, match="no value"):
        Inputs.of(sample.assign(x=np.nan), numbers=["x"], labels=[], missing="model")


def test_a_small_arm_is_named() -> None:
    frame = users()
    few = frame.index[frame["arm"] == "call"][12:]
    with pytest.raises(DataError, match=r"call \(\d+\)") as raised:
        run(learn(spec_of()), PandasEngine(parts(spec_of(), frame.drop(few))[0]))
    assert raised.value.key == "options.treatments"


@pytest.mark.parametrize("propensity", ["share", "learned"])
def test_a_feature_that_knows_the_arm_is_told(propensity: str) -> None:
    name = "randomised" if propensity == "share" else "overlap"
    verdicts = []
    for leak in (0.0, 1.0):
        frame = users()
        noise = np.random.default_rng(3).normal(size=len(frame))
        frame["x"] = leak * 20.0 * frame["arm"].map(ARMS.index) + noise
        found = run(learn(spec_of(propensity=propensity)), PandasEngine(parts(spec_of(), frame)[0]))
        verdicts += [check.passed for check in found.balance if check.name == name]
    assert verdicts == [True, False]


def test_features_of_a_trial_predict_the_arm_as_often_as_they_should() -> None:
    rng = np.random.default_rng(5)
    pvalues = []
    for _ in range(400):
        x = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4))
        features = np.column_stack([x, x[:, 0] - x[:, 1], np.full(300, 2.0)])
        pvalues.append(check_randomised(features, rng.integers(0, 3, 300), seed=1).pvalue)
    assert stats.kstest(pvalues, "uniform").pvalue > 0.01


def test_skewed_features_and_a_small_arm_are_no_leak() -> None:
    """Spending with a long tail and an arm of 2 %: chi-square alone rejects in 8 %, not 0.1 %."""
    found = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        spend = np.exp(2.0 * rng.normal(size=(2000, 8)))
        arms = (np.arange(2000) < 40).astype(np.int64)
        found.append(check_randomised(spend, rng.permutation(arms), seed=seed))
    confirmed = [check for check in found if "permutations" in check.detail]
    assert len(confirmed) >= 3
    assert sum(not check.passed for check in found) <= 1
    assert all(check.pvalue in np.arange(1, 5001) / 5000 for check in confirmed)


def test_permutations_confirm_a_leak_in_skewed_features() -> None:
    rng = np.random.default_rng(1)
    spend = np.exp(2.0 * rng.normal(size=(2000, 8)))
    arms = (np.arange(2000) < 40).astype(np.int64)
    leak = np.column_stack([spend, arms + 0.5 * rng.normal(size=2000)])
    check = check_randomised(leak, arms, seed=3)
    assert (check.passed, check.pvalue) == (False, 1 / 5000)
    assert check == check_randomised(leak, arms, seed=3)


def test_permutations_count_what_a_loop_counts() -> None:
    """All 70 ways to draw 4 of 8 rows: the share that is as far apart, within its error."""
    features = np.array([[0.0, 1], [1, 5], [2, 2], [4, 0], [9, 1], [3, 7], [5, 5], [8, 2]])
    arms = np.array([0, 0, 1, 0, 1, 0, 1, 1])

    def distance(treated: Any) -> float:
        at = np.isin(np.arange(8), treated)
        return float(check_randomised(features, at.astype(np.int64), seed=0).statistic)

    every = np.array([distance(rows) for rows in combinations(range(8), 4)])
    exact = (every >= distance(np.flatnonzero(arms)) - 1e-9).mean()
    found = permuted_pvalue(whitened(features), arms, seed=2)
    assert abs(found - exact) < 4 * np.sqrt(exact * (1 - exact) / 4999)


@pytest.mark.parametrize("base", ["linear", "boosted", "lightgbm"])
def test_overlap_speaks_of_the_data_whatever_the_base(base: str) -> None:
    """Everyone's chance is 0.15 beside noise: no row lacks a counterpart."""
    rng = np.random.default_rng(6)
    n, names = 1000, [f"x{number}" for number in range(20)]
    frame = pd.DataFrame(rng.normal(size=(n, 20)), columns=names).assign(
        user=np.arange(n),
        spend=rng.normal(size=n),
        arm=rng.choice(["none", "mail"], n, p=[0.85, 0.15]),
    )
    spec = spec_of(
        treatments=["mail"], propensity="learned", learners=["dr"], base=base, features=names,
        categorical=[], segments=[], held_out=0.05,
    )  # fmt: skip
    (check,) = run(learn(spec), PandasEngine(parts(spec, frame)[0])).balance
    assert (check.name, check.passed, check.statistic) == ("overlap", True, 0.0)


@pytest.mark.parametrize(("n", "n_features", "share"), [(500, 10, 0.1), (1000, 20, 0.05)])
def test_overlap_of_noise_is_that_of_the_shares(n: int, n_features: int, share: float) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        features = rng.normal(size=(n, n_features))
        arms = rng.permutation((np.arange(n) < share * n).astype(np.int64))
        check = check_overlap(features, arms, weights=np.ones(2), least=0.01, seed=seed)
        assert check.passed is True


@pytest.mark.parametrize("slope", [3.0, 20.0])
def test_overlap_finds_the_share_without_a_counterpart(slope: float) -> None:
    """A logistic world: the share of rows whose true chance is below 0.01 is known."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(4000, 5))
    chance = 1 / (1 + np.exp(-slope * x[:, 0]))
    arms = (rng.random(4000) < chance).astype(np.int64)
    truth = (np.minimum(chance, 1 - chance) < 0.01).mean()
    check = check_overlap(x * [1, 1e6, 1e-6, 1, 1], arms, weights=np.ones(2), least=0.01, seed=1)
    assert truth > 0.1
    assert check.passed is False
    assert check.statistic == pytest.approx(truth, abs=0.03)


def test_overlap_is_that_of_the_population_not_of_the_rows_drawn() -> None:
    """Equally many rows of an arm that is 0.5 % of the population: everyone's chance is 0.005."""
    rng = np.random.default_rng(9)
    x, arms = rng.normal(size=(2000, 3)), np.repeat([0, 1], 1000)
    drawn = check_overlap(x, arms, weights=np.ones(2), least=0.01, seed=1)
    population = check_overlap(x, arms, weights=np.array([199.0, 1.0]), least=0.01, seed=1)
    assert (drawn.statistic, population.statistic) == (0.0, pytest.approx(1.0, abs=0.01))


def test_an_outcome_without_variance_is_refused() -> None:
    by_arm = users()["arm"].map({arm: 1.1 * number for number, arm in enumerate(ARMS)})
    for frame in (users().assign(spend=3.3), users().assign(spend=by_arm)):
        with pytest.raises(
            DataError, match=r"does not vary within any arm.*given: spend"
        ) as raised:
            run(learn(spec_of()), PandasEngine(parts(spec_of(), frame)[0]))
        assert raised.value.key == "options.outcome"


def test_a_unit_that_repeats_is_refused() -> None:
    frame = users()
    frame.loc[1, "user"] = frame.loc[0, "user"]
    with pytest.raises(DataError, match="must identify the rows"):
        run(learn(spec_of(held_out=0.05)), PandasEngine(frame))


def test_a_model_travels_as_bytes_with_a_hash(model: UpliftModel) -> None:
    data, sha256 = dumped(model)
    rows = users(50, seed=9)
    again = loaded(data, sha256=sha256)
    columns = [rows["x"], rows["tier"]]
    np.testing.assert_array_equal(
        again.effects(columns, learner="t"), model.effects(columns, learner="t")
    )
    with pytest.raises(CausalError, match="not the recorded one"):
        loaded(data[:-1], sha256=sha256)


def test_a_model_knows_about_where_values_lie(model: UpliftModel) -> None:
    """Of unseen units: means within a fifth of a spread, spreads to a factor of five."""
    frame, _ = evaluated(model, parts(model.spec, users())[1])
    for number in (1, 2):
        near = model.near("t", number)
        names = ("spend", f"effect_t_{number}", f"gain_{number}")
        for (mean, spread), name in zip(near, names, strict=True):
            assert mean == pytest.approx(frame[name].mean(), abs=0.2 * frame[name].std()), name
            assert 0.2 < spread / frame[name].std() < 1.2, name


def test_histograms_are_asked_for_with_what_the_model_knows(model: UpliftModel) -> None:
    frame, _ = evaluated(model, parts(model.spec, users())[1])
    engine, asked = PandasEngine(frame), []

    def recorded(request: Any) -> pd.DataFrame:
        asked.append(request)
        return engine(request)

    recorded.columns = engine.columns  # type: ignore[attr-defined]
    rows = run(learners_readout.held_out(model.spec), engine)
    run(learners_readout.estimate(model, rows), recorded)  # type: ignore[arg-type]

    hinted = [request for request in asked if getattr(request, "near", ())]
    assert [request.near for request in hinted] == [model.near("t", 1), model.near("t", 2)]
    for number, request in enumerate(hinted, start=1):
        names = [term.name for term in request.terms]
        assert names == ["spend", f"effect_t_{number}", f"gain_{number}"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"treatments": ["mail", "none"]}, "stands twice"),
        ({"features": [], "categorical": []}, "at least one column"),
        ({"features": ["x", "spend"]}, "spend is the outcome"),
        ({"features": ["x", "x"]}, "listed twice"),
        ({"learners": ["t", "t"]}, "a learner stands twice"),
        ({"learners": ["z"]}, "learners"),
        ({"propensity": {"none": 0.5, "mail": 0.5}}, "one share for each arm"),
        ({"propensity": {"none": 0.5, "mail": 0.5, "call": 0.1}}, "sum to 1"),
        ({"held_out": 0.0}, "held_out"),
        ({"trees": 10}, "multiple of 4"),
        ({"leafs": 3}, "did you mean 'leaves'"),
    ],
)
def test_specs_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec_of(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 5.0, "budget_per_unit": 1.0}, "not both"),
        ({"costs": {"mail": -1.0}}, "costs.mail"),
        ({"outcome_value": 0}, "worth nothing"),
        ({"unseen": "guess"}, "unseen"),
    ],
)
def test_policies_are_checked(changes: dict[str, Any], message: str) -> None:
    data = {"name": "who", "source": {"table": "users"}, "method": "policy"}
    options = {"model": "who", "costs": {"mail": 1.0}, **changes}
    with pytest.raises(SpecError, match=message):
        validate(policy_options.SPEC, {**data, "options": options})


def test_a_budget_is_bracketed() -> None:
    rng = np.random.default_rng(5)
    drops = np.sort(rng.gamma(1.0, 2.0, 5000))

    def spending(at: np.ndarray) -> np.ndarray:
        return 2.0 * (drops[None, :] > at[:, None]).sum(axis=1)

    found = bracket(spending, low=0.0, high=100.0, budget=3333.0, slack=2.0)
    assert (found.spent_high, found.spent_low) == (3332.0, 3334.0)
    assert found.high >= drops[5000 - 1667] >= found.low
    assert bracket(spending, low=0.0, high=100.0, budget=1e5, slack=2.0).is_met
    with pytest.raises(DataError, match="no policy"):
        bracket(lambda at: 7.0 + 0 * at, low=0.0, high=1.0, budget=5.0, slack=1.0)


def test_equal_drops_leave_a_bracket_without_width() -> None:
    found = bracket(
        lambda at: np.where(at < 0.7, 900.0, 0.0), low=0.0, high=3.0, budget=500.0, slack=1.0
    )
    assert (found.spent_low, found.spent_high) == (900.0, 0.0)
    assert found.high - found.low < 1e-15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "../x.pkl"}, "model: this is no model"),
        ({"sha256": "abc"}, "sha256: this is no SHA-256"),
        ({"table": None}, "exactly one of --table and --path"),
        ({"path": "nowhere.parquet", "table": None}, "nothing to read"),
        ({"output_table": "effects"}, "a table of the suite"),
        ({"output_table": "No Name"}, "no name of a table"),
    ],
)
def test_what_score_is_given_is_checked_before_spark(changes: dict[str, Any], message: str) -> None:
    given = {"model": "who/2", "table": "drivers", "output_table": "driver_scores", **changes}
    with pytest.raises(SpecError, match=message):
        score.check(score.ScoreConfig(**given))


def test_specs_of_the_suite_are_valid_and_errors_name_file_and_key(tmp_path: Path) -> None:
    folder = root() / "conf" / "uplift"
    uplift.check(uplift.UpliftConfig(spec=folder / "payout_uplift.yaml"))
    policy.check(policy.PolicyConfig(spec=folder / "payout_policy.yaml"))
    text = (folder / "payout_policy.yaml").read_text(encoding="utf-8")
    file = tmp_path / "policy.yaml"
    file.write_text(text.replace("model: payout_uplift", "model: /etc/x"), encoding="utf-8")
    with pytest.raises(SpecError, match=r"policy.yaml.*options\.model: this is no model"):
        policy.check(policy.PolicyConfig(spec=file))
    text = (folder / "payout_uplift.yaml").read_text(encoding="utf-8")
    file.write_text(text.replace("learners: [dr, t]", "learners: [dr, u]"), encoding="utf-8")
    with pytest.raises(SpecError, match=r"policy.yaml.*options\.learners"):
        uplift.check(uplift.UpliftConfig(spec=file))
