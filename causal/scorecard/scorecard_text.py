"""The scorecard as Markdown."""

from causal.experiments.decision import WORDS, Decision
from causal.scorecard import scorecard_content as content
from causal.scorecard.experiment_readout import ExperimentReadout
from causal.scorecard.scorecard_content import Provenance, TextTable

_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#"})


def markdown(readout: ExperimentReadout, provenance: Provenance) -> str:
    """The scorecard as Markdown, for people and for whoever keeps it in a repository.

    Args:
        readout: The experiment at one look.
        provenance: Where its numbers come from.
    """
    lines = [f"# {escaped(content.title(readout))}", "", escaped(content.standing(readout)), ""]
    for decision in readout.decisions.decisions:
        lines += _treatment(readout, decision)
    lines += [
        "## Health checks",
        "",
        *_table(content.checks(readout)),
        "",
        "## How to read this",
        "",
    ]
    lines += [f"- {escaped(line)}" for line in content.origin(readout, provenance)]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """A text in which nothing is markup."""
    return " ".join(text.split()).translate(_SPECIAL)


def _treatment(readout: ExperimentReadout, decision: Decision) -> list[str]:
    term = decision.term
    lines = [
        f"## {escaped(term)}: {WORDS[decision.verdict]}",
        "",
        f"**{escaped(content.verdict_line(decision))}**",
        "",
        *[f"- {escaped(line)}" for line in content.findings(readout, decision)],
        "",
        "### Why",
        "",
        *_table(content.reasons(decision)),
        "",
        "### Metrics",
        "",
        *_table(content.metrics(readout, term)),
        "",
    ]
    looks = content.looks(readout, term)
    if looks is not None:
        lines += ["### Looks", "", *_table(looks), ""]
        lines += [escaped(content.stop_sentence(readout, term)), ""]
    returns = content.returns(readout, term)
    if returns:
        lines += ["### Return", "", *[f"- {escaped(line)}" for line in returns], ""]
    return lines


def _table(table: TextTable) -> list[str]:
    rows = [table.columns, tuple("---" for _ in table.columns)]
    shown = [f"| {' | '.join(rows[1])} |"]
    head = f"| {' | '.join(escaped(cell) for cell in table.columns)} |"
    body = [f"| {' | '.join(escaped(cell) for cell in row)} |" for row in table.rows]
    return [head, *shown, *body]
