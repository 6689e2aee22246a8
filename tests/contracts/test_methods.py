"""What every method fulfils, whatever it estimates.

A method of the registry needs at least one example here; the tests below run on all of them.
"""

import dataclasses
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from pydantic import ValidationError

from causal.core import registry
from causal.core.errors import CausalError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import EFFECT_COLUMNS, Effect, Result
from causal.core.spec import Spec, validate

NUMBERS = ["estimate", "std_error", "statistic", "df", "ci_lower", "ci_upper", "pvalue"]


@dataclass(frozen=True)
class Example:
    """A small simulated data set and an analysis of it.

    Attributes:
        method: The method.
        options: Its options.
        frame: The rows.
        outcome: Column of the outcome.
        arm: Column that tells treated from untreated.
        swapped: The values of `arm` with treated and untreated exchanged; empty where a method
            treats them differently.
        one_arm: The value of `arm` to which all rows are set when one arm is missing.
        truth: What an effect on the absolute scale estimates.
        where: Which rows the analysis reads.
    """

    method: str
    options: Mapping[str, Any]
    frame: pd.DataFrame
    outcome: str
    arm: str
    swapped: Mapping[Any, Any]
    one_arm: Any
    truth: Callable[[Effect], float]
    where: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        return validate(registry.method(self.method).SPEC, self.data())

    def data(self, **options: Any) -> dict[str, Any]:
        return {
            "name": "example",
            "source": {"table": "rows", "where": dict(self.where)},
            "method": self.method,
            "seed": 7,
            "options": {**self.options, **options},
        }

    def result(self, frame: pd.DataFrame | None = None) -> Result:
        rows = self.frame if frame is None else frame
        return run(registry.method(self.method).estimate(self.spec), PandasEngine(rows))

    def absolute(self, frame: pd.DataFrame | None = None) -> pd.DataFrame:
        effects = self.result(frame).to_frame()
        return effects[effects["scale"] == "absolute"].reset_index(drop=True)


def experiment(*, seed: int = 1, n: int = 900) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    household = rng.integers(0, n // 3, n)
    before = rng.gamma(2.0, 2.0, n)
    variant = np.array(["control", "treatment"])[household % 2]
    noise = rng.normal(size=n) + rng.normal(size=n // 3)[household]
    return pd.DataFrame(
        {
            "id": np.arange(n), "household": household, "variant": variant, "before": before,
            "tier": np.array(["basic", "gold", "plus"])[np.arange(n) % 3],
            "week": np.arange(n) % 4,
            "minutes": 20 + 2 * before + 1.5 * (variant == "treatment") + noise,
        }
    )  # fmt: skip


def panel(*, seed: int = 2, n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n_periods = 6
    u, t = np.repeat(np.arange(n), n_periods), np.tile(np.arange(n_periods), n)
    ever = rng.permutation(n)[u] % 2
    level = rng.normal(10, 3, n)[u] + np.sin(t)
    treated = ever * (t >= 3)
    return pd.DataFrame(
        {"u": u, "t": t, "ever": ever, "minutes": level + treated + rng.normal(size=len(u))}
    )


MINUTES = {"name": "minutes", "type": "mean", "column": "minutes"}
BOOTSTRAP = {"replications": 500, "buckets": 500}


def ab_example(metric: Mapping[str, Any], **options: Any) -> Example:
    return Example(
        method="ab",
        options={
            "unit": "id",
            "variant": "variant",
            "control": "control",
            "metrics": [MINUTES | metric],
            **options,
        },
        frame=experiment(),
        outcome="minutes",
        arm="variant",
        swapped={"control": "treatment", "treatment": "control"},
        one_arm="treatment",
        truth=lambda _: 1.5,
    )


def by_period_example() -> Example:
    """The effect is the same in every period."""
    base = ab_example({}, cluster="household", time_since_exposure="week")
    return dataclasses.replace(
        base, truth=lambda effect: 0.0 if effect.estimator == "trend" else 1.5
    )


def did_example(estimator: str, **options: Any) -> Example:
    return Example(
        method="did",
        options={
            "unit": "u", "period": "t", "outcome": "minutes", "group": "ever",
            "treatment_period": 3, "estimator": estimator, **options,
        },
        frame=panel(),
        outcome="minutes",
        arm="ever",
        swapped={0: 1, 1: 0},
        one_arm=1,
        truth=lambda effect: 0.0 if "event_time=-" in effect.term else 1.0,
    )  # fmt: skip


def with_gaps(base: Example) -> Example:
    """One row in twelve is not there, which weighs the rows of either arm in its own way."""
    kept = (7 * base.frame["u"] + 5 * base.frame["t"]) % 12 > 0
    frame = base.frame[kept].reset_index(drop=True)
    return dataclasses.replace(base, frame=frame, swapped={})


def dose_example() -> Example:
    """A dose of 1 for some units and 0 for the others."""
    base = did_example("dose_response")
    options = {key: value for key, value in base.options.items() if key != "group"}
    return dataclasses.replace(base, options={**options, "dose": "ever"})


def staggered_example(**options: Any) -> Example:
    frame = panel(seed=4)
    frame["start"] = 3 * frame.pop("ever")
    return Example(
        method="staggered",
        options={
            "unit": "u", "period": "t", "outcome": "minutes", "first_treated_period": "start",
            "never_treated_value": 0, **options,
        },
        frame=frame,
        outcome="minutes",
        arm="start",
        swapped={0: 3, 3: 0},
        one_arm=3,
        truth=lambda effect: (
            0.0 if effect.term.startswith(("event_time=-", "att(3,1)", "att(3,2)", "att(3,0)"))
            else 1.0
        ),
    )  # fmt: skip


def covariate_example(**options: Any) -> Example:
    """Units that differ in size, which has nothing to do with who starts."""
    base = staggered_example(**options)
    size = np.random.default_rng(6).gamma(3.0, 2.0, base.frame["u"].nunique())
    u = base.frame["u"]
    frame = base.frame.assign(size=size[u], place=u % 17, share=0.3 * (1.0 + (5 * u) % 7))
    return dataclasses.replace(
        base, frame=frame, options={"covariates": ["size"], **base.options}, swapped={}
    )


def regions(*, seed: int = 3, n_treated: int = 1) -> pd.DataFrame:
    """26 regions or so that share two factors; effect 4 from period 16 on in the first ones."""
    rng = np.random.default_rng(seed)
    n, n_periods = 25 + n_treated, 24
    loads = rng.uniform(0.5, 1.5, (n, 2))
    loads[:n_treated] = 1.0
    factors = rng.normal(size=(2, n_periods)).cumsum(axis=1)
    minutes = 60 + loads @ factors + 0.4 * rng.normal(size=(n, n_periods))
    minutes[:n_treated, 16:] += 4.0
    region, week = np.repeat(np.arange(n), n_periods), np.tile(np.arange(n_periods), n)
    return pd.DataFrame(
        {
            "region": region, "week": week, "minutes": minutes.ravel(),
            "start": np.where(region < n_treated, 16.0, np.nan),
        }
    )  # fmt: skip


def region_example(method: str, *, n_treated: int = 1, **options: Any) -> Example:
    return Example(
        method=method,
        options={
            "unit": "region", "period": "week", "outcome": "minutes",
            "first_treated_period": "start", **options,
        },
        frame=regions(n_treated=n_treated),
        outcome="minutes",
        arm="start",
        swapped={},
        one_arm=16.0,
        truth=lambda effect: 4.0 * (8 * n_treated if effect.term == "cumulative" else 1),
    )  # fmt: skip


def switchback(*, seed: int = 8) -> pd.DataFrame:
    """Eight places whose treatment is drawn for each four hours; the effect comes at once."""
    rng = np.random.default_rng(seed)
    n_places, n_hours = 8, 96
    place, hour = np.repeat(np.arange(n_places), n_hours), np.tile(np.arange(n_hours), n_places)
    drawn = rng.integers(0, 2, (n_places, n_hours // 4))
    treated = np.repeat(drawn, 4, axis=1).ravel()
    level = rng.normal(40, 5, n_places)[place] + 6 * np.sin(hour * np.pi / 12)
    shock = rng.normal(size=(n_places, n_hours // 4)).repeat(4, axis=1).ravel()
    return pd.DataFrame(
        {
            "place": place, "hour": hour, "treated": treated,
            "minutes": level + 1.5 * treated + shock + rng.normal(size=len(place)),
        }
    )  # fmt: skip


def switchback_example(**options: Any) -> Example:
    return Example(
        method="switchback",
        options={
            "unit": "place", "period": "hour", "outcome": "minutes", "treatment": "treated",
            "block_length": 4, "season": 24, "randomisation_draws": 49, **options,
        },
        frame=switchback(),
        outcome="minutes",
        arm="treated",
        swapped={0: 1, 1: 0},
        one_arm=1,
        truth=lambda _: 1.5,
    )  # fmt: skip


def trial(*, seed: int = 3, n: int = 800) -> pd.DataFrame:
    """An encouragement that half of the units follow; uptake and outcome share a hidden cause."""
    rng = np.random.default_rng(seed)
    invited, hidden, before = rng.integers(0, 2, n), rng.normal(size=n), rng.gamma(2.0, 2.0, n)
    used = np.where(hidden + rng.normal(size=n) > 0.8 - 1.6 * invited, 1, 0)
    return pd.DataFrame(
        {
            "id": np.arange(n), "place": np.arange(n) // 8, "invited": invited, "used": used,
            "before": before, "kind": np.array(["a", "b", "c"])[np.arange(n) % 3],
            "minutes": 20 + 1.5 * used + 2 * before + hidden + rng.normal(size=n),
        }
    )  # fmt: skip


def regression_example(method: str, arm: str, **options: Any) -> Example:
    return Example(
        method=method,
        options={"unit": "id", "outcome": "minutes", **options},
        frame=trial(),
        outcome="minutes",
        arm=arm,
        swapped={0: 1, 1: 0},
        one_arm=1,
        truth=lambda _: 1.5,
    )


def iv_example(**options: Any) -> Example:
    design = {"treatment": "used", "instruments": ["invited"], "report": ["treatment"]}
    return regression_example("iv", "used", **{**design, **options})


def ols_example(**options: Any) -> Example:
    """The invitation as a regressor: its effect is that on the uptake times 1.5."""
    base = regression_example("ols", "invited", **{"report": ["invited"], **options})
    share = base.frame.groupby("invited")["used"].mean()
    return dataclasses.replace(base, truth=lambda _: 1.5 * float(share[1] - share[0]))


def observed(*, seed: int = 6, n: int = 1200) -> pd.DataFrame:
    """Who is active earlier joins more often and would use more anyway; the effect is 1.5."""
    rng = np.random.default_rng(seed)
    before, age = rng.gamma(4.0, 0.5, n), rng.integers(18, 70, n)
    chance = 1 / (1 + np.exp(-(0.5 * (before - 2) - 0.02 * (age - 44))))
    joined = (rng.uniform(size=n) < chance).astype(int)
    return pd.DataFrame(
        {
            "id": np.arange(n), "place": np.arange(n) // 10, "joined": joined, "before": before,
            "age": age, "kind": np.array(["a", "b", "c"])[np.arange(n) % 3],
            "minutes": 20 + 1.5 * joined + 2 * before + 0.05 * age + rng.normal(size=n),
        }
    )  # fmt: skip


def study_example(method: str, *, is_symmetric: bool = True, **options: Any) -> Example:
    return Example(
        method=method,
        options={
            "unit": "id", "outcome": "minutes", "treatment": "joined",
            "covariates": ["before", "age"], **options,
        },
        frame=observed(),
        outcome="minutes",
        arm="joined",
        swapped={0: 1, 1: 0} if is_symmetric else {},
        one_arm=1,
        truth=lambda _: 1.5,
    )  # fmt: skip


def uplift_example(**options: Any) -> Example:
    """The experiment read by learners; everyone's effect is 1.5."""
    return Example(
        method="uplift",
        options={
            "unit": "id", "outcome": "minutes", "treatment": "variant", "treated": "treatment",
            "control": "control", "covariates": ["before"], "learners": ["t", "s", "x", "dr", "r"],
            **options,
        },
        frame=experiment(),
        outcome="minutes",
        arm="variant",
        swapped={"control": "treatment", "treatment": "control"},
        one_arm="treatment",
        truth=lambda _: 1.5,
    )  # fmt: skip


def surrogates(*, seed: int = 9, n: int = 700) -> pd.DataFrame:
    """Historical units, then a trial that moves two short-term outcomes and by them minutes."""
    rng = np.random.default_rng(seed)
    is_new = np.arange(n) >= n // 3
    household = np.arange(n) // 3
    treated = (household % 2) * is_new
    before, shared = rng.normal(size=n), rng.normal(size=n)[household]
    visits = rng.poisson(3 + 0.5 * treated) + 0.5 * before
    spend = rng.gamma(2.0, 2.0, n) + 0.25 * treated + 0.3 * shared
    return pd.DataFrame(
        {
            "id": np.arange(n), "household": household, "before": before, "visits": visits,
            "spend": spend, "sample": np.where(is_new, "trial", "history"),
            "variant": np.array(["control", "treatment"])[treated],
            "minutes": 20 + 2 * visits + 2 * spend + shared + rng.normal(size=n),
        }
    )  # fmt: skip


def surrogate_example(**options: Any) -> Example:
    """History and trial in one table."""
    return Example(
        method="surrogate_index",
        options={
            "unit": "id", "variant": "variant", "control": "control", "outcome": "minutes",
            "surrogates": ["visits", "spend"],
            "history": {"table": "rows", "where": {"sample": "history"}}, **options,
        },
        frame=surrogates(),
        outcome="minutes",
        arm="variant",
        swapped={"control": "treatment", "treatment": "control"},
        one_arm="treatment",
        truth=lambda effect: 0.0 if effect.estimator.startswith("unexplained") else 1.5,
        where={"sample": "trial"},
    )  # fmt: skip


EXAMPLES: Mapping[str, Example] = {
    "surrogate_index": surrogate_example(),
    "surrogate_index back-tested": surrogate_example(
        back_test=True, covariates=["before"], cluster="household"
    ),
    "dml": study_example("dml", folds=2, estimator=["aipw", "plr"], categorical={"kind": None}),
    "dml clustered": study_example(
        "dml",
        folds=2,
        repetitions=2,
        cluster="place",
        segments=["kind"],
        trim={"rule": "fixed", "low": 0.05, "high": 0.95},
    ),
    "dml treated": study_example("dml", folds=2, estimand="att", is_symmetric=False),
    "dml refuted": study_example(
        "dml",
        folds=2,
        estimator="plr",
        propensity="linear",
        sensitivity=True,
        refute=["placebo", "random_common_cause", "subset"],
    ),
    "uplift": uplift_example(categorical={"tier": None}, segments=["tier"]),
    "uplift clustered": uplift_example(cluster="household", propensity=0.5, segments=["week"]),
    "uplift not randomised": study_example(
        "uplift",
        learners=["x", "dr", "r"],
        propensity="logistic",
        categorical={"kind": None},
        effect_columns=["age"],
        segments=["kind"],
    ),
    # Nearly half of the units joined: without a caliper the last ones take what is left.
    "matching": study_example("matching", is_symmetric=False, balance_threshold=0.5, caliper=0.1),
    "matching replaced": study_example(
        "matching",
        is_symmetric=False,
        balance_threshold=0.5,
        replace=True,
        ratio=2,
        exact=["kind"],
        caliper=0.5,
        estimand="atc",
    ),
    "matching coarsened": study_example(
        "matching",
        is_symmetric=True,
        matching="coarsened",
        estimand="ate",
        cutpoints={"before": 8, "age": [30, 40, 50, 60]},
        balance_threshold=0.5,
    ),
    "weighting": study_example("weighting", categorical={"kind": None}),
    "weighting doubly robust": study_example(
        "weighting", estimator=["regression", "aipw"], cluster="place"
    ),
    "weighting treated": study_example(
        "weighting",
        estimator=["ipw", "aipw", "entropy_balancing"],
        estimand="att",
        is_symmetric=False,
    ),
    "weighting overlap": study_example("weighting", estimand="overlap", covariance="robust"),
    "weighting trimmed": study_example("weighting", trim={"rule": "crump"}),
    "iv": iv_example(),
    "iv liml clustered": iv_example(
        covariates=["before"], cluster="place", estimator="liml", characteristics=["before"]
    ),
    "iv absorbed": iv_example(absorb="place", cluster="place", covariates=["before"]),
    "ols": ols_example(numeric=["invited", "before"], categorical={"kind": None}),
    "ols clustered": ols_example(numeric=["invited"], cluster="place", covariance="CR3"),
    "ols absorbed": ols_example(numeric=["invited", "before"], absorb="kind", covariance="HC3"),
    "ab": ab_example({}),
    "ab cuped": ab_example({"covariates": ["before"]}),
    "ab clustered": ab_example({"covariates": ["before"]}, cluster="household"),
    "ab two-way": ab_example({}, cluster=["household", "tier"]),
    "ab jackknife": ab_example({}, cluster="household", cluster_correction="cr3"),
    "ab strata": ab_example({"covariates": ["before"]}, strata=["tier"]),
    "ab segments": ab_example(
        {"role": "primary"}, segments=["tier"], multiplicity={"correction": "benjamini_hochberg"}
    ),
    "ab quantile": ab_example({"type": "quantile", "quantile": 0.6}),
    "ab quantile clustered": ab_example({"type": "quantile", "quantile": 0.4}, cluster="household"),
    "ab winsorised": ab_example({"winsorise": {"lower_quantile": 0.01, "upper_quantile": 0.99}}),
    "ab by period": by_period_example(),
    "ab certified": ab_example(
        {"covariates": ["before"]}, certificate={"replications": 1000, "buckets": 2000}
    ),
    "ab fieller": ab_example({}, relative_interval="fieller"),
    "ab bootstrap": ab_example(
        {"covariates": ["before"]}, inference="bootstrap", bootstrap=BOOTSTRAP
    ),
    "ab bootstrap of a quantile": ab_example(
        {"type": "quantile", "quantile": 0.6, "inference": "bootstrap"},
        cluster="household",
        bootstrap=BOOTSTRAP,
    ),
    "did two_by_two": did_example("two_by_two"),
    "did twfe": did_example("twfe"),
    "did event_study": did_example("event_study"),
    "did sun_abraham": did_example("sun_abraham"),
    "did etwfe": did_example("etwfe"),
    "did two_stage": did_example("two_stage"),
    "did imputation": dataclasses.replace(did_example("imputation", leave_out=True), swapped={}),
    "did two_stage with gaps": with_gaps(did_example("two_stage")),
    "did imputation with gaps": with_gaps(did_example("imputation")),
    "did dose_response": dose_example(),
    "did twfe CR3": did_example("twfe", covariance="CR3"),
    "did twfe two ways": did_example("twfe", cluster=["u", "t"]),
    "did twfe wild_bootstrap": did_example("twfe", wild_bootstrap={"n_draws": 999}),
    "staggered": staggered_example(),
    "staggered universal": staggered_example(
        base_period="universal", control_group="not_yet_treated", small_sample="clusters"
    ),
    "staggered credibility": staggered_example(
        base_period="universal", sensitivity={"type": "smoothness"}, stability={}
    ),
    "staggered given a covariate": covariate_example(),
    "staggered of rows": staggered_example(panel=False),
    "staggered of rows given a covariate": covariate_example(
        panel=False, adjustment="doubly_robust"
    ),
    "staggered doubly robust": covariate_example(adjustment="doubly_robust", weights="share"),
    "synthetic_control": region_example("synthetic_control"),
    "synthetic_control demeaned": region_example("synthetic_control", variant="demeaned"),
    "synthetic_control penalised": region_example("synthetic_control", variant="penalised"),
    "synthetic_control of several": region_example("synthetic_control", n_treated=3),
    "synthetic_did": region_example("synthetic_did"),
    "synthetic_did jackknife": region_example(
        "synthetic_did", n_treated=3, standard_errors="jackknife"
    ),
    "synthetic_did frank_wolfe": region_example(
        "synthetic_did", n_treated=3, solver="frank_wolfe", standard_errors="jackknife"
    ),
    "switchback": switchback_example(),
    "switchback washed out": switchback_example(wash_out=1, covariance="driscoll_kraay"),
    "switchback in means": switchback_example(
        season=None, fixed_effects=[], covariance="newey_west"
    ),
    "bsts": region_example("bsts", n_draws=250),
    "bsts of several": region_example("bsts", n_treated=3, n_draws=200, placebo=False),
}

pytestmark = pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())


def assert_same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(left, right, check_exact=False, rtol=1e-8, atol=1e-10)


def test_the_input_is_not_changed(example: Example) -> None:
    before = example.frame.copy(deep=True)
    example.result()

    pd.testing.assert_frame_equal(example.frame, before)


def test_the_same_seed_gives_the_same_result(example: Example) -> None:
    first, second = example.result(), example.result()

    pd.testing.assert_frame_equal(first.to_frame(), second.to_frame(), check_exact=True)
    assert first.diagnostics == second.diagnostics
    assert first.params == second.params


def test_order_and_index_of_the_rows_do_not_matter(example: Example) -> None:
    shuffled = example.frame.sample(frac=1, random_state=5)
    shuffled.index = pd.Index([f"row {7 * i % 11}" for i in range(len(shuffled))])

    assert_same(example.result(shuffled).to_frame(), example.result().to_frame())


def test_columns_that_are_not_named_do_not_matter(example: Example) -> None:
    wider = example.frame.assign(extra=np.nan, text="x")

    assert_same(example.result(wider).to_frame(), example.result().to_frame())


def test_a_constant_added_to_the_outcome_leaves_the_effect(example: Example) -> None:
    moved = example.frame.assign(**{example.outcome: example.frame[example.outcome] + 1e5})

    pd.testing.assert_frame_equal(
        example.absolute(moved)[NUMBERS], example.absolute()[NUMBERS], rtol=1e-6, atol=1e-8
    )


def test_the_effect_scales_with_the_outcome(example: Example) -> None:
    scaled = example.frame.assign(**{example.outcome: example.frame[example.outcome] * 250})
    found, base = example.absolute(scaled), example.absolute()

    for name in ("estimate", "std_error", "ci_lower", "ci_upper"):
        np.testing.assert_allclose(found[name], 250 * base[name], rtol=1e-8)
    np.testing.assert_allclose(found["pvalue"], base["pvalue"], rtol=1e-6)


def test_exchanged_arms_flip_the_sign(example: Example) -> None:
    if not example.swapped:
        pytest.skip(
            "not exchangeable: the method does not use the treated as it uses the untreated"
        )
    swapped = example.frame.assign(**{example.arm: example.frame[example.arm].map(example.swapped)})
    found, base = example.absolute(swapped), example.absolute()

    np.testing.assert_allclose(found["estimate"], -base["estimate"], rtol=1e-7)
    np.testing.assert_allclose(found["std_error"], base["std_error"], rtol=1e-7)
    assert found["n_treated"].tolist() == base["n_control"].tolist()


def test_intervals_contain_their_estimates(example: Example) -> None:
    effects = example.result().to_frame()

    assert (
        (effects["ci_lower"] < effects["estimate"]) & (effects["estimate"] < effects["ci_upper"])
    ).all()
    assert (effects["std_error"] > 0).all()
    assert effects["pvalue"].between(0, 1).all()
    assert (effects["confidence_level"] == 0.95).all()
    assert ((effects["pvalue"] < 0.05) == (effects["ci_lower"] * effects["ci_upper"] > 0)).all()


def test_more_confidence_is_wider(example: Example) -> None:
    method = registry.method(example.method)
    spec = validate(method.SPEC, example.data() | {"confidence_level": 0.99})
    wide = run(method.estimate(spec), PandasEngine(example.frame)).to_frame()
    base = example.result().to_frame()

    assert (wide["ci_upper"] - wide["ci_lower"] > base["ci_upper"] - base["ci_lower"]).all()
    assert wide["estimate"].tolist() == base["estimate"].tolist()


def test_the_truth_is_within_four_standard_errors(example: Example) -> None:
    effects = [item for item in example.result().effects if item.scale == "absolute"]

    assert effects
    for effect in effects:
        assert abs(effect.estimate - example.truth(effect)) < 4 * effect.std_error, effect


def test_a_missing_column_is_named(example: Example) -> None:
    for name in example.frame.columns:
        if f"'{name}'" not in str(example.options):
            continue
        with pytest.raises(CausalError) as caught:
            example.result(example.frame.drop(columns=name))
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage", ["one arm", "zero variance", "no rows", "duplicate keys", "nulls only"]
)
def test_data_that_cannot_carry_the_analysis(example: Example, damage: str) -> None:
    frame = example.frame
    damaged = {
        "one arm": frame.assign(**{example.arm: example.one_arm}),
        "zero variance": frame.assign(**{example.outcome: 4.0}),
        "no rows": frame.head(0),
        "duplicate keys": pd.concat([frame, frame.head(3)]),
        "nulls only": frame.assign(**{example.outcome: np.nan}),
    }[damage]

    with pytest.raises(CausalError) as caught:
        example.result(damaged)

    assert "\n" not in str(caught.value)
    assert caught.value.exit_code in {1, 3}


def test_text_in_place_of_numbers_is_refused(example: Example) -> None:
    with pytest.raises(CausalError, match=f"must hold numbers; given: {example.outcome}"):
        example.result(example.frame.assign(**{example.outcome: "many"}))


def test_infinite_outcomes_are_refused(example: Example) -> None:
    outcome = example.frame[example.outcome].mask(example.frame.index == 3, np.inf)

    with pytest.raises(CausalError, match=r"not finite|NaN or infinite"):
        example.result(example.frame.assign(**{example.outcome: outcome}))


def test_a_misspelt_option_is_refused(example: Example) -> None:
    with pytest.raises(SpecError, match=r"options.confidence_levl: unknown key"):
        validate(registry.method(example.method).SPEC, example.data(confidence_levl=0.9))


def test_effects_have_the_columns_of_the_table(example: Example) -> None:
    frame = example.result().to_frame()

    assert tuple(frame.columns) == EFFECT_COLUMNS
    assert not frame.duplicated(["estimator", "metric", "term", "scale"]).any()
    assert frame.drop(columns=["df", "n_clusters"]).notna().all(axis=None)


def test_results_and_specs_are_frozen_and_pickle(example: Example) -> None:
    result, spec = example.result(), example.spec
    back = pickle.loads(pickle.dumps(result))  # noqa: S301 - made in this line

    assert back.effects == result.effects
    assert back.params == result.params
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301 - made in this line
    assert hash(result.effects[0]) == hash(back.effects[0])
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.effects[0].estimate = 0.0
    with pytest.raises(ValidationError):
        spec.name = "other"


def test_diagnostics_say_what_they_found(example: Example) -> None:
    diagnostics = example.result().diagnostics

    assert diagnostics
    assert all(item.detail and "\n" not in item.detail for item in diagnostics)
    assert all(item.passed is not False for item in diagnostics)


def test_figures_are_drawn(example: Example) -> None:
    result = example.result()
    open_before = plt.get_fignums()
    figures = registry.method(example.method).figures(example.spec, result)

    assert figures
    assert all(isinstance(figure, Figure) and figure.axes for figure in figures.values())
    assert all(name.replace("_", "").isalnum() for name in figures)
    assert plt.get_fignums() == open_before, "figures are made without pyplot's global state"


def test_every_method_has_an_example(example: Example) -> None:
    assert example.method in registry.names()
    assert {item.method for item in EXAMPLES.values()} == set(registry.names())
