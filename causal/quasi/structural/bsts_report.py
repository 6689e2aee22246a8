"""The result in plain words, a sentence or two for each thing a reader asks."""

from collections.abc import Sequence

from causal.core.result import Effect
from causal.quasi.structural.time_series import TimeSeries
from causal.quasi.time_axis import shown


def report(effects: Sequence[Effect], *, tail_probability: float, series: TimeSeries) -> list[str]:
    """Paragraphs about one outcome.

    Args:
        effects: Its average, cumulative and, where there is one, relative effect.
        tail_probability: Posterior probability of an effect of the other sign.
        series: The series.
    """
    average, cumulative = effects[0], effects[1]
    level = f"{average.confidence_level:.0%}"
    observed = float(series.outcome[series.n_pre :].mean())
    first, last = shown(series.labels[series.n_pre]), shown(series.labels[-1])
    of_each = f" (mean of {series.n_regions} treated regions)" if series.n_regions > 1 else ""
    low, high = observed - average.ci_upper, observed - average.ci_lower
    text = [
        (
            f"From {first} to {last} {average.metric}{of_each} averaged {observed:.4g}. Without "
            f"the treatment it would have been {observed - average.estimate:.4g}, with a {level} "
            f"credible interval of {low:.4g} to {high:.4g}. The average effect is therefore "
            f"{average.estimate:+.4g}, between {average.ci_lower:+.4g} and {average.ci_upper:+.4g}."
        ),
        (
            f"Over all {series.n_post} periods this adds up to {cumulative.estimate:+.4g}, between "
            f"{cumulative.ci_lower:+.4g} and {cumulative.ci_upper:+.4g}."
        ),
    ]
    if len(effects) > 2:  # noqa: PLR2004 - the third is the relative effect
        relative = effects[2]
        text.append(
            f"In relative terms {average.metric} changed by {relative.estimate:+.1%}, between "
            f"{relative.ci_lower:+.1%} and {relative.ci_upper:+.1%}."
        )
    return [*text, _verdict(average, tail_probability), _conditions(series)]


def _verdict(average: Effect, tail_probability: float) -> str:
    direction, other = (
        ("increase", "decrease") if average.estimate > 0 else ("decrease", "increase")
    )
    chance = (
        f"The posterior probability that there was no {direction}, or {_an(other)}, is "
        f"{tail_probability:.3g} (one-sided)."
    )
    if average.ci_lower <= 0 <= average.ci_upper:
        return (
            f"The interval contains zero: the apparent {direction} may be chance. The time after "
            "the start may be too long for an effect that fades, or too short to see one, or the "
            f"covariates may say too little about the outcome. {chance}"
        )
    return (
        f"The interval does not contain zero: {_an(direction)} of this size is unlikely to be "
        f"chance. {chance} Whether it matters is a question of its size, not of its probability."
    )


def _conditions(series: TimeSeries) -> str:
    if not series.names:
        return (
            "There are no covariates: anything else that changed when the treatment started would "
            "be taken for its effect."
        )
    n = len(series.names)
    which, their = ("the covariate", "its") if n == 1 else (f"the {n} covariates", "their")
    return (
        f"This holds if the treatment did not move {which} and if {their} relation to the outcome "
        f"in the {series.n_pre} periods before the start went on afterwards."
    )


def _an(noun: str) -> str:
    return f"an {noun}" if noun == "increase" else f"a {noun}"
