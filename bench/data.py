"""Data files that both sides of a question read: Parquet written by numpy and pyarrow, kept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

N_DAYS = 56
FIRST_DAY = 28
N_STRATA = 20
N_PERIODS = 14
N_FILES = 8
N_FEATURES = 10
N_COVARIATES = 20
N_WEEKS = 26
SEED = 20261121

Columns = dict[str, np.ndarray]


def unit_days(folder: Path, *, n_units: int) -> Path:
    """Unit-days, a unit's days side by side: unit_id, day (from 0), minutes, revenue."""

    def rows(rng: np.random.Generator, units: np.ndarray) -> Columns:
        level = np.exp(rng.normal(3.5, 0.8, len(units)))[:, None]
        days = np.broadcast_to(np.arange(N_DAYS, dtype=np.int32), (len(units), N_DAYS))
        lift = 1.0 + 0.03 * ((units[:, None] % 2 == 1) & (days >= FIRST_DAY))
        minutes = np.floor(rng.gamma(2.0, 0.5, days.shape) * level * lift)
        revenue = np.floor(minutes * rng.random(days.shape) * 2.0) / 100.0
        return {
            "unit_id": np.repeat(units, N_DAYS),
            "day": days.ravel(),
            "minutes": minutes.ravel(),
            "revenue": revenue.ravel(),
        }

    return _files(folder / f"unit_days_{n_units}", n_units, rows)


def assignments(folder: Path, *, n_units: int) -> Path:
    """unit_id, variant (control or treatment) and stratum."""

    def rows(rng: np.random.Generator, units: np.ndarray) -> Columns:
        return {
            "unit_id": units,
            "variant": np.where(units % 2 == 1, "treatment", "control"),
            "stratum": rng.integers(0, N_STRATA, len(units), dtype=np.int32),
        }

    return _files(folder / f"assignments_{n_units}", n_units, rows)


def experiment_units(folder: Path, *, n_units: int) -> Path:
    """One row per unit: unit_id, variant, revenue (many zeros, a heavy tail) and pre_revenue."""

    def rows(rng: np.random.Generator, units: np.ndarray) -> Columns:
        size = len(units)
        taste = rng.normal(0.0, 1.0, size)
        spent, before = (
            np.where(rng.random(size) < 0.3, np.exp(2.0 + taste + rng.normal(0.0, 1.0, size)), 0.0)
            for _ in range(2)
        )
        return {
            "unit_id": units,
            "variant": np.where(rng.random(size) < 0.5, "treatment", "control"),
            "revenue": np.round(spent, 2),
            "pre_revenue": np.round(before, 2),
        }

    return _files(folder / f"experiment_units_{n_units}", n_units, rows)


def campaign(folder: Path, *, n_units: int) -> Path:
    """A randomised campaign: unit_id, variant, converted (0 or 1) and ten features f0 to f9."""

    def rows(rng: np.random.Generator, units: np.ndarray) -> Columns:
        features = rng.normal(0.0, 1.0, (N_FEATURES, len(units)))
        is_treated = rng.random(len(units)) < 0.5
        gain = 0.05 + 0.05 * np.tanh(features[0]) - 0.04 * (features[1] > 1.0)
        chance = 0.2 + 0.05 * np.tanh(features[2] + features[0] * features[3]) + gain * is_treated
        return {
            "unit_id": units,
            "variant": np.where(is_treated, "treatment", "control"),
            "converted": (rng.random(len(units)) < chance).astype(np.int32),
            **{f"f{number}": column for number, column in enumerate(features)},
        }

    return _files(folder / f"campaign_{n_units}", n_units, rows)


def panel(folder: Path, *, n_units: int) -> Path:
    """A balanced panel with a staggered start: unit_id, period, first_treated_period, y, d.

    `first_treated_period` is null for a unit that is never treated; `d` is the treatment dummy.
    """

    def rows(rng: np.random.Generator, units: np.ndarray) -> Columns:
        periods = np.broadcast_to(np.arange(N_PERIODS, dtype=np.int32), (len(units), N_PERIODS))
        first = rng.choice(np.array([5.0, 7.0, 9.0, 11.0, np.nan]), len(units))[:, None]
        treated = periods >= first
        outcome = rng.normal(10.0, 2.0, len(units))[:, None] + 0.1 * periods + 0.5 * treated
        return {
            "unit_id": np.repeat(units, N_PERIODS),
            "period": periods.ravel(),
            "first_treated_period": np.broadcast_to(first, periods.shape).ravel(),
            "d": treated.astype(np.float64).ravel(),
            "y": (outcome + rng.normal(0.0, 1.0, periods.shape)).ravel(),
        }

    return _files(folder / f"panel_{n_units}", n_units, rows)


def encouragement(folder: Path, *, n_rows: int) -> Path:
    """An encouragement design: y, d (uptake), z1, z2 (offers), x1, x2 (covariates)."""

    def rows(rng: np.random.Generator, units: np.ndarray) -> Columns:
        size = len(units)
        x1, x2 = np.exp(rng.normal(3.0, 0.7, size)), rng.normal(40.0, 10.0, size)
        z1, z2 = (rng.integers(0, 2, size).astype(np.float64) for _ in range(2))
        hidden = rng.normal(0.0, 1.0, size)
        uptake = 0.5 * z1 + 0.3 * z2 + 0.01 * x1 + hidden + rng.normal(0.0, 1.0, size) > 0.8
        y = 100.0 + 4.0 * uptake + 0.5 * x1 + 0.2 * x2 + 3.0 * hidden + rng.normal(0.0, 5.0, size)
        return {"y": y, "d": uptake.astype(np.float64), "z1": z1, "z2": z2, "x1": x1, "x2": x2}

    return _files(folder / f"encouragement_{n_rows}", n_rows, rows)


def confounded(folder: Path, *, n_rows: int) -> Path:
    """Rows of a treatment that nobody randomised: d (0 or 1), y and covariates x0 to x19.

    Half of the covariates are normal, a quarter counts and a quarter 0 or 1; the effect of d is 1
    on average and grows with x0.
    """

    def rows(rng: np.random.Generator, units: np.ndarray) -> Columns:
        size, quarter = len(units), N_COVARIATES // 4
        x = np.concatenate(
            [
                rng.normal(0.0, 1.0, (2 * quarter, size)),
                rng.poisson(3.0, (quarter, size)).astype(np.float64),
                rng.integers(0, 2, (quarter, size)).astype(np.float64),
            ]
        )
        slopes = np.linspace(-0.2, 0.2, N_COVARIATES)
        d = rng.random(size) < 1.0 / (1.0 + np.exp(-slopes @ x))
        y = 10.0 + 2.0 * slopes[::-1] @ x + x[1] + (1.0 + 0.5 * x[0]) * d
        y += rng.normal(0.0, 2.0, size)
        named = {f"x{number}": column for number, column in enumerate(x)}
        return {"unit_id": units, "d": d.astype(np.int32), "y": y, **named}

    return _files(folder / f"confounded_{n_rows}", n_rows, rows)


def weeks(folder: Path, *, n_units: int) -> Path:
    """Half a year of weeks with a staggered start: unit_id, week, first_treated_week, y.

    `first_treated_week` is null for a unit that is never treated.
    """

    def rows(rng: np.random.Generator, units: np.ndarray) -> Columns:
        time = np.broadcast_to(np.arange(N_WEEKS, dtype=np.int32), (len(units), N_WEEKS))
        first = rng.choice(np.array([8.0, 12.0, 16.0, 20.0, np.nan]), len(units))[:, None]
        level = rng.normal(10.0, 2.0, len(units))[:, None]
        since = np.where(time >= first, time - first + 1.0, 0.0)
        y = level + 0.1 * time + 0.2 * np.minimum(since, 4.0) + rng.normal(0.0, 1.0, time.shape)
        return {
            "unit_id": np.repeat(units, N_WEEKS),
            "week": time.ravel(),
            "first_treated_week": np.broadcast_to(first, time.shape).ravel(),
            "y": np.round(y, 2).ravel(),
        }

    return _files(
        folder / f"weeks_{n_units}", n_units, rows, n_files=max(N_FILES, n_units // 200_000)
    )


def _files(
    path: Path,
    n_units: int,
    rows: Callable[[np.random.Generator, np.ndarray], Columns],
    *,
    n_files: int = N_FILES,
) -> Path:
    """Write the files unless they are there; a folder is complete or absent."""
    if path.exists():
        return path
    partial = path.with_name(f"{path.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    for number, units in enumerate(np.array_split(np.arange(1, n_units + 1), n_files)):
        columns = rows(np.random.default_rng([SEED, number]), units)
        table = pa.table({name: _array(values) for name, values in columns.items()})
        parquet.write_table(table, partial / f"part-{number:02}.parquet", compression="zstd")
    return partial.rename(path)


def _array(values: np.ndarray) -> pa.Array:
    return pa.array(values, from_pandas=True)
