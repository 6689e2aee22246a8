"""Which periods follow each other without a hole."""

import datetime as dt
from collections.abc import Sequence

import pandas as pd
import pytest

from causal.core.errors import DataError
from causal.quasi.time_axis import Label, check_spacing

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
