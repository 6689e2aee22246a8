"""Days pooled answer what one pass over all rows answers."""

import datetime as dt
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from causal.core.daily_gram import DailyGramEngine, pooled_days
from causal.core.errors import DataError
from causal.core.frames import Column, GramRequest, KeyRequest
from causal.core.gram import grams
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.experiments import ab
from tests import experiment_worlds as worlds

USERS = worlds.users(1000)
DAYS = sorted(set(USERS["entered_on"]))
REQUEST = GramRequest(terms=(Column("profit"), Column("orders")), by=("variant",))


class Source:
    """Aggregates days of the test's rows and remembers which."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows = rows
        self.asked: list[tuple[GramRequest, dt.date]] = []

    def __call__(
        self, request: GramRequest, days: Sequence[dt.date]
    ) -> dict[dt.date, pd.DataFrame]:
        self.asked += [(request, day) for day in days]
        return {
            day: PandasEngine(self.rows[self.rows["entered_on"] == day])(request) for day in days
        }


def engine(source: Source, **held: object) -> DailyGramEngine:
    return DailyGramEngine(
        DAYS, column="entered_on", held=held.get("held", {}), ask=source,  # type: ignore[arg-type]
        otherwise=PandasEngine(source.rows),
    )  # fmt: skip


def test_an_experiment_by_days_is_the_experiment() -> None:
    spec = worlds.spec()
    expected = run(ab.estimate(spec), PandasEngine(USERS))
    found = run(ab.estimate(spec), engine(Source(USERS)))

    assert len(found.effects) == len(expected.effects)
    for ours, theirs in zip(found.effects, expected.effects, strict=True):
        assert ours.estimate == pytest.approx(theirs.estimate, rel=1e-10)
        assert ours.std_error == pytest.approx(theirs.std_error, rel=1e-10)
        assert (ours.n_treated, ours.n_control) == (theirs.n_treated, theirs.n_control)


def test_only_days_that_are_not_held_are_aggregated() -> None:
    source = Source(USERS)
    first = engine(source)
    first(REQUEST)
    late = DAYS[3]
    changed = Source(USERS.assign(profit=USERS["profit"] + (USERS["entered_on"] == late)))
    kept = {
        request: {day: frame for day, frame in days.items() if day != late}
        for request, days in first.answers.items()
    }
    again = engine(changed, held=kept)
    answer = again(REQUEST)

    assert changed.asked == [(REQUEST, late)]
    assert list(again.made[REQUEST]) == [late]
    found, expected = grams(answer, REQUEST), grams(PandasEngine(changed.rows)(REQUEST), REQUEST)
    for key, one in expected.items():
        assert found[key].n == one.n
        np.testing.assert_allclose(found[key].cross, one.cross, rtol=1e-10)


def test_large_means_keep_their_digits() -> None:
    rows = USERS.assign(profit=1e8 + USERS["orders"] % 2)
    found = grams(engine(Source(rows))(REQUEST), REQUEST)
    expected = grams(PandasEngine(rows)(REQUEST), REQUEST)
    for key, one in expected.items():
        np.testing.assert_allclose(found[key].cross, one.cross, rtol=1e-6)


def test_other_requests_are_passed_on() -> None:
    source = Source(USERS)
    answer = engine(source)(KeyRequest(key=("user",)))
    assert int(answer["n"].iloc[0]) == len(USERS)
    assert source.asked == []


def test_a_request_by_day_is_refused() -> None:
    by_day = GramRequest(terms=(Column("profit"),), by=("entered_on",))
    with pytest.raises(DataError, match="among the keys"):
        pooled_days(by_day, Source(USERS)(by_day, DAYS), column="entered_on")


def test_sums_of_clusters_are_asked_of_all_rows() -> None:
    """The rows of a cluster may lie on several days."""
    rows = USERS.assign(home=USERS["user"] % 50)
    request = GramRequest(terms=(Column("profit"),), by=("variant",), summed_by=("home",))
    source = Source(rows)
    found, expected = grams(engine(source)(request), request), PandasEngine(rows)(request)

    assert source.asked == []
    for key, one in grams(expected, request).items():
        assert found[key].n == one.n
        np.testing.assert_allclose(found[key].cross, one.cross)
