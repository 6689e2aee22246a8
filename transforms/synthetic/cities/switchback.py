"""The switchback: cities whose bonus is drawn anew for each block of slots, with carry-over.

Lasting treatment adds the same number of trips per driver in every city and slot. The part
`carry_over` of it comes from the treatment in the slot before, so it is missing in the first slot
after a switch to the bonus and stays for one slot after a switch from it. A wash-out of one slot
shows the effect of lasting treatment.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.synthetic.cities.effect_rows import effect_rows
from transforms.synthetic.drivers import DriverPlan
from transforms.synthetic.places import autoregression

_DIGITS = 4
_METRIC = "trips_per_driver"
_TERM = "treated - control"
_COMMENTS = {
    "ate": "mean over cities and slots, always treated less never treated",
    "carry_over": "the part of it that comes from the treatment in the slot before",
}

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Switchback:
    """A switchback that is drawn but not yet written down.

    Attributes:
        cities: Names of the cities that take part.
        slots: Slots from the start of the world, shape (t,).
        blocks: Block of each slot, shape (t,).
        treated: Treatment by city and slot, shape (cities, t).
        untreated: Trips per driver without any treatment, shape (cities, t).
        before: Treatment in the slot before; nobody is treated before the first, shape (cities, t).
    """

    cities: tuple[str, ...]
    slots: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.int64]
    treated: npt.NDArray[np.bool_]
    untreated: Array
    before: npt.NDArray[np.bool_]


def switchback(plan: DriverPlan) -> Switchback:
    """Draw the cities that take part, the assignment and what would happen without treatment."""
    settings, draws = plan.world.switchback, plan.draws
    n_parts = len(settings.profile)
    order = np.argsort(
        draws.few_uniforms("switchback", np.arange(len(plan.places.names))), kind="stable"
    )
    chosen = np.sort(order[: settings.n_cities])
    cities = chosen[:, None]
    slots = np.arange(plan.world.pre_days * n_parts, plan.n_days * n_parts)
    blocks = slots // settings.block_slots
    treated = draws.few_uniforms("switchback-block", cities, blocks[None, :]) < settings.share
    noise = draws.few_normals("switchback-slot", cities, slots[None, :])
    log_level = settings.city_sd * draws.few_normals("switchback-city", cities)
    season = (
        np.array(settings.profile)[slots % n_parts]
        * np.array(plan.world.usage.weekday_amount)[slots // n_parts % 7]
    )
    shock = settings.slot_sd * autoregression(noise, persistence=settings.persistence)
    return Switchback(
        cities=tuple(plan.places.names[city] for city in chosen),
        slots=slots,
        blocks=blocks,
        treated=treated,
        untreated=settings.trips * season * np.exp(log_level + shock),
        before=np.concatenate([np.zeros_like(treated[:, :1]), treated[:, :-1]], axis=1),
    )


def slot_rows(plan: DriverPlan) -> list[tuple[Any, ...]]:
    """Rows of `driver_switchback_slots`."""
    settings, drawn = plan.world.switchback, switchback(plan)
    share = (1.0 - settings.carry_over) * drawn.treated + settings.carry_over * drawn.before
    trips = np.round(drawn.untreated + settings.added * share, _DIGITS)
    return [
        (name, int(slot), int(block), int(is_treated), float(value))
        for name, arms, values in zip(drawn.cities, drawn.treated, trips, strict=True)
        for slot, block, is_treated, value in zip(
            drawn.slots, drawn.blocks, arms, values, strict=True
        )
    ]


def slot_effects(plan: DriverPlan) -> list[tuple[Any, ...]]:
    """The true effects, rows of `truth_driver_effects`."""
    settings = plan.world.switchback
    level = float(switchback(plan).untreated.mean())
    added = {"ate": settings.added, "carry_over": settings.added * settings.carry_over}
    return [
        row
        for estimand, effect in added.items()
        for row in effect_rows(
            (settings.name, estimand, _METRIC, _TERM),
            absolute=effect,
            relative=effect / level,
            comment=_COMMENTS[estimand],
        )
    ]
