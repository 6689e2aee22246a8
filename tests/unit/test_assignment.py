"""The plain twin of the salted-hash assignment."""

import hashlib
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causal.core.errors import SpecError
from transforms.assignment import hash_uniform, stratified_variants, variant

ARMS = ("control", "light", "full")
SHARES = (0.5, 0.25, 0.25)
shares_of_three = st.tuples(*[st.integers(1, 100)] * 3).map(
    lambda parts: tuple(part / sum(parts) for part in parts)
)
salts = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable())


# First 13 hexadecimal digits of `printf '%s' SALT:UNIT | sha256sum`.
@pytest.mark.parametrize(
    ("salt", "unit", "digits", "arm"),
    [
        ("loyalty-2026", 1, "f8e6cef8117e0", "full"),
        ("loyalty-2026", 42, "22080bf879de7", "control"),
        ("loyalty-2026", 9007199254740993, "e84da111fa944", "full"),
        ("salt", "unité", "b9e9aa0a5d50a", "light"),
        ("a", "b", "6783a31eabf68", "control"),
    ],
)
def test_published_vectors(salt: str, unit: str | int, digits: str, arm: str) -> None:
    assert hash_uniform(unit, salt=salt) == int(digits, 16) / 2**52
    assert variant(unit, salt=salt, variants=ARMS, shares=SHARES) == arm


@given(salt=salts, unit=st.integers(0, 2**62))
def test_a_draw_lies_in_the_unit_interval_and_repeats(salt: str, unit: int) -> None:
    draw = hash_uniform(unit, salt=salt)

    assert 0.0 <= draw < 1.0
    assert draw == hash_uniform(str(unit), salt=salt)
    assert draw == int(hashlib.sha256(f"{salt}:{unit}".encode()).hexdigest()[:13], 16) / 2**52


@given(salt=salts)
def test_draws_are_uniform(salt: str) -> None:
    n = 4_000
    counts = Counter(int(hash_uniform(unit, salt=salt) * 10) for unit in range(n))

    statistic = sum((counts[bin_] - n / 10) ** 2 / (n / 10) for bin_ in range(10))
    assert statistic < 60.0  # chi-square with 9 degrees of freedom: p = 1e-9


def test_salts_are_independent() -> None:
    n = 20_000
    agree = sum(
        variant(unit, salt="one", variants=("a", "b"), shares=(0.5, 0.5))
        == variant(unit, salt="two", variants=("a", "b"), shares=(0.5, 0.5))
        for unit in range(n)
    )

    assert abs(agree / n - 0.5) < 0.02


@given(shares=shares_of_three, salt=salts)
def test_arms_have_their_shares(shares: tuple[float, ...], salt: str) -> None:
    n = 3_000
    counts = Counter(variant(u, salt=salt, variants=ARMS, shares=shares) for u in range(n))

    for arm, share in zip(ARMS, shares, strict=True):
        assert abs(counts[arm] / n - share) < 6.5 * (share * (1 - share) / n) ** 0.5 + 1e-9


@given(
    strata=st.dictionaries(st.integers(0, 10**9), st.sampled_from("abc"), min_size=1),
    shares=shares_of_three,
    salt=salts,
)
def test_strata_are_balanced_to_one_unit(
    strata: dict[str | int, str], shares: tuple[float, ...], salt: str
) -> None:
    assigned = stratified_variants(strata, salt=salt, variants=ARMS, shares=shares)

    for stratum in set(strata.values()):
        units = [unit for unit in strata if strata[unit] == stratum]
        counts = Counter(assigned[unit] for unit in units)
        for arm, share in zip(ARMS, shares, strict=True):
            assert abs(counts[arm] - share * len(units)) < 1.0 + 1e-6


@given(
    units=st.lists(st.integers(0, 10**9), min_size=2, unique=True),
    rng=st.randoms(use_true_random=False),
)
def test_stratified_assignment_ignores_the_order(units: list[int], rng: random.Random) -> None:
    strata: dict[str | int, str] = {unit: str(unit % 3) for unit in units}
    items = list(strata.items())
    rng.shuffle(items)

    first = stratified_variants(strata, salt="s", variants=ARMS, shares=SHARES)
    assert stratified_variants(dict(items), salt="s", variants=ARMS, shares=SHARES) == first


def test_a_stratum_of_one_is_fair() -> None:
    n = 4_000
    counts = Counter(
        stratified_variants({1: f"only-{i}"}, salt="s", variants=ARMS, shares=SHARES)[1]
        for i in range(n)
    )

    assert abs(counts["control"] / n - 0.5) < 0.04


@pytest.mark.parametrize(
    ("variants", "shares", "message"),
    [
        ((), (), "variants must be named, each once"),
        (("a", "a"), (0.5, 0.5), "variants must be named, each once"),
        (("a", "b"), (1.0,), "each variant needs a share"),
        (("a", "b"), (0.5, 0.4), "shares must be positive and add to one"),
        (("a", "b"), (1.0, 0.0), "shares must be positive and add to one"),
        (("a", "b"), (float("nan"), 1.0), "shares must be positive and add to one"),
    ],
)
def test_wrong_plans_are_refused(
    variants: tuple[str, ...], shares: tuple[float, ...], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        variant(1, salt="s", variants=variants, shares=shares)


def test_an_empty_salt_is_refused() -> None:
    with pytest.raises(SpecError, match="an assignment needs a salt"):
        hash_uniform(1, salt="")
