"""The scorecard as one HTML file: no script, no other file, everything escaped."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from causal.experiments.decision import WORDS, Decision, Verdict
from causal.scorecard import scorecard_content as content
from causal.scorecard.experiment_readout import ExperimentReadout
from causal.scorecard.scorecard_content import Provenance, TextTable
from causal.scorecard.scorecard_figures import file_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 110
_COLOURS: Mapping[Verdict, str] = {
    "ship": "#2a7f4f",
    "hold": "#5f6a75",
    "roll_back": "#b4472e",
    "needs_more_data": "#a06c0f",
}
_NUMBERS = frozenset({"control", "treatment", "chance it is better", "of the plan", "p-value"})
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f3f5f7; color: #1d2733;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1020px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 0 0 10px; }
h3 { font-size: 15px; margin: 22px 0 6px; color: #3c4a59; }
section { background: #fff; border: 1px solid #dfe4ea; border-radius: 8px; padding: 20px 24px;
  margin-top: 18px; }
.standing { color: #56636f; margin: 0; }
.verdict { display: inline-block; color: #fff; font-weight: 700; font-size: 17px;
  letter-spacing: .04em; text-transform: uppercase; padding: 6px 16px; border-radius: 6px;
  margin: 0 12px 6px 0; }
.recommended { color: #2a7f4f; font-weight: 600; }
.advice { font-size: 18px; font-weight: 600; margin: 8px 0 4px; }
.red { border-color: #b4472e; background: #fdf3f0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th { text-align: left; font-weight: 600; color: #56636f; border-bottom: 2px solid #dfe4ea; }
th, td { padding: 6px 12px 6px 0; vertical-align: top; }
td { border-bottom: 1px solid #edf0f3; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.good .mark { color: #2a7f4f; font-weight: 600; }
.bad .mark { color: #b4472e; font-weight: 600; }
.bad td { background: #fdf6f4; }
figure { margin: 14px 0 0; }
img { max-width: 100%; height: auto; }
figcaption { color: #56636f; font-size: 13px; }
ul { margin: 6px 0 0; padding-left: 20px; }
details summary { cursor: pointer; color: #3c4a59; font-weight: 600; }
@media print { body { background: #fff; } section { border: 0; padding: 8px 0; } }
"""


def page(
    readout: ExperimentReadout, provenance: Provenance, figures: Mapping[str, "Figure"]
) -> str:
    """The scorecard as HTML that can be mailed: figures are in it, nothing is fetched.

    Args:
        readout: The experiment at one look.
        provenance: Where its numbers come from.
        figures: Figures by file name, as `scorecard_figures.figures` makes them.
    """
    decisions = readout.decisions.decisions
    body = [
        f"<h1>{escaped(content.title(readout))}</h1>",
        f'<p class="standing">{escaped(content.standing(readout))}</p>',
        _stops(readout.stops),
        *[_treatment(readout, decision, figures) for decision in decisions],
        _section(
            "All metrics against what the rule tolerates",
            _figure(figures, "decision", "Bars are intervals; left of the line at -1 is a loss "
                    "that the rule does not tolerate."),
        ),
        _section("Health checks", _table(content.checks(readout))),
        _section("How to read this", _list(content.origin(readout, provenance))),
    ]  # fmt: skip
    name = escaped(f"{readout.spec.name}, look {readout.look}")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{name}</title>",
            f"<style>{_STYLE}</style></head>",
            "<body><main>",
            *[part for part in body if part],
            "</main></body></html>",
        ]
    )


def escaped(text: str) -> str:
    """A text in which nothing is markup."""
    return html.escape(text, quote=True)


def _stops(reasons: Sequence[str]) -> str:
    if not reasons:
        return ""
    return (
        '<section class="red"><h2>Stop: a health check or guardrail is red</h2>'
        f"{_list(reasons)}</section>"
    )


def _treatment(
    readout: ExperimentReadout, decision: Decision, figures: Mapping[str, "Figure"]
) -> str:
    term = decision.term
    best = (
        '<span class="recommended">the treatment to prefer</span>'
        if term == readout.decisions.recommended and len(readout.decisions.decisions) > 1
        else ""
    )
    parts = [
        (
            f'<span class="verdict" style="background:{_COLOURS[decision.verdict]}">'
            f"{escaped(WORDS[decision.verdict])}</span>{best}"
        ),
        f'<p class="advice">{escaped(content.ADVICE[decision.verdict])}</p>',
        _list(content.findings(readout, decision)),
        "<h3>Metrics</h3>",
        _table(content.metrics(readout, term), mark=-1),
        _figure(figures, f"posterior_{file_name(term)}", "How likely each size of the change is."),
        *_looks(readout, term, figures),
        *_returns(readout, term),
        "<h3>Conditions of the rule</h3>",
        _table(content.reasons(decision)),
    ]
    return _section(term, "\n".join(part for part in parts if part))


def _looks(readout: ExperimentReadout, term: str, figures: Mapping[str, "Figure"]) -> list[str]:
    table = content.looks(readout, term)
    if table is None:
        return []
    metric = escaped(readout.spec.rule.primary.metric)
    return [
        f"<h3>Looks at {metric}</h3>",
        _table(table),
        f"<p>{escaped(content.stop_sentence(readout, term))}</p>",
        _figure(
            figures,
            f"looks_{file_name(term)}",
            "Left: the test statistic among its boundaries. Right: intervals that hold at all "
            "looks together.",
        ),
    ]


def _returns(readout: ExperimentReadout, term: str) -> list[str]:
    lines = content.returns(readout, term)
    return ["<h3>Return</h3>", _list(lines)] if lines else []


def _section(head: str, inside: str) -> str:
    return f"<section><h2>{escaped(head)}</h2>\n{inside}</section>" if inside else ""


def _table(table: TextTable, *, mark: int = 0) -> str:
    """A table; `mark` is the column that carries the row's colour."""
    marked = mark % len(table.columns)
    heads = "".join(
        f'<th{_class(column in _NUMBERS, is_mark=False)} scope="col">{escaped(column)}</th>'
        for column in table.columns
    )
    marks = table.marks or ("",) * len(table.rows)
    rows = []
    for row, kind in zip(table.rows, marks, strict=True):
        cells = "".join(
            f"<td{_class(table.columns[at] in _NUMBERS, is_mark=at == marked)}>{escaped(cell)}</td>"
            for at, cell in enumerate(row)
        )
        rows.append(f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _class(is_number: bool, *, is_mark: bool) -> str:  # noqa: FBT001 - a cell is one or the other
    names = [*(["number"] if is_number else []), *(["mark"] if is_mark else [])]
    return f' class="{" ".join(names)}"' if names else ""


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escaped(line)}</li>' for line in lines)}</ul>"


def _figure(figures: Mapping[str, "Figure"], name: str, caption: str) -> str:
    if name not in figures:
        return ""
    held = io.BytesIO()
    figures[name].savefig(held, format="png", dpi=_DPI, bbox_inches="tight")
    data = base64.b64encode(held.getvalue()).decode("ascii")
    text = escaped(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
