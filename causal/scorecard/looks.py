"""Looks at an experiment as rows: made from a result, kept, and read back in order.

A look is what was known on a day. Looks follow each other in time: the last one may be restated
when its data were corrected, an earlier one may not, because the looks after it rest on it.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from causal.core.errors import DataError
from causal.core.result import Effect, Result
from causal.experiments.sequential_looks import Look
from causal.scorecard.experiment_spec import ExperimentSpec

LOOK_COLUMNS: tuple[str, ...] = (
    "experiment", "as_of_on", "look", "metric", "term", "scale", "estimator", "estimate",
    "std_error", "df", "n_treated", "n_control", "information", "is_final", "arm_units", "plan",
)  # fmt: skip

PLAN_CHECK = "look_plan"
"""Name of the check that the plan of looks is the one of the first look."""

_SAME = 1e-9


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a look stands among those that are stored.

    Attributes:
        look: Its number, from 1.
        earlier: Rows of the looks before it, in order of time.
        held: Rows of the same day that are stored already.
        has_followers: Whether later looks are stored.
    """

    look: int
    earlier: pd.DataFrame
    held: pd.DataFrame
    has_followers: bool


def place(stored: pd.DataFrame, *, as_of: dt.date) -> Place:
    """Find the place of a look.

    Args:
        stored: Rows of the experiment's looks, columns `LOOK_COLUMNS` at least.
        as_of: Day of the look.

    Raises:
        DataError: It would stand before looks that were made already.
    """
    days = sorted(set(stored["as_of_on"]))
    earlier = [day for day in days if day < as_of]
    has_followers = bool(days) and days[-1] > as_of
    if has_followers and as_of not in days:
        raise DataError(
            "looks follow each other in time, and later ones were made already",
            given=as_of,
            allowed=f"{days[-1]}, to restate the last look, or a later day",
            key="as_of",
        )
    before = stored[stored["as_of_on"].isin(earlier)].sort_values(["as_of_on", "metric", "term"])
    final = before[before["is_final"].astype(bool)]
    if len(final):
        raise DataError(
            "the experiment ended with an earlier look",
            given=as_of,
            allowed=f"{final['as_of_on'].iloc[0]}, the last look",
            key="as_of",
        )
    return Place(
        look=len(earlier) + 1,
        earlier=before.reset_index(drop=True),
        held=stored[stored["as_of_on"] == as_of].reset_index(drop=True),
        has_followers=has_followers,
    )


def check_unchanged(found: pd.DataFrame, at: Place) -> None:
    """A look that others followed must say what it said then.

    Raises:
        DataError: It says something else now.
    """
    if not at.has_followers:
        return
    key = ["metric", "term", "scale"]
    both = at.held.merge(found, on=key, how="outer", suffixes=("_then", "_now"))
    for name in ("estimate", "std_error", "n_treated", "n_control"):
        then, now = (both[f"{name}_{when}"].to_numpy(dtype=np.float64) for when in ("then", "now"))
        differs = ~np.isclose(then, now, rtol=_SAME, atol=0.0)
        if differs.any():
            row = both.iloc[int(np.argmax(differs))]
            raise DataError(
                f"a look that later ones followed cannot be restated: the {name} of "
                f"{row['metric']} was another one then",
                given=f"{row[f'{name}_now']:.6g} in place of {row[f'{name}_then']:.6g}",
                allowed="the last look, or a later day",
                key="as_of",
            )


def look_rows(
    spec: ExperimentSpec, result: Result, *, as_of: dt.date, look: int, is_final: bool
) -> pd.DataFrame:
    """The rows of one look: the effect that the method trusts most, by metric, term and scale.

    Args:
        spec: The experiment.
        result: What `ab` found.
        as_of: Day of the look.
        look: Its number, from 1.
        is_final: Whether the experiment ends with it.

    Returns:
        Columns `LOOK_COLUMNS`.
    """
    shared = {
        "experiment": spec.name,
        "as_of_on": as_of,
        "look": look,
        "is_final": is_final,
        "arm_units": json.dumps(arm_units(result), sort_keys=True),
        "plan": plan_fingerprint(spec),
    }
    rows = [
        shared
        | {
            "metric": effect.metric,
            "term": effect.term,
            "scale": effect.scale,
            "estimator": effect.estimator,
            "estimate": effect.estimate,
            "std_error": effect.std_error,
            "df": effect.df,
            "n_treated": effect.n_treated,
            "n_control": effect.n_control,
            "information": information(spec, effect),
        }
        for effect in trusted_effects(result)
    ]
    return pd.DataFrame(rows, columns=list(LOOK_COLUMNS))


def trusted_effects(result: Result) -> list[Effect]:
    """The first effect on all units by metric, term and scale: methods put the best one first."""
    chosen: dict[tuple[str, str, str], Effect] = {}
    for effect in result.effects:
        if effect.estimand == "ate":
            chosen.setdefault((effect.metric, effect.term, effect.scale), effect)
    return list(chosen.values())


def information(spec: ExperimentSpec, effect: Effect) -> float:
    """Information of an effect in the unit that the spec's sequential test counts in."""
    if spec.sequential is not None and spec.sequential.information == "units":
        return float(effect.n_treated + effect.n_control)
    return effect.std_error**-2.0 if effect.std_error > 0 else np.inf


def arm_units(result: Result) -> dict[str, int]:
    """Units by arm."""
    return {
        name.removeprefix("n."): int(value)
        for name, value in result.params.items()
        if name.startswith("n.")
    }


def plan_fingerprint(spec: ExperimentSpec) -> str:
    """Names what must not change between looks: the test, the metric tested, the comparison."""
    options = spec.options
    primary = spec.rule.primary
    parts = {
        "sequential": None if spec.sequential is None else spec.sequential.model_dump(mode="json"),
        "primary": primary.model_dump(mode="json"),
        "metric": spec.metric(primary.metric).model_dump(mode="json"),
        "design": options.model_dump(
            mode="json",
            include={"unit", "variant", "control", "cluster", "strata", "stratification"},
        ),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def sequence(looks: pd.DataFrame, *, metric: str, term: str, scale: str) -> list[Look]:
    """The looks at one effect, for the sequential test.

    Args:
        looks: Rows of all looks, in order of time.
        metric: The metric.
        term: The comparison.
        scale: The scale.

    Raises:
        DataError: A look lacks the effect.
    """
    chosen = looks[
        (looks["metric"] == metric) & (looks["term"] == term) & (looks["scale"] == scale)
    ]
    absent = sorted(set(looks["as_of_on"]) - set(chosen["as_of_on"]))
    if absent:
        raise DataError(
            f"looks lack the effect on {metric} ({term}, {scale})",
            given=[str(day) for day in absent],
            allowed="the same metrics and arms at every look",
        )
    return [
        Look(
            name=str(row["as_of_on"]),
            estimate=float(row["estimate"]),
            std_error=float(row["std_error"]),
            information=float(row["information"]),
            is_final=bool(row["is_final"]),
        )
        for row in chosen.to_dict("records")
    ]


def counts_by_arm(looks: pd.DataFrame) -> dict[str, list[int]]:
    """Cumulative units by arm, one number per look; 0 where an arm had none yet."""
    by_look: Sequence[Mapping[str, int]] = [
        json.loads(str(text)) for text in looks.drop_duplicates("as_of_on")["arm_units"]
    ]
    arms = dict.fromkeys(arm for units in by_look for arm in units)
    return {arm: [int(units.get(arm, 0)) for units in by_look] for arm in arms}


def changed_plan(looks: pd.DataFrame) -> list[Any]:
    """Days of the looks whose plan is not that of the first look."""
    if looks.empty:
        return []
    first = looks["plan"].iloc[0]
    return sorted(set(looks.loc[looks["plan"] != first, "as_of_on"]))
