"""Fit one analysis to many regions and outcomes at once: a task of the cluster for every few fits.

A spec is that of an analysis of a panel of regions (`synthetic_control`, `synthetic_did`, `bsts`)
with a section `fits` that says what it is repeated over (docs/methods/fits.md). Each treated region
is compared by itself with the never-treated ones. A fit that fails is a row with its reason.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

from pydantic import Field

from causal.core.errors import CausalError
from causal.fits import fits_readout, fits_spec
from causal.fits.fits_spec import FitsSpec
from jobs import analyze
from jobs.runtime import analyses, many_fits, readout
from jobs.runtime.context import Context
from jobs.runtime.contract import CommandJob, JobConfig
from jobs.runtime.many_fits import FitsRun
from jobs.runtime.runner import record

_SHOWN = 15


class FitsConfig(JobConfig):
    """Options of the job.

    Attributes:
        spec: The specs; those of `conf/fits` if left out.
        output: Folder for the tables and the figures.
    """

    spec: tuple[Path, ...] = Field(default=(), description="specs (default: all of conf/fits)")
    output: Path | None = Field(
        default=None,
        description="folder for effects.json, diagnostics.json, fits.csv, summary.md and the "
        "figures; several specs get a folder each",
    )

    @property
    def paths(self) -> tuple[Path, ...]:
        """The spec files."""
        return self.spec or analyses.default_specs("fits")


def check(config: FitsConfig) -> None:
    """Validate specs, the options of their fits and the output folder without Spark."""
    loaded = _loaded(config.paths)
    readout.check_output(config.output, below=analyze.own_folders(loaded))


def run(context: Context, config: FitsConfig) -> int:
    """Make the fits of every spec; the exit code.

    Raises:
        CausalError: Fits could not be made at all, or every fit of a spec failed (what the others
            found is written).
    """
    for found in run_all(context, config):
        if found.failure is not None:
            raise found.failure
    return 0


def run_all(context: Context, config: FitsConfig) -> list[FitsRun]:
    """Make the fits of every spec, store and show them.

    Raises:
        CausalError: Fits could not be made at all; those of the specs before are written.
    """
    loaded = _loaded(config.paths)
    done = []
    for number, item in enumerate(loaded, start=1):
        context.progress.bar(done=number - 1, total=len(loaded), label=item.spec.name)
        found = many_fits.run(context, analyses.bind(context, item))
        written = analyze.store(context, [found])
        if written:
            record(context, [analyze.run_record(found, written, job="fits")])
        folder = config.output
        if folder is not None and len(loaded) > 1:
            folder = folder / found.spec.name
        if folder is not None:
            readout.leave_files(folder, texts={"fits.csv": _fits_csv(found)}, figures={})
        more = partial(many_fits.track_clearest, context, found)
        analyze.leave(context, found, output=folder, more=more)
        _show(context, found)
        done.append(found)
    return done


def _loaded(paths: Sequence[Path]) -> tuple[analyses.Analysis, ...]:
    loaded = analyses.load_all(paths, model=FitsSpec)
    for item in loaded:
        try:
            fits_spec.check(cast("FitsSpec", item.spec))
        except CausalError as error:
            raise item.located(error) from error
    return loaded


def _fits_csv(found: FitsRun) -> str:
    table = found.result.tables["fits"]
    return str(table.to_csv(index=False, lineterminator="\n")).rstrip("\n")


def _show(context: Context, found: FitsRun) -> None:
    """The closing summary."""
    table = found.result.tables["fits"]
    chosen = fits_readout.discoveries(found.fits_spec, table)
    shown = chosen.head(_SHOWN)
    more = f", the {len(shown)} clearest of {len(chosen)}" if len(chosen) > len(shown) else ""
    columns = ["metric", "unit", "estimate", "ci_lower", "ci_upper", "pvalue", "pvalue_adjusted"]
    context.progress.table(
        f"{found.spec.name}: effects after the correction{more}",
        ["metric", "region", "effect", "from", "to", "p", "p adjusted"],
        shown[columns].to_numpy().tolist(),
    )
    context.progress.text("\n" + "\n".join(item.detail for item in found.overview))
    for reason, n_fits in fits_readout.reasons(found.found):
        context.progress.warning(f"{n_fits} fits failed: {reason}")


JOB = CommandJob(name="fits", config=FitsConfig, run=run, check=check)
