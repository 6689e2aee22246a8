"""Results are immutable, complete and unrounded, and errors are one line with an exit code."""

import dataclasses
import json
import math
import pickle

import pandas as pd
import pytest

from causal.core.errors import (
    CausalError,
    ConcurrencyError,
    DataError,
    HealthError,
    InferenceError,
    SpecError,
)
from causal.core.inference import effect
from causal.core.result import (
    DIAGNOSTIC_COLUMNS,
    EFFECT_COLUMNS,
    Diagnostic,
    Effect,
    Result,
    Scale,
    sentence,
)


def made(estimate: float = 1 / 3, *, scale: Scale = "absolute") -> Effect:
    return effect(
        estimator="welch", estimand="ate", metric="minutes", term="treatment - control",
        scale=scale, estimate=estimate, std_error=0.1, confidence_level=0.95, df=17.5,
        n_treated=1200, n_control=1300,
    )  # fmt: skip


CHECKS = (
    Diagnostic(name="srm", statistic=0.2, pvalue=0.7, passed=True, detail="shares as planned"),
    Diagnostic(name="balance", statistic=9.0, pvalue=1e-4, passed=False, detail="unbalanced"),
    Diagnostic(name="rows", statistic=None, pvalue=None, passed=None, detail="3 rows left out"),
)


@pytest.fixture
def result() -> Result:
    return Result(
        effects=(made(), made(0.05, scale="relative")),
        diagnostics=CHECKS,
        params={"theta": 0.25},
        tables={"arms": pd.DataFrame({"arm": ["a", "b"], "mean": [1.0, 2.0]})},
    )


def test_columns_of_the_frames(result: Result) -> None:
    assert tuple(result.to_frame().columns) == EFFECT_COLUMNS
    assert tuple(result.diagnostics_frame().columns) == DIAGNOSTIC_COLUMNS
    assert tuple(Result(effects=()).to_frame().columns) == EFFECT_COLUMNS
    assert tuple(Result(effects=()).diagnostics_frame().columns) == DIAGNOSTIC_COLUMNS


def test_nothing_is_rounded(result: Result) -> None:
    assert result.to_frame()["estimate"][0] == 1 / 3
    assert json.loads(result.effects_json())[0]["estimate"] == 1 / 3


def test_json_holds_every_field(result: Result) -> None:
    effects, checks = json.loads(result.effects_json()), json.loads(result.diagnostics_json())

    assert [tuple(row) for row in effects] == [EFFECT_COLUMNS] * 2
    assert [tuple(row) for row in checks] == [DIAGNOSTIC_COLUMNS] * 3
    assert effects[0]["n_clusters"] is None
    assert checks[2] == dataclasses.asdict(CHECKS[2])


def test_open_intervals_are_text_in_json() -> None:
    open_ended = dataclasses.replace(made(), ci_lower=-math.inf, ci_upper=math.inf)
    row = json.loads(Result(effects=(open_ended,)).effects_json())[0]

    assert (row["ci_lower"], row["ci_upper"]) == ("-Infinity", "Infinity")


def test_a_result_cannot_be_changed(result: Result) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.effects = ()  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.effects[0].estimate = 0.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        result.params["theta"] = 1.0  # type: ignore[index]
    with pytest.raises(TypeError):
        result.tables["arms"] = pd.DataFrame()  # type: ignore[index]


def test_later_changes_of_the_arguments_do_not_reach_it() -> None:
    params = {"theta": 0.25}
    result = Result(effects=(), params=params)
    params["theta"] = 9.0

    assert result.params["theta"] == 0.25


def test_a_result_pickles(result: Result) -> None:
    back = pickle.loads(pickle.dumps(result))  # noqa: S301 - made in this line

    assert back.effects == result.effects
    assert back.diagnostics == result.diagnostics
    assert back.params == result.params
    pd.testing.assert_frame_equal(back.tables["arms"], result.tables["arms"])
    with pytest.raises(TypeError):
        back.params["theta"] = 1.0


def test_the_summary_is_a_line_each(result: Result) -> None:
    lines = result.summary().splitlines()

    assert len(lines) == 5
    assert lines[0] == sentence(result.effects[0])
    assert lines[2:] == [
        "ok: srm: shares as planned", "FAILED: balance: unbalanced", "note: rows: 3 rows left out",
    ]  # fmt: skip


def test_a_sentence_names_the_numbers() -> None:
    assert sentence(made()).startswith(
        "minutes | treatment - control | ate (welch): +0.3333, 95% interval [+0.1228, +0.5439]"
    )
    assert "+5.00%, 95% interval [" in sentence(made(0.05, scale="relative"))
    assert sentence(made()).endswith("n = 1,200 / 1,300")


def test_failed_checks(result: Result) -> None:
    assert [item.name for item in result.failed_checks] == ["balance"]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (CausalError, 1),
        (InferenceError, 1),
        (SpecError, 2),
        (DataError, 3),
        (HealthError, 4),
        (ConcurrencyError, 5),
    ],
)
def test_exit_codes(kind: type[CausalError], code: int) -> None:
    assert kind("x").exit_code == code
    assert isinstance(kind("x"), CausalError)


def test_an_error_is_one_line_that_says_all() -> None:
    error = SpecError(
        "unknown\nkey", given="outcom", allowed=["a", "b"], file="spec.yaml", key="options.outcom"
    )

    assert str(error) == "spec.yaml: options.outcom: unknown key; given: outcom; allowed: a, b"
    assert str(CausalError("only this")) == "only this"
    assert str(DataError("zero", given=0)) == "zero; given: 0"


def test_long_lists_are_cut() -> None:
    text = str(SpecError("x", allowed=range(40)))

    assert text.endswith("10, 11, and 28 more")


def test_a_place_is_filled_in_only_where_it_is_unknown() -> None:
    error = DataError("x", key="options.unit").located(file="a.yaml", key="source")

    assert type(error) is DataError
    assert (error.file, error.key) == ("a.yaml", "options.unit")
    assert error.located(file="b.yaml").file == "a.yaml"
