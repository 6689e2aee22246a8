"""Effects beside the truth that the generated worlds keep."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from causal.core.result import Effect
from causal.core.spec import Spec, Truth
from transforms.bounded import collect_bounded

if TYPE_CHECKING:
    from jobs.runtime.lakehouse import Lakehouse
    from jobs.runtime.readout import Readout

_MAX_TRUTHS = 100_000
TABLES = (
    "truth_subscriber_effects",
    "truth_driver_effects",
    "truth_subscriber_choice_effects",
    "truth_driver_choice_effects",
    "truth_checkout_effects",
    "truth_passenger_effects",
)
# What an estimate may stand for where the world has no truth under its own estimand's name: without
# non-compliance, randomised variants differ by the average treatment effect, intended or not. A
# coefficient stands for the contrast of exposures or the choice that its term names.
_ALIKE = {
    "ate": ("ate", "itt"),
    "itt": ("itt", "ate"),
    "att": ("att", "total"),
    "late": ("late",),
    "cate": ("cate",),
    "overlap": ("overlap",),
    "coefficient": ("direct", "spillover", "total", "ate"),
}

Key = tuple[str, str, str, str, str, str]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One interval and the true value.

    Attributes:
        analysis: The analysis.
        effect: What it estimated.
        truth: The true value.
    """

    analysis: str
    effect: Effect
    truth: float

    @property
    def is_covered(self) -> bool:
        """Whether the interval contains the truth."""
        return self.effect.ci_lower <= self.truth <= self.effect.ci_upper


def read_truths(lakehouse: "Lakehouse") -> dict[Key, float]:
    """Every true effect by (world, design, estimand, metric, term, scale); the tables are small."""
    truths: dict[Key, float] = {}
    for name in TABLES:
        if lakehouse.exists(name):
            rows = collect_bounded(
                lakehouse.read(name), max_rows=_MAX_TRUTHS, what=f"the table {name}"
            )
            for row in rows.to_dict("records"):
                key = (
                    row["world"],
                    row["design"],
                    row["estimand"],
                    row["metric"],
                    row["term"],
                    row["scale"],
                )
                truths[key] = float(row["value"])
    return truths


def compare(readouts: Iterable["Readout"], truths: dict[Key, float]) -> list[Comparison]:
    """The effects for which the worlds keep a truth."""
    pairs = [(item.spec, effect) for item in readouts for effect in item.result.effects]
    found = [(spec, effect, truth_of(spec, effect, truths)) for spec, effect in pairs]
    return [
        Comparison(analysis=spec.name, effect=effect, truth=truth)
        for spec, effect, truth in found
        if truth is not None
    ]


def truth_of(spec: Spec, effect: Effect, truths: dict[Key, float]) -> float | None:
    """The true value of an effect; `None` if the world keeps none."""
    if spec.truth is None:
        return None
    alike = _ALIKE.get(effect.estimand, ())
    if effect.estimand == "coefficient" and spec.truth.coefficient is not None:
        alike = (spec.truth.coefficient,)
    for estimand in alike:
        for term in _terms(effect.term):
            value = truths.get(_key(spec.truth, estimand, effect, term))
            if value is not None:
                return value
    return None


def summary_rows(comparisons: Sequence[Comparison]) -> list[tuple[object, ...]]:
    """Rows of the closing table."""
    return [
        (
            item.analysis,
            item.effect.metric,
            item.effect.term,
            item.effect.scale,
            item.effect.estimator,
            item.effect.estimate,
            item.effect.ci_lower,
            item.effect.ci_upper,
            item.truth,
            item.is_covered,
        )
        for item in comparisons
    ]


SUMMARY_COLUMNS = (
    *("analysis", "metric", "term", "scale", "estimator"),
    *("estimate", "ci_lower", "ci_upper", "truth", "covered"),
)


def _key(truth: Truth, estimand: str, effect: Effect, term: str) -> Key:
    return (truth.world, truth.design, estimand, effect.metric, term, effect.scale)


def _terms(term: str) -> tuple[str, ...]:
    """Names under which a term may be kept: its own, or `overall` for that of a whole rollout."""
    is_part = term.startswith(("event_time=", "g=")) or " - " in term
    return (term,) if is_part else (term, "overall")
