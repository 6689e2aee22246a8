"""What the job `fits` refuses before Spark does any work, and what it makes of failures."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest

from causal.core.errors import CausalError, DataError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.result import Effect
from causal.fits import fits_readout
from causal.fits.fitting import Fitted
from causal.fits.grid import Fit, Grid
from jobs import fits
from jobs.runtime import analyses, many_fits, readout
from jobs.runtime.analyses import Bound
from jobs.runtime.context import Context
from jobs.runtime.many_fits import FitsRun
from jobs.runtime.progress import Progress
from jobs.runtime.settings import load_settings

SPEC = """
name: by_city
source: {table: cities}
method: synthetic_control
options: {unit: city, period: day}
fits: {over: {treated: start, outcomes: [%s]}}
"""
PANEL = pd.DataFrame(
    {
        "city": list("aabb"),
        "day": [0, 1] * 2,
        "sales": 1.0,
        "note": "x",
        "start": [1, 1, None, None],
    }
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC % "sales", encoding="utf-8")
    return path


def bound(file: Path) -> Bound:
    item = analyses.load(file, model=fits.FitsSpec)
    return Bound(item, PandasEngine(PANEL), "cities", "1", None)


def context(tmp_path: Path, *, frame_rows: int = 100) -> Context:
    overrides = [f"limits.frame_rows={frame_rows}"]
    settings = load_settings(warehouse=str(tmp_path), overrides=overrides)
    return Context(settings=settings, progress=Progress(is_quiet=True))


def test_the_key_at_fault_is_named_with_its_line(file: Path) -> None:
    text = file.read_text("utf-8")
    file.write_text(text.replace("period: day}", "period: day, variannt: x}"), "utf-8")
    with pytest.raises(SpecError, match=r"spec.yaml:5: options.variannt: .*'variant'"):
        fits.check(fits.FitsConfig(spec=(file,)))


def test_an_outcome_without_numbers_is_refused(file: Path, tmp_path: Path) -> None:
    for name in ("note", "nothing"):
        file.write_text(SPEC % name, encoding="utf-8")
        with pytest.raises(SpecError, match=f"must be a column of numbers; given: {name}"):
            many_fits.run(context(tmp_path), bound(file))


def test_a_panel_that_is_too_large_for_a_task_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sum it by region and period first.*given: 4 rows"):
        many_fits.run(context(tmp_path, frame_rows=3), bound(file))


def run_of(file: Path, *codes: int) -> FitsRun:
    found = tuple(
        Fitted(
            fit=Fit(number=n, unit=f"c{n}", outcome="sales", start=1.0, is_placebo=False),
            effects=(effect(n),) if code == 0 else (), diagnostics=(),
            reason=f"failed with {code}" if code else None, exit_code=code, seconds=0.1,
        )
        for n, code in enumerate(codes)
    )  # fmt: skip
    grid = Grid(fits=tuple(f.fit for f in found), treated=("c0",), donors=("d",), n_rows=4)
    spec = bound(file).analysis.spec
    result = fits_readout.readout(cast("fits.FitsSpec", spec), found, grid=grid)
    return FitsRun(bound(file), result, datetime.now(UTC), found, grid, cast("Any", None))


def effect(number: int) -> Effect:
    return Effect(
        estimator="sdid", estimand="att", metric="sales", term="average", scale="absolute",
        estimate=float(number), std_error=0.5, statistic=2.0 * number, df=None, ci_lower=-1.0,
        ci_upper=9.0, confidence_level=0.95, pvalue=0.01, n_treated=1, n_control=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("codes", "kind"), [((3, 3), DataError), ((2, 2), SpecError), ((2, 3), CausalError)]
)
def test_all_fits_failed_is_an_error_of_their_kind(
    file: Path, codes: tuple[int, ...], kind: type[CausalError]
) -> None:
    failure = run_of(file, *codes).failure
    assert type(failure) is kind
    assert f"1 x failed with {codes[-1]}" in str(failure) or f"2 x failed with {codes[0]}" in str(
        failure
    )


def test_some_fits_failed_is_none(file: Path) -> None:
    found = run_of(file, 0, 3, 0)
    assert found.failure is None
    assert [fit.number for fit in many_fits.clearest(found)] == [2, 0]
    note = readout.note(found)
    assert readout.effect_rows(found)[0]["term"] == "average | c0"
    assert "2 of 3 fits were made" in note
    assert "average | c2" in note
    assert found.metrics["fits/n_failed"] == 1


def test_a_note_of_thousands_of_failures_is_short(file: Path) -> None:
    note = readout.note(run_of(file, 0, *[3] * 400))
    assert len(note.splitlines()) < 60
    assert "more" in note
    assert "400 x failed with 3" in note
