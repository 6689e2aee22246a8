"""Two-stage least squares with HC1 errors: against two passes of DuckDB, and linearmodels."""

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
from linearmodels.iv import IV2SLS

from bench import data
from bench.harness import Bench, Question, Sides, compare
from causal.core.frames import Column, Engine, GramRequest, MeatRequest
from causal.core.gram import gram, meat, unpack
from causal.core.inference import hc1_factor
from causal.regression.equation import Moments, k_class
from transforms.gram import SparkEngine

NAMES = ("y", "d", "z1", "z2", "x1", "x2")
_TOLERANCE = 1e-8
Y, D, Z1, Z2, X1, X2 = (Column(name) for name in NAMES)

Fit = tuple[np.ndarray, np.ndarray]


def with_causalake(engine: Engine) -> Fit:
    """Coefficients (intercept, d, x1, x2) and their HC1 errors in two requests."""
    request = GramRequest(terms=(Y, D, Z1, Z2, X1, X2))
    moments = Moments.of(gram(engine(request), request), intercept=True)
    fit = k_class(moments, outcome=Y, regressors=(D, X1, X2), instruments=(Z1, Z2, X1, X2))
    covariance, _ = meat(engine(MeatRequest(scores=fit.scores(range(fit.k)))))
    return fit.coefficients, np.sqrt(hc1_factor(n=fit.n, k=fit.k) * np.diag(covariance))


def with_duckdb(path: Path) -> Fit:
    """The same in two statements of DuckDB; the first sums raw products."""
    files = f"'{path}/*.parquet'"
    pairs = [(a, b) for i, a in enumerate(NAMES) for b in NAMES[i:]]
    sums = ", ".join(
        [f"sum({name}) AS {name}" for name in NAMES] + [f"sum({a} * {b})" for a, b in pairs]
    )
    row = duckdb.sql(f"SELECT count(*), {sums} FROM {files}").fetchall()[0]
    n, means = row[0], np.array(row[1 : 1 + len(NAMES)])
    moment = np.block(
        [[np.array([[n]]), means[None, :]], [means[:, None], unpack(np.array(row[7:]), len(NAMES))]]
    )
    x, z, y = [0, 2, 5, 6], [0, 3, 4, 5, 6], 1
    first = np.linalg.solve(moment[np.ix_(z, z)], moment[np.ix_(z, x)])
    bread = np.linalg.inv(moment[np.ix_(x, z)] @ first)
    coefficients = bread @ first.T @ moment[z, y]
    columns = ("1", *NAMES)
    residual = "y - (" + _combined(coefficients, [columns[i] for i in x]) + ")"
    fitted = _combined(first[:, 1], [columns[i] for i in z])
    scores = ["r", "f * r", "x1 * r", "x2 * r"]
    listed = ", ".join(f"sum(({a}) * ({b}))" for i, a in enumerate(scores) for b in scores[i:])
    packed = duckdb.sql(
        f"SELECT {listed} FROM (SELECT {residual} AS r, {fitted} AS f, x1, x2 FROM {files})"
    ).fetchall()[0]
    crossed = unpack(np.array(packed), len(scores))
    covariance = hc1_factor(n=n, k=len(x)) * bread @ crossed @ bread
    return coefficients, np.sqrt(np.diag(covariance))


def with_linearmodels(rows: pd.DataFrame) -> Fit:
    """The same with linearmodels on a frame in memory."""
    exogenous = rows[["x1", "x2"]].assign(const=1.0)[["const", "x1", "x2"]]
    fit = IV2SLS(rows["y"], exogenous, rows[["d"]], rows[["z1", "z2"]]).fit(
        cov_type="robust", debiased=True
    )
    order = ["const", "d", "x1", "x2"]
    return fit.params[order].to_numpy(), fit.std_errors[order].to_numpy()


def prepare_duckdb(bench: Bench) -> Sides:
    """Question: 10 M rows of Parquet."""
    session = bench.session()
    n_rows = bench.size(10_000_000, small=20_000)
    path = data.encouragement(bench.data, n_rows=n_rows)
    return Sides(
        ours=lambda: with_causalake(SparkEngine(session.read.parquet(str(path)))),
        peer=lambda: with_duckdb(path),
        check=check,
        rows=n_rows,
        notes={"terms": len(NAMES)},
    )


def prepare_linearmodels(bench: Bench) -> Sides:
    """Question: 2 M rows; the peer's are in memory."""
    session = bench.session()
    n_rows = bench.size(2_000_000, small=20_000)
    path = data.encouragement(bench.data, n_rows=n_rows)
    in_memory = pd.read_parquet(path)
    return Sides(
        ours=lambda: with_causalake(SparkEngine(session.read.parquet(str(path)))),
        peer=lambda: with_linearmodels(in_memory),
        check=check,
        rows=n_rows,
        notes={"terms": len(NAMES)},
    )


def check(ours: Fit, peer: Fit) -> None:
    """Coefficients and errors agree to 1e-8."""
    np.testing.assert_allclose(ours[0], peer[0], rtol=_TOLERANCE)
    np.testing.assert_allclose(ours[1], peer[1], rtol=_TOLERANCE)


def _combined(coefficients: np.ndarray, columns: list[str]) -> str:
    return " + ".join(
        f"({float(value)!r}::DOUBLE) * {name}"
        for value, name in zip(coefficients, columns, strict=True)
    )


QUESTIONS = (
    Question(
        name="iv_duckdb",
        work="2SLS with HC1, 10 M rows",
        peer="DuckDB, two passes",
        target=2.5,
        measure=compare(prepare_duckdb),
    ),
    Question(
        name="iv_linearmodels",
        work="2SLS with HC1, 2 M rows",
        peer="linearmodels, data in memory",
        target=0.2,
        measure=compare(prepare_linearmodels),
    ),
)
