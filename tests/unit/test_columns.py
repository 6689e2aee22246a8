"""Names of worlds and their tables."""

import pytest

from causal.core.errors import SpecError
from transforms.columns import DRIVER_WORLD, SUBSCRIBER_WORLD, quoted, worlds
from transforms.tables import table


def test_both_means_all_worlds() -> None:
    assert worlds("both") == (SUBSCRIBER_WORLD, DRIVER_WORLD)
    assert worlds("drivers") == (DRIVER_WORLD,)


def test_an_unknown_world_is_refused() -> None:
    with pytest.raises(SpecError, match="given: riders; allowed: both, subscribers, drivers"):
        worlds("riders")


def test_quoting_takes_names_literally() -> None:
    assert quoted("a.b") == "`a.b`"
    assert quoted("a`b") == "`a``b`"


def test_experiment_units_hold_covariates_of_the_unit_and_of_its_cluster() -> None:
    columns = table("subscriber_experiment_units").columns

    assert {"pre_minutes", "cluster_pre_minutes", "minutes", "is_retained"} <= set(columns)
    assert "is_uptake" in columns
    assert "is_uptake" not in table("driver_experiment_units").columns
