"""The page that says what the studies found, as Markdown, and the same as JSON."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from causal.validation import estimators, planned_power, rates, sample_ratios, stopping_rules
from causal.validation.wording import ABOUT, CONFIRMED, NOT_CONFIRMED, TEXTS, TITLES

_MAX_OPEN = 20
_METRIC_NAMES: Mapping[str, str] = {
    "winsorised_mean": "winsorised mean",
    "quantile_50": "median",
    "quantile_90": "90 % quantile",
    "retention_censored": "retention, censored",
    "sample_ratio": "sample-ratio check",
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the page says of the run.

    Attributes:
        command: The command that makes the page again.
        seed: Seed of all studies.
        replications: Experiments per estimator and scenario.
        is_confirmed: Whether new experiments decide open promises of estimators.
        versions: Version of the code and of the packages, by name.
    """

    command: str
    seed: int
    replications: int
    is_confirmed: bool
    versions: Mapping[str, str]


def page(table: pd.DataFrame, run: Run, *, figures: Mapping[str, Sequence[str]]) -> str:
    """The page.

    Args:
        table: The rates of all studies.
        run: The run.
        figures: Paths of the pictures of each study, from the page's folder.
    """
    names = [name for name in TITLES if name in set(table["study"])]
    about = CONFIRMED if run.is_confirmed else NOT_CONFIRMED
    parts = ["# Validation", ABOUT, about, _summary(table, names), _verdicts(table)]
    for name in names:
        rows = table[table["study"] == name]
        parts += [f"## {TITLES[name]}", TEXTS[name], *_TABLES[name](rows)]
        parts += [f"![{TITLES[name]}]({path})" for path in figures.get(name, ())]
    parts.append(_colophon(run))
    return "\n\n".join(part for part in parts if part)


def as_json(table: pd.DataFrame, pvalues: pd.DataFrame, run: Run) -> str:
    """The rates and the run; numbers in full, missing ones as null."""
    rows = [
        {str(name): _plain(value) for name, value in row.items()}
        for row in table.to_dict("records")
    ]
    data = {
        "command": run.command, "seed": run.seed, "replications": run.replications,
        "versions": dict(run.versions), "rates": rows,
        "pvalues": pvalues.to_dict("list"),
    }  # fmt: skip
    return json.dumps(data, indent=1, allow_nan=False)


def is_open(table: pd.DataFrame) -> "pd.Series[bool]":
    """Which rates were promised and are not decided."""
    return table["passed"].isna() & table["target_upper"].notna()


def is_broken(table: pd.DataFrame) -> "pd.Series[bool]":
    """Which promises are broken."""
    return table["passed"].eq(False)  # noqa: FBT003 - an elementwise comparison


def counts(table: pd.DataFrame) -> list[tuple[str, int, int, int, int]]:
    """By study: rates promised, kept, open, broken."""
    out = []
    for name, rows in table.groupby("study", sort=False):
        promised = rows[rows["target_upper"].notna()]
        n_open, n_broken = int(is_open(promised).sum()), int(is_broken(promised).sum())
        n = len(promised)
        out.append((str(name), n, n - n_open - n_broken, n_open, n_broken))
    return out


def _summary(table: pd.DataFrame, names: Sequence[str]) -> str:
    found = {row[0]: row for row in counts(table)}
    rows = [[TITLES[name], *map(str, found[name][1:])] for name in names]
    return _markdown(["study", "promised", "kept", "open", "broken"], rows)


def _verdicts(table: pd.DataFrame) -> str:
    """What is broken, and the first of what is open, one by one."""
    undecided = table[is_open(table)]
    lines = [
        f"- {word}: {row['study']}, {row['metric_type']}, {row['estimator']}, {row['scenario']}: "
        f"{row['quantity']} {row['estimate']:.4g} of {row['n_replications']:,}, "
        f"promised {row['target_lower']:.4g} to {row['target_upper']:.4g}"
        for word, rows in (("broken", table[is_broken(table)]), ("open", undecided.head(_MAX_OPEN)))
        for row in rows.to_dict("records")
    ]
    if len(undecided) > _MAX_OPEN:
        lines.append(f"- open: {len(undecided) - _MAX_OPEN} more, in the tables")
    return "\n".join(lines) or "No promise is broken or open."


def _colophon(run: Run) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    return (
        f"## This run\n\n`{run.command}`: seed {run.seed}, {run.replications:,} experiments per "
        f"estimator and scenario where nothing else is said.\n{versions}.\n"
        "All rates with their intervals and targets stand in the JSON file beside this page."
    )


def _estimators(rows: pd.DataFrame) -> Iterator[str]:
    parts = rows["scenario"].str.rsplit(", ", n=2, expand=True)
    rows = rows.assign(design=parts[0], scale=parts[2])
    cells = {
        "rejects": (rates.REJECTION, "absolute"),
        "lift rejects": (rates.REJECTION, "relative"),
        "KS p": (rates.UNIFORMITY, "absolute"),
        "covers": (rates.COVERAGE, "absolute"),
        "lift covers": (rates.COVERAGE, "relative"),
        "power": (rates.POWER, "absolute"),
    }
    for design, part in rows.groupby("design", sort=False):
        lines = []
        for (metric, estimator), group in part.groupby(["metric_type", "estimator"], sort=False):
            found = {(row["quantity"], row["scale"]): row for row in group.to_dict("records")}
            shown = [_cell(found.get(key)) for key in cells.values()]
            n = ", ".join(f"{n:,}" for n in _experiments(group))
            name = _METRIC_NAMES.get(str(metric), str(metric))
            lines.append([name, f"`{estimator}`", *shown, n])
        header = ["metric", "estimator", *cells, "experiments"]
        yield f"### {str(design).capitalize()}\n\n" + _markdown(header, lines)


def _experiments(group: pd.DataFrame) -> list[int]:
    """How many experiments there were without and, if there were any, with an effect."""
    is_null = group["quantity"].isin([rates.REJECTION, rates.UNIFORMITY])
    return [int(part["n_replications"].max()) for part in (group[is_null], group[~is_null])
            if len(part)]  # fmt: skip


def _stopping(rows: pd.DataFrame) -> Iterator[str]:
    null = rows[rows["quantity"] == rates.REJECTION]
    yield "### Stops without an effect\n\n" + _pivot(null, lambda text: text.split(", ")[0])
    for title, quantity in (
        ("Power", rates.POWER),
        ("Mean information at the stop", rates.INFORMATION),
    ):
        part = rows[rows["quantity"] == quantity]
        yield f"### {title}\n\n" + _pivot(part, lambda text: text.split(", ")[0])
    covered = rows[rows["quantity"] == rates.COVERAGE]
    text = _pivot(covered, lambda text: text.removesuffix(", interval at the stop"))
    yield "### Coverage of the interval at the stop\n\n" + text


def _pivot(rows: pd.DataFrame, label: Callable[[str], str]) -> str:
    """Rules by scenario."""
    scenarios = list(dict.fromkeys(rows["scenario"]))
    lines = []
    for estimator, group in rows.groupby("estimator", sort=False):
        found = {row["scenario"]: row for row in group.to_dict("records")}
        lines.append([str(estimator), *(_cell(found.get(name)) for name in scenarios)])
    return _markdown(["rule", *map(label, scenarios)], lines)


def _ratios(rows: pd.DataFrame) -> Iterator[str]:
    lines = [
        [row["estimator"], row["scenario"], _cell(row), f"{row['n_replications']:,}"]
        for row in rows.to_dict("records")
    ]
    yield _markdown(["check", "units", "alarms", "experiments"], lines)


def _planned(rows: pd.DataFrame) -> Iterator[str]:
    lines = []
    for row in rows.to_dict("records"):
        world, _, rest = row["scenario"].partition("; ")
        effect, _, planned = rest.removeprefix("effect ").partition(", planned power ")
        metric, n = f"{row['metric_type']} ({row['estimator']})", f"{row['n_replications']:,}"
        lines.append([world, metric, effect, planned.rstrip("%"), _cell(row), n])
    yield _markdown(["experiment", "metric", "effect", "planned", "found", "experiments"], lines)


_TABLES: Mapping[str, Callable[[pd.DataFrame], Iterator[str]]] = {
    estimators.STUDY: _estimators,
    stopping_rules.STUDY: _stopping,
    sample_ratios.STUDY: _ratios,
    planned_power.STUDY: _planned,
}


def _cell(row: Mapping[Any, Any] | None) -> str:
    """A rate in per cent (a p-value as it is), marked if the promise is not kept."""
    if row is None:
        return ""
    value = float(row["estimate"])
    is_pvalue = row["quantity"] == rates.UNIFORMITY
    digits = 2 if row["study"] in {sample_ratios.STUDY, stopping_rules.STUDY} else 1
    text = f"{value:.2g}" if is_pvalue else f"{100 * value:.{digits}f}"
    if row["passed"] is None and not math.isnan(row["target_upper"]):
        return f"*{text}*"
    return f"**{text}**" if row["passed"] is False else text


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(value: Any) -> Any:
    return None if value is None or value != value else value  # noqa: PLR0124 - NaN
