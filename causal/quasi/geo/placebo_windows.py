"""Pretended experiments on the history: what the planned analysis says where nothing happened.

Each window takes some periods for the experiment and those before it for the time before; the
candidate regions are treated in name only. The estimator and its test are those of the methods
`synthetic_did` and `synthetic_control`, called as they call them. A true lift of the treated
regions' outcome moves the estimate by the lift times their mean and leaves weights and placebos as
they are, so one pass over the windows gives the A/A rate and the power at any lift.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from causal.core.errors import InferenceError
from causal.core.gram import Array
from causal.core.inference import critical_value
from causal.core.spec import validate
from causal.quasi.geo.design_options import Estimator as Planned
from causal.quasi.geo.design_options import GeoDesignSpec
from causal.quasi.synthetic.control_options import SyntheticControlSpec
from causal.quasi.synthetic.control_rules import fit_rule
from causal.quasi.synthetic.control_study import study, treated_tasks
from causal.quasi.synthetic.did_errors import replicate
from causal.quasi.synthetic.did_weights import Estimator, Rule
from causal.quasi.synthetic.placebo import average
from causal.quasi.synthetic.region_panel import RegionPanel
from causal.quasi.synthetic.staggered_blocks import Design, DidFit, fit_all

_RULES: Mapping[Planned, Estimator] = MappingProxyType({"synthetic_did": "sdid", "did": "did"})


@dataclass(frozen=True, kw_only=True)
class Window:
    """A pretended experiment.

    Attributes:
        first: Position of the first period that is used.
        start: Position of the first period of the experiment.
        end: Position after the last one.
    """

    first: int
    start: int
    end: int

    @property
    def n_pre(self) -> int:
        """Periods before the experiment."""
        return self.start - self.first


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a window says about a candidate.

    Attributes:
        effect: Average effect found; the truth is zero.
        half_width: The test rejects when the effect is further than this from zero; infinite
            where it cannot reject, or where the method refuses the window.
        level: Mean outcome of the treated regions in the window.
        pre_error: Root mean squared gap before the window.
        is_refused: Whether the method would refuse this window.
    """

    effect: float
    half_width: float
    level: float
    pre_error: float
    is_refused: bool = False


def windows(
    n_periods: int,
    *,
    duration: int,
    step: int,
    n_windows: int,
    least_pre: int,
    most_pre: int | None,
) -> list[Window]:
    """The latest windows, the last one first.

    Args:
        n_periods: Periods of the history.
        duration: Periods of the experiment.
        step: Periods from a window to the one before it.
        n_windows: At most so many.
        least_pre: Fewest periods before a window.
        most_pre: Periods before it that are used at most.
    """
    found = []
    for start in range(n_periods - duration, least_pre - 1, -step):
        first = 0 if most_pre is None else max(0, start - most_pre)
        found.append(Window(first=first, start=start, end=start + duration))
    return found[:n_windows]


def n_independent(found: list[Window]) -> int:
    """How many of the windows share no period of the experiment with each other."""
    count, earliest = 0, math.inf
    for window in found:
        if window.end <= earliest:
            count, earliest = count + 1, window.start
    return count


def arrange(values: Array, treated: tuple[int, ...], window: Window) -> RegionPanel:
    """The panel of a window: treated regions first, the others after them."""
    rest = [row for row in range(len(values)) if row not in set(treated)]
    order = [*treated, *rest]
    size = window.end - window.first
    return RegionPanel(
        units=tuple(order),
        periods=pd.Index(np.arange(size, dtype=np.float64)),
        values=values[order, window.first : window.end],
        starts=np.array([window.n_pre] * len(treated) + [size] * len(rest), dtype=np.intp),
        n_missing=0,
        dropped=(),
        already_treated=(),
    )


def placebo_effect(spec: GeoDesignSpec, panel: RegionPanel) -> float:
    """The estimate alone, which is what screening needs."""
    if spec.options.estimator == "synthetic_control":
        options = _control_spec(spec).options
        rule = fit_rule(options, None)
        return average([rule(task) for task in treated_tasks(options, panel)]).effect
    return _did_fit(spec, panel).effect


def placebo_trial(spec: GeoDesignSpec, panel: RegionPanel) -> Trial:
    """The estimate and its test."""
    if spec.options.estimator == "synthetic_control":
        return _control_trial(spec, panel)
    return _did_trial(spec, panel)


def pretended_paths(spec: GeoDesignSpec, panel: RegionPanel) -> tuple[Array, Array]:
    """Mean path of the treated regions and what the estimator makes of the others, shape (T,)."""
    treated = panel.values[panel.treated].mean(axis=0)
    if spec.options.estimator == "synthetic_control":
        options = _control_spec(spec).options
        rule = fit_rule(options, None)
        fits = [rule(task) for task in treated_tasks(options, panel)]
        return treated, np.mean([item.synthetic for item in fits], axis=0)
    return treated, treated - _did_fit(spec, panel).cohorts[0].fit.gaps


def _did_trial(spec: GeoDesignSpec, panel: RegionPanel) -> Trial:
    fitted, rule = _did_fit(spec, panel), _rule(spec)
    replicates = replicate(
        _design(panel), rule, fitted, kind="placebo",
        n_replications=spec.options.n_replications, seed=spec.seed,
    )  # fmt: skip
    gaps = fitted.cohorts[0].fit.gaps[: int(panel.starts[0])]
    has_error = replicates.std_error > 0
    reach = critical_value(spec.confidence_level) * replicates.std_error
    return Trial(
        effect=fitted.effect,
        half_width=reach if has_error else math.inf,
        level=_level(panel),
        pre_error=float(np.sqrt((gaps**2).mean())),
        is_refused=not has_error,
    )


def _control_trial(spec: GeoDesignSpec, panel: RegionPanel) -> Trial:
    try:
        found = study(_control_spec(spec), panel, None)
    except InferenceError:
        # A perfect fit before the window: the method says that nothing can be compared with it.
        effect = placebo_effect(spec, panel)
        return Trial(
            effect=effect, half_width=math.inf, level=_level(panel), pre_error=0.0, is_refused=True
        )
    return Trial(
        effect=found.observed.effect,
        half_width=found.test.ci_upper - found.observed.effect,
        level=_level(panel),
        pre_error=math.sqrt(found.observed.pre_mspe),
    )


def _level(panel: RegionPanel) -> float:
    return float(panel.values[panel.treated, int(panel.starts[0]) :].mean())


def _rule(spec: GeoDesignSpec) -> Rule:
    return Rule(estimator=_RULES[spec.options.estimator])


def _design(panel: RegionPanel) -> Design:
    return Design(
        values=panel.values, starts=panel.starts, covariates=np.zeros((0, *panel.values.shape))
    )


def _did_fit(spec: GeoDesignSpec, panel: RegionPanel) -> DidFit:
    return fit_all(_design(panel), _rule(spec))


def _control_spec(spec: GeoDesignSpec) -> SyntheticControlSpec:
    return validate(
        SyntheticControlSpec,
        {
            "name": spec.name, "source": {"table": "history"}, "method": "synthetic_control",
            "confidence_level": spec.confidence_level, "seed": spec.seed,
            "options": {
                "unit": "unit", "period": "period", "outcome": "outcome", "treated": "treated",
                "treatment_period": 1.0, "variant": spec.options.variant,
                "leave_one_out": False,
                "n_placebos": max(100, spec.options.n_replications),
            },
        },
    )  # fmt: skip
