"""A wrong spec is one line with the key, what was given and what is allowed."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from causal.core.errors import SpecError
from causal.core.frames import Condition
from causal.core.spec import Part, Source, Spec, validate
from causal.experiments.ab import AbSpec
from causal.quasi.did_options import DidSpec


class Knob(Part):
    name: str
    turns: int = Field(default=1, ge=1)


class Dials(Part):
    outcome: str
    knobs: list[Knob] = Field(default_factory=list)
    knob: Knob | None = None
    share: float | Literal["equal"] = 0.5


class DialSpec(Spec):
    method: Literal["dial"]
    options: Dials


def data(**options: Any) -> dict[str, Any]:
    return {
        "name": "one",
        "source": {"table": "causalake.units"},
        "method": "dial",
        "options": {"outcome": "y", **options},
    }


def complaint(given: dict[str, Any], *, model: type[Spec] = DialSpec) -> SpecError:
    with pytest.raises(SpecError) as caught:
        validate(model, given, file="spec.yaml")
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("spec.yaml: ")
    assert caught.value.exit_code == 2
    return caught.value


def test_a_good_spec_is_built_and_frozen() -> None:
    spec = validate(DialSpec, data(knobs=[{"name": "a", "turns": 2}]))

    assert spec.options.knobs[0].turns == 2
    assert (spec.confidence_level, spec.seed, spec.truth) == (0.95, 0, None)
    with pytest.raises(ValidationError):
        spec.name = "other"


@pytest.mark.parametrize(
    ("options", "key", "says"),
    [
        ({"outcom": "y"}, "options.outcom", "unknown key, did you mean 'outcome'?"),
        ({"wheel": 1}, "options.wheel", "unknown key"),
        ({"knobs": [{"nam": "a"}]}, "options.knobs.0.nam", "did you mean 'name'?"),
        ({"knob": {"name": "a", "turn": 1}}, "options.knob.turn", "did you mean 'turns'?"),
        ({"knobs": [{"name": "a"}, {}]}, "options.knobs.1.name", "this key is required"),
        ({"knobs": [{"name": "a", "turns": 0}]}, "options.knobs.0.turns", "greater than or equal"),
        ({"knobs": [{"name": 3}]}, "options.knobs.0.name", "valid string"),
        ({"knobs": "a"}, "options.knobs", "valid list"),
        ({"share": "most"}, "options.share", "; given: 'most'"),
        ({"outcome": None}, "options.outcome", "valid string"),
    ],
)
def test_what_is_wrong_and_where(options: dict[str, Any], key: str, says: str) -> None:
    error = complaint(data(**options))

    assert error.key == key
    assert says in str(error)


def test_a_misspelt_key_is_told_before_the_one_it_left_missing() -> None:
    given = data()
    given["options"] = {"outcomes": "y"}
    error = complaint(given)

    assert error.key == "options.outcomes"
    assert "did you mean 'outcome'? (and 1 more)" in str(error)
    assert error.allowed == ["knob", "knobs", "outcome", "share"]


@pytest.mark.parametrize("missing", ["name", "source", "method", "options"])
def test_a_missing_part(missing: str) -> None:
    given = {key: value for key, value in data().items() if key != missing}

    assert complaint(given).key == missing


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "Has Blanks"),
        ("name", "x" * 64),
        ("confidence_level", 0.5),
        ("confidence_level", 1.0),
        ("confidence_level", float("nan")),
        ("seed", -1),
        ("method", "did"),
        ("truth", {"world": "moon", "design": "x"}),
    ],
)
def test_values_out_of_range(key: str, value: object) -> None:
    error = complaint(data() | {key: value})

    assert str(error.key).split(".")[0] == key


@pytest.mark.parametrize("given", [None, [], "text", 3])
def test_a_spec_is_a_mapping(given: object) -> None:
    with pytest.raises(SpecError, match="a mapping of keys to values is expected; given: "):
        validate(DialSpec, given)


def test_a_prefix_says_where_the_data_stand() -> None:
    with pytest.raises(SpecError) as caught:
        validate(Knob, {"turns": 1}, prefix="jobs.dial")

    assert caught.value.key == "jobs.dial.name"


@pytest.mark.parametrize(
    ("where", "key"), [({"table": "a.b", "path": "c"}, "source.table"), ({}, "source")]
)
def test_one_place_to_read(where: dict[str, str], key: str) -> None:
    error = complaint(data() | {"source": where})

    assert error.key == key
    assert "give exactly one of table and path" in str(error)


@pytest.mark.parametrize("table", ["a b", "a.b.c.d", "a;drop", "1a", ""])
def test_table_names_are_names(table: str) -> None:
    assert complaint(data() | {"source": {"table": table}}).key == "source.table"


def test_conditions_of_a_source() -> None:
    source = Source(table="a.b", where={"v": "x", "n": [1, 2], "flag": True})

    assert source.conditions == (
        Condition("v", ("x",)), Condition("n", (1, 2)), Condition("flag", (True,)),
    )  # fmt: skip


METRIC = {"name": "m", "type": "mean", "column": "y"}
AB = {
    "name": "one",
    "source": {"table": "t"},
    "method": "ab",
    "options": {"unit": "u", "variant": "v", "control": "a", "metrics": [METRIC]},
}
DID = {
    "name": "one",
    "source": {"table": "t"},
    "method": "did",
    "options": {
        "unit": "u", "period": "t", "outcome": "y", "first_treated_period": "g",
        "estimator": "twfe",
    },
}  # fmt: skip


def changed(base: dict[str, Any], **options: Any) -> dict[str, Any]:
    return base | {"options": base["options"] | options}


UNIONS: list[tuple[type[Spec], dict[str, Any], str]] = [
    (AbSpec, changed(AB, metrics=[METRIC | {"covariates": [3]}]), "options.metrics.0.covariates.0"),
    (
        AbSpec,
        changed(AB, metrics=[METRIC | {"covariates": [{"numerator": "n"}]}]),
        "options.metrics.0.covariates.0.denominator",
    ),
    (
        AbSpec,
        changed(AB, metrics=[METRIC | {"covariates": [{"numerator": "n", "denominatr": "d"}]}]),
        "options.metrics.0.covariates.0.denominatr",
    ),
    (AbSpec, changed(AB, control=["a"]), "options.control"),
    (AbSpec, changed(AB, control=None), "options.control"),
    (DidSpec, changed(DID, outcome=3), "options.outcome"),
    (DidSpec, changed(DID, outcome=[]), "options.outcome"),
    (DidSpec, changed(DID, outcome=["y", 3]), "options.outcome.1"),
    (AbSpec, AB | {"source": {"table": "t", "where": {"v": None}}}, "source.where.v"),
    (AbSpec, AB | {"source": {"table": "t", "where": {"v": [None]}}}, "source.where.v.0"),
    (AbSpec, AB | {"source": {"table": "t", "where": {"v": []}}}, "source.where.v"),
]


@pytest.mark.parametrize(("model", "given", "key"), UNIONS, ids=[key for _, _, key in UNIONS])
def test_keys_of_unions_are_keys_of_the_file(
    model: type[Spec], given: dict[str, Any], key: str
) -> None:
    assert complaint(given, model=model).key == key


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", True), ("seed", "7"), ("confidence_level", "0.95"), ("confidence_level", True)],
)
def test_numbers_are_not_converted(key: str, value: object) -> None:
    data = {"name": "x", "source": {"table": "t"}, "method": "ab", key: value}
    with pytest.raises(SpecError, match=key):
        validate(Spec, data)


class Range(Part):
    """A spec with a rule about two keys, and a value that is a word or a share."""

    low: float = 0.0
    high: float = 1.0
    share: Literal["even", "odd"] | Annotated[float, Field(gt=0.0, lt=1.0, strict=True)] = "even"
    names: str | Annotated[list[str], Field(min_length=1)] = "all"

    @model_validator(mode="after")
    def _ascending(self) -> "Range":
        if self.low > self.high:
            raise ValueError("bounds: high must not be below low")
        if self.low < 0:
            raise ValueError("negative bounds make no sense")
        return self


def test_a_rule_about_several_keys_points_at_the_one_that_it_names() -> None:
    with pytest.raises(SpecError) as caught:
        validate(Range, {"low": 3.0, "high": 2.0})
    assert str(caught.value) == "high: bounds: high must not be below low; given: 2.0"
    with pytest.raises(SpecError) as caught:
        validate(Range, {"low": -3.0}, prefix="limits")
    assert caught.value.key == "limits"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"share": 1.5}, "share: Input should be 'even' or 'odd', or less than 1; given: 1.5"),
        ({"share": 0}, "share: Input should be 'even' or 'odd', or greater than 0; given: 0"),
        ({"share": "x"}, "share: Input should be 'even' or 'odd', or a valid number; given: 'x'"),
        ({"names": 3}, "names: Input should be a valid string, or a valid list; given: 3"),
        (
            {"names": []},
            (
                "names: Input should be a valid string; or List should have at least 1 item after "
                "validation, not 0; given: []"
            ),
        ),
    ],
)
def test_all_that_a_value_may_be_is_told(given: dict[str, object], text: str) -> None:
    with pytest.raises(SpecError) as caught:
        validate(Range, given)
    assert str(caught.value) == text
