"""BG/NBD on every customer by distinct histories, beside a fit of the rows of one in a hundred."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize, special

from bench.harness import Bench, DisagreementError, Question, Sides, compare
from causal.clv.fitting import ClvFit, ClvOptions, fit
from causal.core import plan
from transforms.gram import SparkEngine

_THETA = (0.6, 6.0, 0.9, 2.0)
_WEEKS = (26, 39)
_CHUNK = 1_000_000
_TOLERANCE = 5.0
"""Standard errors by which a fit of a part may differ from one of all."""


def customers(n: int, *, seed: int) -> pd.DataFrame:
    """Histories of a BG/NBD world in whole weeks: `x`, `t_x` and `T`."""
    rng = np.random.default_rng(seed)
    r, alpha, a, b = _THETA
    age = rng.integers(*_WEEKS, n).astype(float)
    rate, leave = rng.gamma(r, 1 / alpha, n).clip(1e-300), rng.beta(a, b, n)
    frequency, recency, time = np.zeros(n), np.zeros(n), np.zeros(n)
    here = np.arange(n)
    while len(here):
        time[here] += rng.exponential(1 / rate[here])
        here = here[time[here] <= age[here]]
        recency[here], frequency[here] = time[here], frequency[here] + 1
        here = here[rng.random(len(here)) > leave[here]]
    return pd.DataFrame({"x": frequency, "t_x": np.ceil(recency), "T": age})


def stored(folder: Path, *, n: int) -> Path:
    """The customers as Parquet files, made once."""
    target = folder / f"purchases_{n}"
    if not (target / "_done").exists():
        target.mkdir(parents=True, exist_ok=True)
        for part, start in enumerate(range(0, n, _CHUNK)):
            rows = customers(min(_CHUNK, n - start), seed=part)
            rows.to_parquet(target / f"part-{part:03d}.parquet", index=False)
        (target / "_done").touch()
    return target


def by_rows(rows: pd.DataFrame) -> np.ndarray:
    """Parameters by a simplex search over the sum of the rows' log-likelihoods, as lifetimes does.

    Returns:
        r, alpha, a, b.
    """
    x, recency, age = (rows[name].to_numpy() for name in ("x", "t_x", "T"))

    def loss(logs: np.ndarray) -> float:
        r, alpha, a, b = np.exp(logs)
        first = special.gammaln(r + x) - special.gammaln(r) + r * np.log(alpha)
        second = special.betaln(a, b + x) - special.betaln(a, b)
        stayed = -(r + x) * np.log(alpha + age)
        left = np.log(a) - np.log(b + x.clip(min=1) - 1) - (r + x) * np.log(alpha + recency)
        both = np.logaddexp(stayed, np.where(x > 0, left, -np.inf))
        return -float((first + second + both).mean())

    found = optimize.minimize(
        loss, np.zeros(4), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-9}
    )
    return np.exp(found.x)


def prepare(bench: Bench) -> Sides:
    """Question: all customers by cells against a hundredth of them by rows."""
    n = bench.size(10_000_000, small=200_000)
    files = stored(bench.data, n=n)
    frame = bench.session().read.parquet(str(files))
    n_rows = n // 100
    rows = pd.read_parquet(files / "part-000.parquet").head(n_rows)
    options = ClvOptions(frequency="x", recency="t_x", age="T")
    return Sides(
        ours=lambda: plan.run(fit(options), SparkEngine(frame)),
        peer=lambda: by_rows(rows),
        check=check,
        rows=n,
        notes={"customers": n, "customers_of_the_peer": n_rows},
    )


def check(ours: ClvFit, peer: np.ndarray) -> None:
    """The peer's parameters are those of a hundredth of the customers, in its standard errors."""
    errors = np.sqrt(np.diag(ours.purchases.covariance) * 100)
    off = np.abs(np.log(peer) - np.log(ours.purchases.parameters)) / errors
    if off.max() > _TOLERANCE:
        raise DisagreementError(f"{off.max():.1f} standard errors from the fit of all")


QUESTIONS = (
    Question(
        name="bg_nbd",
        work="BG/NBD on 10 M customers by distinct histories, from Parquet to parameters",
        peer="scipy on the rows of 100,000 of them, data in memory",
        target=1.0,
        measure=compare(prepare, n_warm=1),
    ),
)
