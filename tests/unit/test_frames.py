"""Terms and requests: plain values that travel as JSON and say which columns they read."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causal.core.frames import (
    Between,
    Clipped,
    Column,
    Condition,
    Constant,
    EventTime,
    Exponential,
    FrameRequest,
    GramRequest,
    HistogramRequest,
    Indicator,
    KeyRequest,
    Linear,
    Logistic,
    MeatRequest,
    PanelGramRequest,
    Product,
    Reciprocal,
    Score,
    SquareRoot,
    StartsIn,
    Term,
    UnitSeen,
    UnitValue,
    columns_of,
    decode,
    describe,
    encode,
    fingerprint,
    indicator_terms,
    label,
    linear,
    numeric_columns_of,
    packed_indices,
    packed_size,
)

NAMES = st.sampled_from(["y", "x", "region", "a b", "ünit", "kind", "1", "null"])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
LEVELS = st.one_of(st.text(max_size=4), st.integers(-9, 9), st.booleans(), NUMBERS)
BOUNDS = st.none() | st.integers(-9, 9)


def _combinations(terms: st.SearchStrategy[Term]) -> st.SearchStrategy[Term]:
    pairs = st.lists(st.tuples(terms, NUMBERS), max_size=3)
    return st.one_of(
        st.lists(terms, max_size=3).map(lambda factors: Product(tuple(factors))),
        pairs.map(linear),
        st.builds(Clipped, terms, st.none() | NUMBERS, st.none() | NUMBERS),
        st.builds(Between, terms, st.none() | NUMBERS, st.none() | NUMBERS, st.booleans()),
        st.builds(Logistic, terms),
        st.builds(Exponential, terms),
        st.builds(Reciprocal, terms),
        st.builds(SquareRoot, terms),
    )


TERMS: st.SearchStrategy[Term] = st.recursive(
    st.one_of(
        st.builds(Column, NAMES),
        st.builds(Constant, NUMBERS),
        st.builds(Indicator, NAMES, LEVELS),
        st.builds(EventTime, NAMES, NAMES, low=BOUNDS, high=BOUNDS),
        st.builds(UnitValue, st.integers(0, 9)),
        st.builds(UnitSeen, st.integers(0, 9)),
        st.builds(StartsIn, NUMBERS),
    ),
    _combinations,
    max_leaves=6,
)
KEYS = st.lists(NAMES, max_size=3, unique=True).map(tuple)
CONDITIONS = st.lists(
    st.builds(Condition, NAMES, st.lists(LEVELS, min_size=1, max_size=3).map(tuple)), max_size=2
).map(tuple)
SCORES = st.lists(st.builds(Score, TERMS, TERMS), max_size=3).map(tuple)
REQUESTS: st.SearchStrategy[FrameRequest] = st.one_of(
    st.builds(
        GramRequest,
        terms=st.lists(TERMS, max_size=3).map(tuple),
        by=KEYS,
        weight=st.none() | TERMS,
        absorb=st.none() | NAMES,
        where=CONDITIONS,
    ),
    st.builds(
        GramRequest,
        terms=st.lists(TERMS, max_size=3).map(tuple),
        by=KEYS,
        crossed=st.sampled_from(["all", "none"]),
    ),
    st.builds(
        MeatRequest,
        scores=SCORES,
        cluster=KEYS,
        weight=st.none() | TERMS,
        absorb=st.none() | NAMES,
        where=CONDITIONS,
    ),
    st.builds(
        PanelGramRequest,
        unit=NAMES,
        period=NAMES,
        outcome=TERMS,
        first_treated_period=st.none() | NAMES,
        by=KEYS,
        covariates=st.lists(TERMS, max_size=2).map(tuple),
        values=st.lists(TERMS, max_size=2).map(tuple),
        crossed=st.sampled_from(["all", "none"]),
        where=CONDITIONS,
    ),
    st.builds(KeyRequest, key=KEYS, where=CONDITIONS),
    st.builds(
        HistogramRequest,
        term=TERMS,
        edges=st.lists(NUMBERS, max_size=4).map(tuple),
        by=KEYS,
        where=CONDITIONS,
    ),
)

Y, X, W = Column("y"), Column("x"), Column("w")


@given(REQUESTS)
def test_requests_survive_json(request_: FrameRequest) -> None:
    back = decode(json.loads(json.dumps(encode(request_))))

    assert back == request_
    assert type(back) is type(request_)
    assert hash(back) == hash(request_)
    assert fingerprint(back) == fingerprint(request_)


def test_what_is_known_of_terms_tells_no_requests_apart() -> None:
    plain, hinted = (GramRequest(terms=(Y, X), near=near) for near in ((), ((3.0, 1.0), (0, 2.0))))

    assert plain == hinted
    assert hash(plain) == hash(hinted)
    assert fingerprint(plain) == fingerprint(hinted)
    assert encode(plain) == encode(hinted)
    with pytest.raises(ValueError, match="1 rough means of 2 terms"):
        GramRequest(terms=(Y, X), near=((3.0, 1.0),))
    for bad in ((math.nan, 1.0), (math.inf, 1.0), (0.0, -1.0), (0.0, math.nan), (0.0, math.inf)):
        with pytest.raises(ValueError, match="must be finite"):
            GramRequest(terms=(Y,), near=(bad,))


@given(TERMS)
def test_terms_survive_json(term: Term) -> None:
    assert decode(json.loads(json.dumps(encode(term)))) == term


@given(REQUESTS, REQUESTS)
def test_equal_fingerprints_mean_the_same_text(left: FrameRequest, right: FrameRequest) -> None:
    same_text = json.dumps(encode(left), sort_keys=True) == json.dumps(
        encode(right), sort_keys=True
    )

    assert (fingerprint(left) == fingerprint(right)) == same_text


@given(REQUESTS)
def test_every_request_and_term_has_a_line(request_: FrameRequest) -> None:
    assert describe(request_)
    if isinstance(request_, GramRequest):
        assert all(isinstance(label(term), str) for term in request_.terms)


@given(TERMS)
def test_numeric_columns_are_columns(term: Term) -> None:
    assert numeric_columns_of(term) <= columns_of(term)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_request_holds_no_infinity(bad: float) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        encode(GramRequest(terms=(Linear((Y,), (bad,)),)))


def test_a_gram_request_reads_terms_keys_weight_absorbed_units_and_conditions() -> None:
    term = Product((Indicator("variant", "a"), linear([(Y, 1.0), (Constant(), -2.0)])))
    request = GramRequest(
        terms=(term, EventTime("week", "start", low=0)),
        by=("region",),
        weight=W,
        absorb="unit",
        where=(Condition("country", ("DE",)),),
    )

    names = {"variant", "y", "week", "start", "region", "w", "unit", "country"}
    assert columns_of(request) == names
    assert numeric_columns_of(request) == {"y", "week", "start", "w"}


def test_a_meat_request_reads_both_sides_of_each_score() -> None:
    request = MeatRequest(scores=(Score(X, Y),), cluster=("g",), weight=W, absorb="u")

    assert columns_of(request) == {"x", "y", "g", "w", "u"}
    assert numeric_columns_of(request) == {"x", "y", "w"}


def test_a_panel_request_needs_numbers_in_its_periods() -> None:
    request = PanelGramRequest(
        unit="u", period="t", outcome=Y, first_treated_period="g", by=("region",)
    )

    assert columns_of(request) == {"u", "t", "y", "g", "region"}
    assert numeric_columns_of(request) == {"t", "y", "g"}


def test_a_key_request_reads_its_key() -> None:
    request = KeyRequest(key=("u", "t"), where=(Condition("v", ("a",)),))

    assert columns_of(request) == {"u", "t", "v"}
    assert numeric_columns_of(request) == frozenset()


def test_labels_are_short_texts() -> None:
    assert label(Product((Indicator("v", "a"), X))) == "[v=a]*x"
    assert label(EventTime("t", "g", low=0)) == "[0.. from g]"
    assert label(Clipped(X, low=0, high=99.5)) == "x within 0..99.5"
    assert label(Clipped(X, high=9)) == "x within ..9"
    assert label(Logistic(X)) == "logistic x"
    assert label(Exponential(X)) == "exp x"
    assert label(Reciprocal(X)) == "1 / x"
    assert label(SquareRoot(X)) == "root x"
    assert label(UnitSeen(3)) == "[seen 3]"
    assert label(Between(X, low=0.5)) == "[x in 0.5..]"
    assert label(Between(X, high=2.5)) == "[x in ..2.5]"
    assert label(linear([(X, 1.0), (Constant(), 2.5)])) == "(x + 1)"


def test_descriptions_say_what_is_asked() -> None:
    assert describe(GramRequest(terms=(X, Y), by=("v",))) == "gram, 2 terms by v"
    assert describe(GramRequest(terms=(X,), absorb="u")) == "gram, 1 terms within u"
    assert describe(MeatRequest(scores=(Score(X, Y),), cluster=("g",))) == "meat, 1 scores by g"
    assert describe(KeyRequest(key=("u", "t"))) == "key check of u, t"


@given(st.integers(0, 12))
def test_packed_triangles_have_all_pairs_in_order(size: int) -> None:
    pairs = list(packed_indices(size))

    assert len(pairs) == packed_size(size)
    assert pairs == sorted(pairs)
    assert all(i <= j < size for i, j in pairs)


def test_one_indicator_per_level() -> None:
    assert indicator_terms("v", ["a", "b"]) == (Indicator("v", "a"), Indicator("v", "b"))
