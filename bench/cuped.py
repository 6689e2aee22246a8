"""CUPED statistics from unit-days, and again from the Gram frame that was stored on the way."""

from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pandas as pd

from bench import data, engine
from bench.harness import Bench, DisagreementError, Question, Sides, compare
from causal.core.frames import Column, Condition, GramRequest
from causal.core.gram import grams, unpack
from causal.core.stored_gram import StoredGramEngine
from jobs.runtime.lakehouse import Lakehouse
from transforms.gram import SparkEngine
from transforms.result_tables import GRAM
from transforms.stored_frames import answers_of, rows_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MINUTES, REVENUE = (
    (Column("minutes"), Column("pre_minutes")),
    (Column("revenue"), Column("pre_revenue")),
)
STATISTICS = GramRequest(terms=(*MINUTES, *REVENUE), by=("variant", "stratum"))
ANOTHER_CUT = GramRequest(
    terms=REVENUE, by=("variant",), where=(Condition("stratum", tuple(range(10))),)
)
_TOLERANCE = 1e-9


def units_of(session: "SparkSession", *, days: Path, assigned: Path) -> "DataFrame":
    """One row per unit: variant, stratum and sums before and during the experiment."""
    from pyspark.sql import functions as F

    is_before = F.col("day") < data.FIRST_DAY
    totals = [
        F.sum(F.when(condition, F.col(name)).otherwise(0.0)).alias(f"{prefix}{name}")
        for name in ("minutes", "revenue")
        for prefix, condition in (("", ~is_before), ("pre_", is_before))
    ]
    sums = session.read.parquet(str(days)).groupBy("unit_id").agg(*totals)
    units = session.read.parquet(str(assigned)).join(sums, on="unit_id", how="left")
    return units.fillna(0.0, subset=[term.name for term in (*MINUTES, *REVENUE)])


def duckdb_statistics(
    *, days: Path, assigned: Path, request: GramRequest, where: str = "true"
) -> pd.DataFrame:
    """The same sums in one statement of DuckDB: keys, n, sums and sums of products."""
    names = [term.name for term in request.terms if isinstance(term, Column)]
    totals = ", ".join(
        f"sum(CASE WHEN day {'<' if name.startswith('pre_') else '>='} {data.FIRST_DAY}"
        f" THEN {name.removeprefix('pre_')} ELSE 0 END) AS {name}"
        for name in names
    )
    filled = ", ".join(f"coalesce({name}, 0) AS {name}" for name in names)
    products = ", ".join(
        f"sum({a} * {b}) AS {a}_{b}" for i, a in enumerate(names) for b in names[i:]
    )
    sums = ", ".join(f"sum({name}) AS {name}" for name in names)
    by = ", ".join(request.by)
    return duckdb.sql(
        f"""
        WITH sums AS (
            SELECT unit_id, {totals} FROM '{days}/*.parquet' GROUP BY unit_id
        ), units AS (
            SELECT {by}, {filled} FROM '{assigned}/*.parquet' LEFT JOIN sums USING (unit_id)
            WHERE {where}
        )
        SELECT {by}, count(*) AS n, {sums}, {products} FROM units GROUP BY {by} ORDER BY {by}
        """
    ).df()


def prepare_statistics(bench: Bench) -> Sides:
    """Question: CUPED statistics of two metrics by variant and stratum."""
    session = bench.session()
    n_units = bench.size(1_000_000, small=2_000)
    days = data.unit_days(bench.data, n_units=n_units)
    assigned = data.assignments(bench.data, n_units=n_units)

    def ours() -> pd.DataFrame:
        units = units_of(session, days=days, assigned=assigned)
        return SparkEngine(units, is_derived=True)(STATISTICS)

    return Sides(
        ours=ours,
        peer=lambda: duckdb_statistics(days=days, assigned=assigned, request=STATISTICS),
        check=lambda a, b: _check(a, b, STATISTICS),
        rows=n_units * data.N_DAYS,
        notes={"units": n_units, "metrics": 2, "groups": 2 * data.N_STRATA},
    )


def prepare_stored(bench: Bench) -> Sides:
    """Question: another metric and cut from the stored frame, read from its Delta table."""
    session = bench.session()
    n_units = bench.size(1_000_000, small=2_000)
    days = data.unit_days(bench.data, n_units=n_units)
    assigned = data.assignments(bench.data, n_units=n_units)
    lakehouse = Lakehouse(session=session, settings=engine.settings(bench.data))
    answer = SparkEngine(units_of(session, days=days, assigned=assigned))(STATISTICS)
    rows = rows_of(
        STATISTICS, answer, analysis="bench", source="unit_days", source_identity=str(n_units)
    )
    lakehouse.write(lakehouse.frame(rows, GRAM.name), GRAM.name, run_key=f"bench-{n_units}")

    def ours() -> pd.DataFrame:
        stored = answers_of([lakehouse.read(GRAM.name).toPandas()])
        return StoredGramEngine(stored)(ANOTHER_CUT)

    return Sides(
        ours=ours,
        peer=lambda: duckdb_statistics(
            days=days, assigned=assigned, request=ANOTHER_CUT, where="stratum < 10"
        ),
        check=lambda a, b: _check(a, b, ANOTHER_CUT),
        rows=n_units * data.N_DAYS,
        notes={"stored_rows": len(rows)},
    )


def _check(ours: pd.DataFrame, peer: pd.DataFrame, request: GramRequest) -> None:
    """Means and centred cross-products agree, group by group."""
    found = grams(ours, request)
    for row in peer.to_dict("records"):
        held = found.pop(tuple(row[name] for name in request.by))
        names = [term.name for term in request.terms if isinstance(term, Column)]
        packed = [row[f"{a}_{b}"] for i, a in enumerate(names) for b in names[i:]]
        n, sums = row["n"], np.array([row[name] for name in names])
        cross = unpack(np.array(packed), len(names)) - np.outer(sums, sums) / n
        np.testing.assert_equal(held.n, n)
        np.testing.assert_allclose(held.mean, sums / n, rtol=_TOLERANCE)
        np.testing.assert_allclose(held.cross, cross, rtol=_TOLERANCE)
    if found:
        raise DisagreementError(f"groups that the peer lacks: {sorted(found, key=str)}")


QUESTIONS = (
    Question(
        name="cuped",
        work="CUPED statistics from 56 M unit-days",
        peer="DuckDB on the same Parquet files",
        target=1.5,
        measure=compare(prepare_statistics),
    ),
    Question(
        name="cuped_stored",
        work="the same from the stored Gram table (another metric and cut)",
        peer="DuckDB, scanning again",
        target=0.1,
        measure=compare(prepare_stored),
    ),
)
