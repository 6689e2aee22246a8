"""From `uplift` over `score` to `policy` on a small world whose effects are known."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from scipy import stats

from causal.core.buckets import bucket_numbers
from causal.core.errors import CausalError, DataError, SpecError
from causal.uplift.learners import dumped
from causal.uplift.policy import Evaluation, allocate, doubly_robust_scores, policy_value
from jobs import policy, score, uplift
from jobs.runtime import models
from jobs.runtime.context import Context
from jobs.runtime.models import Dumped
from jobs.runtime.progress import Progress
from jobs.runtime.settings import Settings, load_settings

SPEC = """
name: payout_uplift
source: {{path: {path}, where: {{experiment: payout_scheme}}}}
method: uplift_learners
seed: 5
options:
  unit: driver
  outcome: hours
  variant: variant
  control: control
  treatments: [flat_bonus, surge]
  features: [before, age]
  categorical: [vehicle]
  segments: [vehicle]
  learners: [t]
  missing: model
  held_out: 0.5
  trees: 40
  leaves: 6
  bins: 50
  groups: 5
  draws: 200
truth: {{world: drivers, design: payout_scheme}}
"""
POLICY = """
name: payout_policy
source: {{path: {path}, where: {{experiment: payout_scheme}}}}
method: policy
options:
  model: payout_uplift
  sha256: {sha256}
  costs: {{flat_bonus: 4.0, surge: 8.0}}
  outcome_value: 5.0
  budget_per_unit: 2.5
truth: {{world: drivers, design: payout_scheme}}
"""
ARMS = ("control", "flat_bonus", "surge")


def outcomes(rng: np.random.Generator, units: pd.DataFrame) -> np.ndarray:
    """Hours of each unit under each arm: surge helps those who worked much, bonus the bikes."""
    base = 10 + 2 * np.abs(units["before"].fillna(0.0)) + rng.normal(size=len(units))
    bonus = np.where(units["vehicle"] == "bike", 2.0, -0.3)
    surge = np.where(units["before"].fillna(0.0) > 0, 3.0, 0.2)
    return np.column_stack([base, base + bonus, base + surge])


@pytest.fixture(scope="module")
def drivers() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    n = 6000
    units = pd.DataFrame(
        {
            "driver": np.arange(n) + 1,
            "experiment": np.where(np.arange(n) % 12 > 0, "payout_scheme", "other"),
            "before": np.where(rng.random(n) < 0.05, np.nan, rng.normal(size=n)),
            "age": rng.integers(18, 70, n),
            "vehicle": rng.choice(["bike", "sedan", "suv"], n),
        }
    )
    potential = outcomes(rng, units)
    arm = rng.integers(0, 3, n)
    units["variant"] = np.array(ARMS)[arm]
    units["hours"] = potential[np.arange(n), arm]
    for number, name in enumerate(ARMS):
        units[f"truth_{name}"] = potential[:, number]
    return units


class Shared(Context):
    """A run on the session of the tests."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        super().__init__(settings=settings, progress=Progress())
        self.__dict__["session"] = spark


@pytest.fixture(scope="module")
def context(
    request: pytest.FixtureRequest,
    spark: SparkSession,
    drivers: pd.DataFrame,
    tmp_path_factory: pytest.TempPathFactory,
) -> Context:
    request.getfixturevalue("many_small_queries")
    folder = tmp_path_factory.mktemp("uplift")
    settings = load_settings(
        warehouse=str(folder / "warehouse"), overrides=["limits.lock_seconds=30"]
    )
    own = Shared(spark, settings)
    drivers.drop(columns=[f"truth_{name}" for name in ARMS]).to_parquet(folder / "drivers.parquet")
    long = pd.concat(
        [
            drivers[["experiment", "driver"]].assign(variant=name, hours=drivers[f"truth_{name}"])
            for name in ARMS
        ]
    )
    long.to_parquet(folder / "truth.parquet")
    truth = spark.read.parquet(str(folder / "truth.parquet")).selectExpr(
        "experiment", "driver AS driver_id", "variant", "true AS is_exposed", "hours",
        "0 AS trips", "0D AS earnings", "0D AS payouts", "0 AS active_days", "true AS is_retained",
    )  # fmt: skip
    own.lakehouse.write(truth, "truth_drivers", run_key="truth")
    return own


@pytest.fixture(scope="module")
def folder(context: Context) -> Path:
    assert context.settings.local_warehouse is not None
    return context.settings.local_warehouse.parent


@pytest.fixture(scope="module")
def trained(context: Context, folder: Path) -> models.StoredModel:
    file = folder / "uplift.yaml"
    file.write_text(SPEC.format(path=folder / "drivers.parquet"), encoding="utf-8")
    config = uplift.UpliftConfig(spec=file, output=folder / "out")
    uplift.check(config)
    assert uplift.run(context, config) == 0
    assert uplift.run(context, config) == 0
    return models.load(context, "payout_uplift")


@pytest.fixture(scope="module")
def rows(trained: models.StoredModel, drivers: pd.DataFrame) -> pd.DataFrame:
    """The trial's units with their part of the split and their effects by one process."""
    own = drivers[drivers["experiment"] == "payout_scheme"].reset_index(drop=True)
    bucket = bucket_numbers(own["driver"], trained.model.spec.split)
    found = trained.model.effects([own[name] for name in trained.model.inputs.columns], learner="t")
    return own.assign(
        is_held_out=bucket < trained.model.spec.n_held_out,
        effect_flat_bonus=found[:, 1],
        effect_surge=found[:, 2],
    )


def test_only_units_held_out_are_reported_on(
    context: Context, trained: models.StoredModel, rows: pd.DataFrame
) -> None:
    scores = context.lakehouse.read("uplift_scores").toPandas()
    held_out = rows[rows["is_held_out"]]
    assert set(scores["unit_id"].astype(int)) == set(held_out["driver"])
    assert sum(trained.model.n_drawn) == (~rows["is_held_out"]).sum()
    for treatment in ARMS[1:]:
        own = scores[scores["treatment"] == treatment].astype({"unit_id": int})
        beside = own.merge(held_out, left_on="unit_id", right_on="driver")
        np.testing.assert_allclose(
            beside["effect"], beside[f"effect_{treatment}"], rtol=1e-12, atol=1e-12
        )


def test_effects_and_ranks_are_those_of_the_truth(context: Context, rows: pd.DataFrame) -> None:
    effects = context.lakehouse.read("effects").toPandas()
    checks = context.lakehouse.read("diagnostics").toPandas().set_index("name")
    held_out = rows[rows["is_held_out"]]
    for treatment in ARMS[1:]:
        truth = held_out[f"truth_{treatment}"] - held_out["truth_control"]
        found = effects[
            (effects["term"] == f"{treatment} - control") & (effects["estimand"] == "ate")
        ].iloc[0]
        assert abs(found["estimate"] - truth.mean()) < 4 * found["std_error"]
        assert found["std_error"] < 0.1
        rank = checks.loc[f"truth_rank.t.{treatment}"]
        expected = stats.spearmanr(held_out[f"effect_{treatment}"], truth).statistic
        assert rank["statistic"] == pytest.approx(expected, rel=1e-9)
        assert expected > 0.7
        assert rank["passed"]
    autoc = effects[effects["term"].str.endswith("autoc")]
    assert (autoc["ci_lower"] > 0).all()
    assert len(autoc) == 2


def test_a_model_is_the_recorded_one_or_none(
    context: Context, trained: models.StoredModel, folder: Path
) -> None:
    (file,) = folder.rglob("model.pkl")
    data = file.read_bytes()
    file.write_bytes(data[:-40] + b"x" + data[-39:])
    for name in ("payout_uplift", "payout_uplift/1", trained.run_id):
        with pytest.raises(DataError, match="not the recorded one"):
            models.load(context, name)
    file.write_bytes(data)
    assert models.load(context, trained.run_id, sha256=trained.sha256).sha256 == trained.sha256
    with pytest.raises(DataError, match="differ"):
        models.load(context, "payout_uplift/1", sha256="0" * 64)
    with pytest.raises(SpecError, match="no such version"):
        models.load(context, "payout_uplift/2")
    with pytest.raises(SpecError, match="no model of this name"):
        models.load(context, "payout")
    with pytest.raises(SpecError, match="no such run"):
        models.load(context, "0" * 32)


def test_a_table_is_scored_as_by_one_process(
    context: Context, folder: Path, trained: models.StoredModel, drivers: pd.DataFrame
) -> None:
    config = score.ScoreConfig(
        model="payout_uplift",
        path=str(folder / "drivers.parquet"),
        output_table="driver_scores",
        keep=("vehicle",),
    )
    place = f"{context.settings.local_warehouse}/{context.settings.database}/driver_scores"
    assert score.run(context, config) == 0
    commits = sorted(Path(place, "_delta_log").glob("*.json"))
    assert score.run(context, config) == 0
    assert sorted(Path(place, "_delta_log").glob("*.json")) == commits
    found = context.session.read.format("delta").load(place).toPandas().sort_values("driver")
    model = trained.model
    own = model.effects([drivers[name] for name in model.inputs.columns], learner="t")
    np.testing.assert_allclose(
        found[["effect_flat_bonus", "effect_surge"]], own[:, 1:], rtol=1e-12, atol=1e-12
    )
    assert set(found["status"]) == {"scored"}
    assert set(found["model_sha256"]) == {trained.sha256}


def test_rows_that_are_new_in_kind_are_not_scored(
    context: Context, folder: Path, trained: models.StoredModel, drivers: pd.DataFrame
) -> None:
    odd = drivers[["driver", "before", "age", "vehicle"]].head(40).astype({"age": float})
    odd.loc[:2, "vehicle"] = "tram"
    odd.loc[3:4, "age"] = np.nan
    odd.to_parquet(folder / "odd.parquet")
    options: dict[str, Any] = {
        "model": trained.run_id, "path": str(folder / "odd.parquet"), "output_table": "odd_scores"
    }  # fmt: skip
    with pytest.raises(DataError) as raised:
        score.run(context, score.ScoreConfig(**options))
    for part in ("unseen_category (3 rows)", "missing_value (2 rows)", "vehicle=tram", "age is"):
        assert part in str(raised.value)
    assert score.run(context, score.ScoreConfig(**options, unseen="control")) == 0
    place = f"{context.settings.local_warehouse}/{context.settings.database}/odd_scores"
    found = context.session.read.format("delta").load(place).toPandas().sort_values("driver")
    assert found["status"].tolist()[:6] == ["unseen_category"] * 3 + ["missing_value"] * 2 + [
        "scored"
    ]
    assert found["effect_surge"].isna().tolist() == [True] * 5 + [False] * 35

    odd.drop(columns="age").to_parquet(folder / "odd.parquet")
    with pytest.raises(SpecError, match="lack columns"):
        score.run(context, score.ScoreConfig(**options))


def test_a_policy_stays_within_its_budget_and_is_worth_what_it_says(
    context: Context, folder: Path, trained: models.StoredModel, rows: pd.DataFrame
) -> None:
    file = folder / "policy.yaml"
    text = POLICY.format(path=folder / "drivers.parquet", sha256=trained.sha256)
    file.write_text(text, encoding="utf-8")
    config = policy.PolicyConfig(spec=file, output=folder / "policy")
    policy.check(config)
    assert policy.run(context, config) == 0

    cost, value = np.array([4.0, 8.0]), 5.0
    assigned = context.lakehouse.read("policy_assignments").toPandas().astype({"unit_id": int})
    gain = value * rows[["effect_flat_bonus", "effect_surge"]].to_numpy() - cost
    best = allocate(gain, cost=cost, budget=2.5 * len(rows))
    assert assigned["cost"].sum() <= 2.5 * len(rows)
    assert assigned["gain"].sum() == pytest.approx(best.bound, rel=2e-3)
    assert assigned["gain"].sum() <= best.bound * (1 + 1e-12)

    arm = rows.merge(assigned, left_on="driver", right_on="unit_id")["treatment"]
    number = arm.map(ARMS.index).to_numpy(dtype=np.int64)
    found = pd.read_json(folder / "policy" / "effects.json").set_index("term")
    model, held_out = trained.model, rows["is_held_out"].to_numpy()
    own = rows[held_out].reset_index(drop=True)
    matrix, _ = model.inputs.read([own[name] for name in model.inputs.columns])
    code = own["variant"].map(ARMS.index).to_numpy(dtype=np.int64)
    shares = np.bincount(code) / len(code)
    scores = doubly_robust_scores(
        outcome=own["hours"].to_numpy(),
        treatment=code,
        predictions=model.arms.predictions(matrix).outcomes,
        propensities=np.tile(shares, (len(own), 1)),
    )
    evaluation = Evaluation(scores=value * scores, cost=cost)
    none = np.zeros(len(own), dtype=np.int64)
    for term, against in (("policy", None), ("policy - none", none)):
        expected = policy_value(evaluation, number[held_out], against=against)
        assert found.loc[term, "estimate"] == pytest.approx(expected.estimate, rel=1e-9)
        assert found.loc[term, "std_error"] == pytest.approx(expected.std_error, rel=1e-9)

    checks = pd.read_json(folder / "policy" / "diagnostics.json").set_index("name")
    truth = own[[f"truth_{name}" for name in ARMS]].to_numpy() * value - [0.0, *cost]
    true_value = truth[np.arange(len(own)), number[held_out]].mean()
    assert checks.loc["truth.policy", "statistic"] == pytest.approx(true_value, rel=1e-9)
    assert checks.loc["truth.policy", "passed"] == 1
    assert abs(found.loc["policy - none", "estimate"] - (true_value - truth[:, 0].mean())) < (
        4 * found.loc["policy - none", "std_error"]
    )
    assert checks.loc["truth.optimum", "statistic"] > true_value
    assert checks.loc["budget", "passed"] == 1
    assert found.loc["policy - random", "ci_lower"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("treatments: [flat_bonus, surge]", "treatments: [flat_bonus, tiny]"), r"tiny \(0\)"),
        (("missing: model", "missing: refuse"), "features are missing"),
        (("categorical: [vehicle]", "categorical: [make]"), "make"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    context: Context, folder: Path, change: tuple[str, str], message: str
) -> None:
    file = folder / "refused.yaml"
    text = SPEC.replace("name: payout_uplift", "name: refused").replace(*change)
    file.write_text(text.format(path=folder / "drivers.parquet"), encoding="utf-8")
    with pytest.raises(CausalError, match=message) as raised:
        uplift.run(context, uplift.UpliftConfig(spec=file))
    assert "refused.yaml" in str(raised.value)


def test_a_run_that_starts_again_says_which_model_is_kept(
    context: Context, trained: models.StoredModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost tables are made of the model that is kept; a model trained anew takes them along."""
    config = uplift.UpliftConfig(spec=folder / "uplift.yaml", output=None)

    def recorded() -> set[str]:
        checks = context.lakehouse.read("diagnostics").toPandas()
        return set(checks.loc[checks["name"] == "model", "detail"])

    part = "analysis = 'payout_uplift'"
    rest = context.lakehouse.read("uplift_scores").where(part).limit(1)
    context.lakehouse.write(rest, "uplift_scores", run_key="lost", replace_where=part)
    with monkeypatch.context() as patched:
        patched.setattr(uplift, "learn", None)
        assert uplift.run(context, config) == 0
    assert recorded() == {f"SHA-256 of the model: {trained.sha256}"}
    assert models.load(context, "payout_uplift").version == "1"
    assert context.lakehouse.read("uplift_scores").where(part).count() > 1

    other = Dumped(*dumped(dataclasses.replace(trained.model, n_drawn=(1, 1, 1))))
    with monkeypatch.context() as patched:
        patched.setattr(type(context.tracking), "find_finished", lambda *_: None)
        patched.setattr(uplift.Dumped, "of", classmethod(lambda *_: other))
        assert uplift.run(context, config) == 0
    assert recorded() == {f"SHA-256 of the model: {other.sha256}"}
    kept = models.load(context, "payout_uplift")
    assert (kept.version, kept.sha256) == ("2", other.sha256)
