"""What jobs on logs of purchases share: the log, the table that is written, what is left."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from pyspark.sql import DataFrame

from causal.clv.early_spend import EarlySpendSpec
from causal.clv.value_spec import LogOptions, ValueSpec
from causal.core.errors import CausalError, SpecError
from causal.core.result import Result
from jobs.runtime import analyses, readout
from jobs.runtime.analyses import Analysis, Bound
from jobs.runtime.context import Context
from jobs.runtime.lakehouse import Lakehouse
from jobs.runtime.tracking import Run
from transforms import histories
from transforms.histories import Log
from transforms.schema import Table, check_columns
from transforms.terms import filtered, kinds

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Report(Protocol):
    """What a method says of a customer base."""

    @property
    def result(self) -> Result:
        """Checks and tables."""

    def sentences(self) -> list[str]:
        """What was found, in plain words."""

    def figures(self) -> Mapping[str, "Figure"]:
        """Figures by file name without ending."""

    def metrics(self) -> dict[str, float]:
        """Numbers by name."""

    def nested(self) -> Mapping[str, Mapping[str, float]]:
        """Numbers of what competed, by its name: runs of MLflow inside the run."""

    def texts(self) -> Mapping[str, str]:
        """Further files by name."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The table that is written.

    Attributes:
        table: Its declaration, the unit first.
        lakehouse: Tables that know it.
    """

    table: Table
    lakehouse: Lakehouse

    @classmethod
    def of(cls, context: Context, table: Table) -> "Stored":
        """The table with a lakehouse that knows it."""
        lakehouse = Lakehouse(
            session=context.session, settings=context.settings, declared=lambda _: table
        )
        return cls(table=table, lakehouse=lakehouse)

    @property
    def place(self) -> str:
        """Where it lies."""
        return self.lakehouse.path(self.table.name)

    def write(self, context: Context, rows: DataFrame, *, run_key: str) -> int | None:
        """The version written; `None`: the table is current.

        Args:
            context: The run.
            rows: The declared columns, in any type that can be cast to theirs.
            run_key: Names the run.
        """
        name = self.table.name
        state = self.lakehouse.state(name)
        if state is not None and state.identity == run_key:
            context.progress.line(f"clv: already current ({name})")
            return None
        typed = rows.select(
            *[rows[f"`{f.name}`"].cast(f.data_type).alias(f.name) for f in self.table.fields]
        )
        with context.progress.step(f"score the customers of {name}"):
            return self.lakehouse.write(typed, name, run_key=run_key)


def log_options(item: Analysis) -> LogOptions:
    """The options that every method on a log has."""
    return cast("ValueSpec | EarlySpendSpec", item.spec).options


def bound_log(context: Context, item: Analysis) -> Bound:
    """The log, named with the content of the table of units, since both are read."""
    bound, units = analyses.bind(context, item), log_options(item).units
    if units is None:
        return bound
    beside = item.file.path.parent
    try:
        _, version = context.lakehouse.read_source(units, beside=beside)
        identity = context.lakehouse.source_identity(units, version, beside=beside)
    except CausalError as error:
        raise item.located(error) from error
    return dataclasses.replace(bound, identity=f"{bound.identity} with {identity}")


def opened_log(context: Context, item: Analysis, *, is_daily: bool) -> Log:
    """The purchases and the births of a spec, checked.

    Args:
        context: The run.
        item: The spec.
        is_daily: Whether what a customer buys on one day is one purchase.

    Raises:
        CausalError: A column lacks, a value is missing, or purchases and units do not fit.
    """
    options = log_options(item)
    source, _ = context.lakehouse.read_source(item.spec.source, beside=item.file.path.parent)
    check_columns(source.columns, [options.unit, options.time, options.amount], key="options")
    with context.progress.step("read the purchases"):
        rows = filtered(source, item.spec.source.conditions, kinds(source)).transform(
            histories.purchase_log(
                unit=options.unit,
                time=options.time,
                amount=options.amount,
                until=options.until,
                is_daily=is_daily,
            )
        )
        births = None
        if options.units is not None:
            births = units_of(context, item).transform(
                histories.births(unit=options.unit, born=options.units.born, is_daily=is_daily)
            )
        log = Log(rows=rows, births=births, is_daily=is_daily)
        histories.check_known(log)
    return log


def units_of(context: Context, item: Analysis, *, columns: tuple[str, ...] = ()) -> DataFrame:
    """The rows of `units`.

    Args:
        context: The run.
        item: The spec.
        columns: Further columns that they must have.

    Raises:
        SpecError: There are no `units`, or a column lacks.
    """
    options = log_options(item)
    if options.units is None:
        raise SpecError("this key is required", key="options.units")
    units, _ = context.lakehouse.read_source(options.units, beside=item.file.path.parent)
    check_columns(units.columns, [options.unit, options.units.born, *columns], key="options.units")
    return filtered(units, options.units.conditions, kinds(units))


def leave(
    context: Context, bound: Bound, report: Report, *, place: str, output: Path | None
) -> None:
    """Files, an MLflow run with those nested in it, and a few lines.

    Args:
        context: The run.
        bound: The spec and what it read.
        report: What was found.
        place: Where the table of customers lies.
        output: Folder for files; `None`: none.
    """
    name, method, result = bound.analysis.spec.name, bound.analysis.spec.method, report.result
    note, figures = _note(bound, report, place), report.figures()
    if output is not None:
        readout.leave_files(output, texts=_texts(bound, report, note), figures=figures)
        context.progress.line(f"{name}: results in {output}")
    if context.tracking.find_finished(bound.run_key) is None:
        tags = {"causalake.analysis": name, "causalake.method": method}
        with context.tracking.run(name, run_name=name, run_key=bound.run_key, tags=tags) as opened:
            _log(opened, bound, report, note)
            for nested, numbers in report.nested().items():
                key = f"{bound.run_key}/{nested}"
                with context.tracking.run(
                    name, run_name=nested, run_key=key, tags=tags, parent=opened
                ) as inner:
                    inner.log_metrics(numbers)
    context.progress.text("\n" + "\n".join(report.sentences()))
    for made in result.failed_checks:
        context.progress.warning(f"{made.name}: {made.detail}")
    context.progress.text(f"{name}: the customers are in {place}")


def _note(bound: Bound, report: Report, place: str) -> str:
    spec = bound.analysis.spec
    read = f"fitted on `{bound.source}`, run key `{bound.run_key[:12]}`"
    failed = [f"- failed: {made.name}: {made.detail}" for made in report.result.failed_checks]
    return "\n".join(
        [
            f"### {spec.description or spec.name}",
            "",
            *[f"- {line}" for line in report.sentences()],
            "",
            *failed,
            *([""] if failed else []),
            f"Customers are in `{place}`; {read}.",
        ]
    )


def _texts(bound: Bound, report: Report, note: str) -> dict[str, str]:
    tables = {
        f"{name}.csv": table.to_csv(index=False, lineterminator="\n").rstrip("\n")
        for name, table in report.result.tables.items()
    }
    return {
        "diagnostics.json": report.result.diagnostics_json(),
        "spec.json": json.dumps(bound.analysis.spec.model_dump(mode="json"), indent=2),
        "summary.md": note,
        **tables,
        **report.texts(),
    }


def _log(opened: Run, bound: Bound, report: Report, note: str) -> None:
    spec, result = bound.analysis.spec, report.result
    opened.note(note)
    opened.log_params(
        dict(readout.flattened(spec.model_dump(mode="json", exclude_none=True)))
        | {
            "run_key": bound.run_key,
            "source_version": bound.version,
            "source_identity": bound.identity,
            **readout.versions(),
        }
    )
    opened.log_metrics(report.metrics())
    for name, table in result.tables.items():
        opened.log_table(f"tables/{name}", table)
    opened.log_table("diagnostics", result.diagnostics_frame().astype(object))
    for name, figure in report.figures().items():
        opened.log_figure(f"figures/{name}", figure)
    for name, text in report.texts().items():
        opened.log_text(name, text)
    opened.log_dict("spec.yaml", spec.model_dump(mode="json"))
    opened.log_text("summary.md", note)
