"""Which periods follow each other without a hole."""

import datetime as dt
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from causal.core.errors import DataError
from causal.quasi.time_axis import (
    GivenPeriod,
    Label,
    between,
    check_spacing,
    given_label,
    lies_after,
    n_before,
    period_label,
    period_labels,
    shown,
)

MONTHS = [float(100 * year + month) for year in (2019, 2020, 2021) for month in range(1, 13)]
DAYS = [dt.date(2026, 1, 5) + dt.timedelta(days=at) for at in range(60)]
AS_DAYS = [float(f"{day:%Y%m%d}") for day in DAYS]
WEEKS = [dt.date(2020, 11, 2) + dt.timedelta(days=7 * at) for at in range(60)]
AS_WEEKS = [float(f"{day:%G%V}") for day in WEEKS]
FIRSTS = [float(100 * month + 1) for month in MONTHS]

EVEN: dict[str, Sequence[Label]] = {
    "years": [1990.0, 1991.0, 1992.0],
    "every second year": [1990.0, 1992.0, 1994.0],
    "weeks before and after zero": [-2.0, -1.0, 0.0, 1.0],
    "months": MONTHS,
    "days": AS_DAYS,
    "weeks, of which 2020 has 53": AS_WEEKS,
    "first days of months": FIRSTS,
    "dates": [pd.Timestamp(day) for day in DAYS],
    "dates of months": [pd.Timestamp(str(int(day))) for day in FIRSTS],
    "one period": [3.0],
}


@pytest.mark.parametrize("labels", EVEN.values(), ids=EVEN.keys())
def test_even_periods(labels: Sequence[Label]) -> None:
    check_spacing(labels, column="period")


@pytest.mark.parametrize(
    ("labels", "hole"),
    [
        (EVEN["years"], "1990 to 1992"),
        (MONTHS, "201901 to 201903"),
        (MONTHS[11:], "201912 to 202002"),
        (AS_DAYS[26:], "20260131 to 20260202"),
        (AS_WEEKS[8:], "202053 to 202102"),
        (FIRSTS, "20190101 to 20190301"),
        (EVEN["dates"], "2026-01-05 to 2026-01-07"),
    ],
)
def test_a_hole_is_named(labels: Sequence[Label], hole: str) -> None:
    damaged = [*labels[:1], *labels[2:], *([] if len(labels) > 3 else [1993.0])]

    with pytest.raises(DataError, match=f"in period; given: 1 holes, such as {hole}; allowed"):
        check_spacing(damaged, column="period")


@pytest.mark.parametrize(
    "labels",
    [
        [201911.0, 201912.0, 202001.5],
        [201912.0, 201913.0, 202001.0],
        [20260230.0, 20260301.0, 20260303.0],
    ],
)
def test_numbers_that_write_no_dates_are_numbers(labels: Sequence[Label]) -> None:
    with pytest.raises(DataError, match="unevenly spaced"):
        check_spacing(labels, column="period")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (37, "37"),
        (20260131, "20260131"),
        (0.5, "0.5"),
        ("2025-03-01", "2025-03-01"),
        ("2025-03", "2025-03-01"),
        ("2025-03-01 06:30:00", "2025-03-01 06:30:00"),
        ("2025-03-01T00:00:00", "2025-03-01"),
        ("2025-03-01T01:00:00+02:00", "2025-02-28 23:00:00"),
        ("9999-12-31", "9999-12-31"),
    ],
)
def test_values_of_a_column_are_labels(value: str | float, expected: str) -> None:
    assert shown(period_label(value, column="week")) == expected


@pytest.mark.parametrize(
    "value", ["37", "w3", "01/02/2025", "1.2.2025", "20250301", "2025-02-30", "", np.inf]
)
def test_values_that_are_no_periods(value: str | float) -> None:
    with pytest.raises(DataError, match=r"week must hold numbers or dates; given: .*allowed: 2026"):
        period_label(value, column="week")


def test_a_column_holds_one_kind_of_period() -> None:
    assert period_labels([3, 1.5], column="week") == {3: 3.0, 1.5: 1.5}
    with pytest.raises(DataError, match="week must hold numbers, or dates, not both"):
        period_labels([3, "2025-03-01"], column="week")
    with pytest.raises(DataError, match="one period in two ways; given: 2025-03-01, 2025-03-01T00"):
        period_labels(["2025-03-01", "2025-03-02", "2025-03-01T00:00"], column="week")


def test_periods_of_the_spec_are_of_the_kind_of_the_data() -> None:
    day = pd.Timestamp("2025-03-01")

    assert given_label(dt.date(2025, 3, 1), like=day, key="start") == day
    assert given_label(dt.datetime(2025, 3, 1, 2, tzinfo=dt.UTC), like=day, key="start") > day  # type: ignore[operator]
    for given, like in ((3.0, day), (dt.date(2025, 3, 1), 3.0)):
        with pytest.raises(DataError, match=r"options.start: the spec and the data must both give"):
            given_label(given, like=like, key="start")
        with pytest.raises(ValueError, match="must both be numbers, or both dates"):
            lies_after(given, like)
    assert lies_after(dt.date(2025, 3, 2), dt.datetime(2025, 3, 1, 23))  # noqa: DTZ001
    assert not lies_after(3.0, 3.0)


def test_periods_between_two_of_the_spec() -> None:
    days = [pd.Timestamp(day) for day in DAYS[:5]]
    keys = ("first", "last")

    inside = between(DAYS[1], DAYS[3], like=days[0], keys=keys)
    assert [inside(day) for day in days] == [False, True, True, True, False]
    assert all(map(between(None, dt.date(9999, 12, 31), like=days[0], keys=keys), days))
    starts = (days[0], days[3], pd.Timestamp("2026-01-08 06:00"))
    assert [n_before(days, start) for start in starts] == [0, 3, 4]
    assert n_before((1.0, 2.0, 4.0), 3.0) == 2
    assert n_before(pd.Index(days), pd.Timestamp("9999-12-31")) == 5


@pytest.mark.parametrize("last", [dt.date(2025, 4, 5), dt.datetime(2025, 4, 5, 9)])  # noqa: DTZ001
def test_a_last_day_is_included_to_its_end(last: GivenPeriod) -> None:
    labels = [pd.Timestamp(f"2025-04-0{day} {hour}") for day in (4, 5, 6) for hour in ("00", "09")]
    is_within = between(None, last, like=labels[0], keys=("first_period", "last_period"))

    assert [is_within(label) for label in labels] == [True] * 4 + [False] * 2
    later = pd.Timestamp("2025-04-05 23:59:59.999999")
    assert is_within(later) == (not isinstance(last, dt.datetime))
