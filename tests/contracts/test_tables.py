"""What every declared table must fulfil."""

import re
from pathlib import Path
from typing import get_args

import pytest
from pyspark.sql import types

from causal.core.errors import SpecError
from causal.core.result import DIAGNOSTIC_COLUMNS, EFFECT_COLUMNS
from transforms.checkout_checks import CHECKOUT_CHECKS
from transforms.columns import WORLDS, World
from transforms.data_dictionary import data_dictionary
from transforms.quality_page import quality_page
from transforms.result_tables import RESULT_TABLES
from transforms.schema import Table
from transforms.sql_checks import SqlCheck
from transforms.synthetic.checkout.parameters import CheckoutFault
from transforms.synthetic.checkout.tables import CHECKOUT_TABLES
from transforms.synthetic.tables import WORLD_TABLES
from transforms.tables import DERIVED_TABLES, TABLES, table

ROOT = Path(__file__).parents[2]
IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")

every_table = pytest.mark.parametrize("declared", TABLES.values(), ids=TABLES.keys())
every_world = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS.keys())


def test_table_names_are_unique() -> None:
    names = [entry.name for entry in (*WORLD_TABLES, *DERIVED_TABLES, *RESULT_TABLES)]

    assert sorted(names) == sorted(TABLES)


@every_table
def test_names_are_plain_identifiers(declared: Table) -> None:
    names = [declared.name, *declared.columns, *declared.checks]

    assert all(IDENTIFIER.fullmatch(name) for name in names)


@every_table
def test_every_column_says_what_it_holds(declared: Table) -> None:
    comments = [declared.comment, *(field.comment for field in declared.fields)]

    assert all(len(comment) >= 4 and comment[-1] != "." for comment in comments)
    assert all("\n" not in comment for comment in comments)


@every_table
def test_key_columns_identify_and_are_not_null(declared: Table) -> None:
    fields = {field.name: field for field in declared.fields}

    assert declared.key
    assert len(set(declared.key)) == len(declared.key)
    assert not any(fields[name].is_nullable for name in declared.key)
    assert not any(
        isinstance(fields[name].data_type, types.DoubleType | types.ArrayType)
        for name in declared.key
    )


@every_table
def test_clustering_columns_exist(declared: Table) -> None:
    assert set(declared.clustering) <= set(declared.columns)


@every_table
def test_schema_carries_nulls_and_comments(declared: Table) -> None:
    schema = declared.schema

    assert schema.fieldNames() == list(declared.columns)
    for field, stored in zip(declared.fields, schema.fields, strict=True):
        assert stored.nullable == field.is_nullable
        assert stored.metadata == {"comment": field.comment}


@every_table
def test_names_tell_the_type(declared: Table) -> None:
    for field in declared.fields:
        if field.name.startswith(("is_", "has_")):
            assert field.type == "BOOLEAN"
        if field.name.endswith("_on"):
            assert field.type == "DATE"
        if field.name.endswith("_at"):
            assert field.type == "TIMESTAMP"
        if field.name.startswith("n_"):
            assert field.type in {"INT", "BIGINT"}


@every_table
def test_checks_name_columns_of_the_table(declared: Table) -> None:
    for predicate in declared.checks.values():
        without_texts = re.sub(r"'[^']*'", "", predicate)
        words = set(re.findall(r"\b[a-z_][a-z0-9_]*\b", without_texts)) - {"size"}
        assert words <= set(declared.columns)


@every_world
def test_worlds_name_tables_and_columns_that_exist(world: World) -> None:
    population, days = table(world.name), table(world.table("days"))
    outcomes = {outcome.name for outcome in world.outcomes}
    household = set() if world.household is None else {world.household}

    assert {world.unit, world.place, *world.segments, *household} <= set(population.columns)
    assert {world.unit, "activity_on", *outcomes} <= set(days.columns)
    assert world.activity in outcomes
    assert world.has_uptakes == (world.table("uptakes") in TABLES)


def test_effects_hold_every_field_of_an_effect() -> None:
    assert table("effects").columns[-len(EFFECT_COLUMNS) :] == EFFECT_COLUMNS


def test_diagnostics_hold_every_field_of_a_diagnostic() -> None:
    assert table("diagnostics").columns[-len(DIAGNOSTIC_COLUMNS) :] == DIAGNOSTIC_COLUMNS


def test_an_unknown_table_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SpecError, match="there is no such table; given: nothing; allowed: "):
        table("nothing")


def test_the_data_dictionary_is_current() -> None:
    stored = (ROOT / "docs" / "data-dictionary.md").read_text(encoding="utf-8")

    assert stored == data_dictionary(), "run python -m transforms.data_dictionary"


def test_the_page_of_quality_checks_is_current() -> None:
    stored = (ROOT / "docs" / "quality-checks.md").read_text(encoding="utf-8")

    assert stored == quality_page(), "run python -m transforms.quality_page"


def test_every_fault_of_the_records_has_a_check_of_its_name() -> None:
    without_a_trace = {"novelty"}

    assert {check.name for check in CHECKOUT_CHECKS} == set(get_args(CheckoutFault)) - (
        without_a_trace
    )


@pytest.mark.parametrize("check", CHECKOUT_CHECKS, ids=lambda check: check.name)
def test_checks_name_declared_tables(check: SqlCheck) -> None:
    named = set(re.findall(r"\bcheckout_[a-z]+\b", check.sql))

    assert named
    assert named <= {entry.name for entry in CHECKOUT_TABLES}
    assert check.sql.strip().startswith(("SELECT", "WITH"))
    assert ";" not in check.sql
