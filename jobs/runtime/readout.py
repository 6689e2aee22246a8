"""What a finished analysis leaves: files, rows of the result tables, an MLflow run, a few lines."""

import dataclasses
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causal.checks import health
from causal.core import registry
from causal.core.errors import SpecError
from causal.core.result import Diagnostic, Effect, Result
from causal.core.spec import Spec
from causal.observational.options import StudyOptions
from jobs.runtime.analyses import Bound
from jobs.runtime.catalogue import code_version
from jobs.runtime.settings import check_folder
from jobs.runtime.tracking import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 130
_MAX_FAILED = 25
_PACKAGES = ("pyspark", "delta-spark", "pandas", "numpy", "scipy", "statsmodels", "mlflow")


@dataclass(frozen=True)
class Readout:
    """An analysis with its result.

    Attributes:
        bound: The analysis and what it read.
        result: What it found.
        started_at: When it began, UTC.
    """

    bound: Bound
    result: Result
    started_at: datetime

    @property
    def spec(self) -> Spec:
        """The spec."""
        return self.bound.analysis.spec

    @property
    def run_key(self) -> str:
        """Names the run."""
        return self.bound.run_key

    @property
    def content_key(self) -> str:
        """Names what is stored: the run key, where it alone decides about that."""
        return self.run_key

    @property
    def stops(self) -> tuple[Diagnostic, ...]:
        """The failed checks that stop a decision."""
        return health.stops(self.result)

    @property
    def figures(self) -> Mapping[str, "Figure"]:
        """The figures by file name without ending."""
        return registry.method(self.spec.method).figures(self.spec, self.result)

    @property
    def sentences(self) -> Sequence[str]:
        """What was found, in sentences."""
        return [line(effect) for effect in headline(self.result.effects, asked=asked(self.spec))]

    @property
    def metrics(self) -> Mapping[str, float]:
        """The numbers that MLflow compares between runs, by name."""
        return dict(_metrics(self.result))


def effect_rows(readout: Readout) -> list[dict[str, Any]]:
    """Rows of the table `effects`."""
    head = {
        "run_key": readout.run_key,
        "analysis": readout.spec.name,
        "method": readout.spec.method,
    }
    return [head | dataclasses.asdict(effect) for effect in readout.result.effects]


def diagnostic_rows(readout: Readout) -> list[dict[str, Any]]:
    """Rows of the table `diagnostics`."""
    head = {"run_key": readout.run_key, "analysis": readout.spec.name}
    return [
        head | {"position": position} | dataclasses.asdict(item)
        for position, item in enumerate(readout.result.diagnostics)
    ]


def note(readout: Readout) -> str:
    """The result in plain words, as Markdown."""
    spec, result = readout.spec, readout.result
    verdict = (
        "**Do not decide on this result:** " + "; ".join(item.detail for item in readout.stops)
        if readout.stops
        else "No check stops a decision."
    )
    return "\n".join(
        [
            f"### {spec.description or spec.name}",
            "",
            *[f"- {sentence}" for sentence in readout.sentences],
            "",
            verdict,
            "",
            *_checks(result),
            f"Method `{spec.method}` on `{readout.bound.source}`"
            + ("" if readout.bound.version is None else f", version {readout.bound.version}")
            + f"; run key `{readout.run_key[:12]}`.",
        ]
    )


def headline(effects: Sequence[Effect], *, asked: Sequence[str] = ()) -> list[Effect]:
    """One effect per metric, comparison and scale: the first, which the method trusts most.

    Args:
        effects: All effects.
        asked: Estimators that the spec names; each of them has its own effect.
    """
    chosen: dict[tuple[str, str, str, str], Effect] = {}
    for effect in effects:
        own = effect.estimator if effect.estimator in asked else ""
        chosen.setdefault((effect.metric, effect.term, effect.scale, own), effect)
    return list(chosen.values())


def asked(spec: Spec) -> tuple[str, ...]:
    """Estimators that a spec names, as effects carry them; empty where it names none."""
    options = getattr(spec, "options", None)
    return options.estimators if isinstance(options, StudyOptions) else ()


def line(effect: Effect) -> str:
    """An effect in a sentence."""
    unit = "%" if effect.scale == "relative" else ""
    scale = 100.0 if effect.scale == "relative" else 1.0
    low, high = effect.ci_lower * scale, effect.ci_upper * scale
    verdict = "no clear change" if low <= 0 <= high else "up" if low > 0 else "down"
    return (
        f"**{effect.metric}**, {effect.term} ({effect.estimator}): "
        f"{effect.estimate * scale:+.4g}{unit} "
        f"[{low:+.4g}, {high:+.4g}]{unit}, p = {effect.pvalue:.3g}: {verdict}"
    )


def write_files(readout: Readout, folder: Path) -> None:
    """Leave effects, diagnostics, the spec, a summary and the figures in a folder."""
    texts = {
        "effects.json": readout.result.effects_json(),
        "diagnostics.json": readout.result.diagnostics_json(),
        "spec.json": json.dumps(readout.spec.model_dump(mode="json"), indent=2),
        "summary.md": note(readout),
    }
    leave_files(folder, texts=texts, figures=readout.figures)


def leave_files(folder: Path, *, texts: Mapping[str, str], figures: Mapping[str, "Figure"]) -> None:
    """Leave texts (by file name) and figures (by file name without ending) in a folder.

    Files are made beside the folder and moved in whole, so that no half-written file is ever seen.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".causalake-", dir=folder))
    try:
        for name, text in texts.items():
            (fresh / name).write_text(text + "\n", encoding="utf-8")
        for name, figure in figures.items():
            figure.savefig(fresh / f"{name}.png", dpi=_DPI, bbox_inches="tight")
        made = sorted(fresh.iterdir())
        check_files([folder / file.name for file in made])
        for file in made:
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(fresh)


def check_output(folder: Path | None, *, below: Iterable[str] = ()) -> None:
    """Files can be left in a folder, which is found out before anything is computed.

    Args:
        folder: From the command line; `None`: no files are wanted.
        below: Folders in it that are written to as well.

    Raises:
        SpecError: A file stands in the way, or the folder cannot be written to.
    """
    for place in () if folder is None else (folder, *(folder / name for name in below)):
        check_folder(place, key="--output")
        there = next(parent for parent in (place, *place.parents) if parent.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            raise SpecError("this folder cannot be written to", given=there, key="--output")


def check_files(files: Iterable[Path]) -> None:
    """No folder has the name of one of these files.

    Raises:
        SpecError: One has.
    """
    for file in files:
        if file.is_dir():
            raise SpecError("this is a folder, not a file", given=file, key="--output")


def versions() -> dict[str, str]:
    """Versions of the suite's code and of the packages that numbers depend on, as parameters."""
    packages = {f"version.{name}": version(name) for name in _PACKAGES}
    return {"code_version": code_version()[:16], **packages}


def tags(readout: Readout) -> dict[str, str]:
    """Tags of the MLflow run."""
    stopped = ", ".join(item.name for item in readout.stops)
    return {
        "causalake.analysis": readout.spec.name,
        "causalake.method": readout.spec.method,
        "causalake.health": f"stop: {stopped}" if stopped else "ok",
    }


def log(readout: Readout, run: Run) -> None:
    """Everything a reviewer needs, into an open MLflow run."""
    spec, result = readout.spec, readout.result
    run.note(note(readout))
    run.log_params(
        dict(flattened(spec.model_dump(mode="json", exclude_none=True)))
        | {
            "run_key": readout.run_key,
            "source_version": readout.bound.version,
            "source_identity": readout.bound.identity,
            **versions(),
        }
    )
    run.log_metrics(readout.metrics)
    run.log_table("effects", result.to_frame())
    run.log_table("diagnostics", result.diagnostics_frame().astype(object))
    for name, table in result.tables.items():
        run.log_table(f"tables/{name}", table)
    for name, figure in readout.figures.items():
        run.log_figure(f"figures/{name}", figure)
    run.log_dict("spec.yaml", spec.model_dump(mode="json"))
    run.log_text("summary.md", note(readout))
    run.log_dict("params.json", dict(result.params))


def flattened(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths of a nested mapping and their values; lists by position."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
            yield from flattened({str(i): part for i, part in enumerate(value)}, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _metrics(result: Result) -> Iterator[tuple[str, float]]:
    for effect in result.effects:
        # What tells the metrics apart comes first: MLflow cuts long names at their end.
        name = f"{effect.metric}/{effect.estimator}/{effect.scale}/{effect.term}"
        yield f"estimate/{name}", effect.estimate
        yield f"std_error/{name}", effect.std_error
        yield f"ci_lower/{name}", effect.ci_lower
        yield f"ci_upper/{name}", effect.ci_upper
        yield f"pvalue/{name}", effect.pvalue
    for check in result.diagnostics:
        for part, value in (("statistic", check.statistic), ("pvalue", check.pvalue)):
            if value is not None and math.isfinite(value):
                yield f"check/{check.name}/{part}", value


def _checks(result: Result) -> list[str]:
    failed = [f"- failed: {item.name}: {item.detail}" for item in result.failed_checks]
    if len(failed) > _MAX_FAILED:
        failed = [*failed[:_MAX_FAILED], f"- and {len(failed) - _MAX_FAILED} more"]
    n_passed = sum(item.passed is True for item in result.diagnostics)
    return [*failed, *([""] if failed else []), f"{n_passed} checks passed.", ""]
