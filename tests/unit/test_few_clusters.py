"""The one rule about few clusters."""

from collections.abc import Mapping

import pytest

from causal.checks import few_clusters


@pytest.mark.parametrize(("n_clusters", "passed"), [(49, None), (50, True)])
def test_the_total_is_a_note(n_clusters: int, *, passed: bool | None) -> None:
    found = few_clusters.total(n_clusters)
    assert (found.name, found.statistic, found.passed) == ("n_clusters", n_clusters, passed)


@pytest.mark.parametrize(
    ("counts", "effective", "is_corrected", "passed"),
    [
        ({"treated": 9, "others": 400}, None, False, False),
        ({"treated": 10, "others": 400}, None, False, None),
        ({"a": 3, "b": 400}, None, True, False),
        ({"a": 4, "b": 400}, None, True, None),
        ({"a": 30, "b": 400}, (3.2, 380.0), True, False),
        ({"a": 30, "b": 400}, (18.0, 380.0), True, None),
        ({"a": 5, "b": 5}, (5.0,), True, False),
        ({"a": 6, "b": 6}, (6.0,), True, None),
        ({"treated": 8}, None, False, False),
    ],
)
def test_each_side_needs_clusters_of_its_own(
    counts: Mapping[str, int],
    effective: tuple[float, ...] | None,
    *,
    is_corrected: bool,
    passed: bool | None,
) -> None:
    (found,) = few_clusters.sides(
        counts, name="sides", effective=effective, is_corrected=is_corrected
    )
    assert found.passed is passed
    assert found.statistic == min(counts.values())
    assert ("worth" in found.detail) == (effective is not None and len(effective) > 1)
    assert "\n" not in found.detail


def test_enough_clusters_need_no_remark() -> None:
    assert few_clusters.sides({"a": 20, "b": 21}, name="sides") == []
