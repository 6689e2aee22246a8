"""Scorecard of a decision: every metric's interval against what the rule tolerates."""

import textwrap
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causal.core.canvas import open_axes
from causal.core.result import Effect
from causal.experiments.bayes import PosteriorSummary
from causal.experiments.decision import WORDS, Decision, Decisions, Verdict

_INK, _GOOD, _BAD, _RAW = "#1f3b5c", "#2a7f9e", "#b4472e", "#8a939c"
_COLOURS: dict[Verdict, str] = {
    "ship": "#2a7f4f",
    "hold": "#8a939c",
    "roll_back": "#b4472e",
    "needs_more_data": "#c08a1e",
}
_ROW_HEIGHT = 0.5
_WIDEST = 6.0
"""Tolerances to either side that the axis shows at most; longer intervals end in an arrow."""


@dataclass(frozen=True)
class _Line:
    """One metric of a scorecard, in multiples of the loss that the rule tolerates."""

    effect: Effect
    gain: PosteriorSummary
    tolerance: float
    role: str


def scorecard(decisions: Decisions) -> Figure:
    """One panel per treatment: intervals of the change for the better, in tolerated losses.

    Every metric has its own unit; divided by the loss that the rule tolerates (the margin of a
    guardrail, `worse_than` of the primary metric) they share an axis on which -1 is the limit.
    """
    panels = [(decision, _lines(decision)) for decision in decisions.decisions]
    heights = [len(lines) + 1.6 for _, lines in panels]
    figure = Figure(figsize=(9.0, 0.9 + _ROW_HEIGHT * sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    reach = _reach([line for _, lines in panels for line in lines])
    for axes, (decision, lines) in zip(grid[:, 0], panels, strict=True):
        is_recommended = decision.term == decisions.recommended
        _panel(axes, decision, lines, reach=reach, is_recommended=is_recommended)
    grid[-1, 0].set_xlabel(
        "change for the better, in multiples of the loss the rule tolerates (line at -1)"
    )
    return figure


def _lines(decision: Decision) -> list[_Line]:
    primary = _Line(decision.effect, decision.gain, decision.gain.worse_than, "primary")
    others = [
        _Line(item.effect, item.gain, item.guardrail.margin, "guardrail")
        for item in decision.guardrails
    ]
    return [primary, *others]


def _reach(lines: list[_Line]) -> float:
    """Half-width of the axis, the same for all treatments."""
    longest = max(
        abs(end) / line.tolerance
        for line in lines
        for end in (line.gain.ci_lower, line.gain.ci_upper)
    )
    return min(max(1.6, 1.08 * longest), _WIDEST)


def _panel(
    axes: Axes, decision: Decision, lines: list[_Line], *, reach: float, is_recommended: bool
) -> None:
    for row, line in enumerate(lines):
        _interval(axes, row, line, reach=reach)
    axes.axvline(0.0, color="#555555", linewidth=0.8, linestyle=":")
    axes.axvline(-1.0, color=_BAD, linewidth=1.2)
    axes.axvspan(-reach, -1.0, color=_BAD, alpha=0.07, linewidth=0)
    axes.set_yticks(range(len(lines)), [f"{line.effect.metric}\n({line.role})" for line in lines])
    axes.set_xlim(-reach, reach)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    open_axes(axes)
    axes.tick_params(labelsize=9)
    star = ", recommended" if is_recommended else ""
    axes.set_title(
        f"{decision.term}: {WORDS[decision.verdict]}{star}",
        loc="left", fontsize=11, fontweight="bold", color=_COLOURS[decision.verdict], pad=22,
    )  # fmt: skip
    axes.annotate(
        _why(decision), xy=(0, 1), xycoords="axes fraction", xytext=(0, 4),
        textcoords="offset points", fontsize=8, va="bottom", color="#333333",
    )  # fmt: skip


def _interval(axes: Axes, row: int, line: _Line, *, reach: float) -> None:
    lower, upper = line.gain.ci_lower / line.tolerance, line.gain.ci_upper / line.tolerance
    colour = _BAD if upper < 0 else _GOOD if lower > -1 else _RAW
    ends = [max(lower, -reach), min(upper, reach)]
    axes.plot(ends, [row, row], color=colour, linewidth=3.0, solid_capstyle="butt")
    for end, beyond, marker in ((ends[0], lower < -reach, "<"), (ends[1], upper > reach, ">")):
        if beyond:
            axes.plot([end], [row], marker, color=colour, markersize=7, clip_on=False)
    centre = line.gain.mean / line.tolerance
    if abs(centre) <= reach:
        axes.plot([centre], [row], "o", color=_INK, markersize=6)
    axes.annotate(
        _numbers(line), xy=(1.01, row), xycoords=("axes fraction", "data"), fontsize=8,
        va="center", annotation_clip=False,
    )  # fmt: skip


def _numbers(line: _Line) -> str:
    effect = line.effect
    shown = "{:+.2%}".format if effect.scale == "relative" else "{:+.3g}".format
    limit = "{:.2%}".format if effect.scale == "relative" else "{:.3g}".format
    return (
        f"{shown(effect.estimate)}  [{shown(effect.ci_lower)}, {shown(effect.ci_upper)}]\n"
        f"P(worse by {limit(line.tolerance)}) = {line.gain.prob_worse:.1%}"
    )


def _why(decision: Decision) -> str:
    """The first reason that failed, or that none did."""
    if not decision.failed:
        return "every condition of the rule holds"
    first = {"hold": "health", "roll_back": "harm"}.get(decision.verdict)
    chosen = next((item for item in decision.failed if item.role == first), decision.failed[0])
    more = f" (and {len(decision.failed) - 1} more)" if len(decision.failed) > 1 else ""
    return textwrap.shorten(chosen.detail, width=110, placeholder=" ...") + more
