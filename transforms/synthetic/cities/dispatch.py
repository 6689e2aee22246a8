"""The saturation trial: drivers with priority in the dispatch take trips from their city's others.

Randomised in two stages (Hudgens and Halloran 2008): each city is given a saturation, each of its
drivers priority with that probability. A driver's trips depend on the own treatment and on the
city's saturation, and on nothing else: these two are the exposure (Aronow and Samii 2017), whose
probability the design knows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.synthetic.cities.effect_rows import effect_rows
from transforms.synthetic.drivers import DriverPlan

_DIGITS = 4
_PER_CENT = 100
_METRIC = "trips"

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Dispatch:
    """A saturation trial that is drawn but not yet written down.

    Attributes:
        place: City of each participant, shape (n,).
        saturation: Of the participant's city, in per cent, shape (n,).
        is_treated: Whether each has priority, shape (n,).
        probability: Of the participant's own exposure under the design, shape (n,).
        before: Trips in the four weeks before, shape (n,).
        untreated: Trips in the four weeks of the trial if no one had priority, shape (n,).
    """

    place: npt.NDArray[np.int64]
    saturation: npt.NDArray[np.int64]
    is_treated: npt.NDArray[np.bool_]
    probability: Array
    before: Array
    untreated: Array


def dispatch(plan: DriverPlan) -> Dispatch:
    """Draw participants, saturations, who has priority, and trips if no one had it."""
    settings, draws = plan.world.dispatch, plan.draws
    cities = np.arange(len(plan.places.names))
    sizes = np.maximum(np.round(np.array(plan.places.weights) * settings.n_participants), 1)
    place = np.repeat(cities, sizes.astype(np.int64))
    number = np.arange(len(place)) + 1
    levels = np.resize(settings.saturations, len(cities))
    order = np.argsort(draws.few_uniforms("dispatch-city", cities), kind="stable")
    by_city = np.empty(len(cities), dtype=np.int64)
    by_city[order] = levels
    saturation = by_city[place]
    share = saturation / _PER_CENT
    is_treated = draws.few_uniforms("dispatch-driver", number) < share
    city_share = np.array([(levels == level).mean() for level in by_city])[place]
    own = settings.driver_sd * draws.few_normals("dispatch-own", number)
    own = own + settings.city_sd * draws.few_normals("dispatch-level", cities)[place]
    shock = settings.shock_sd * draws.few_normals("dispatch-shock", cities)[place]
    noise = [
        settings.noise_sd * draws.few_normals(f"dispatch-{when}", number)
        for when in ("before", "after")
    ]
    return Dispatch(
        place=place,
        saturation=saturation,
        is_treated=is_treated,
        probability=city_share * np.where(is_treated, share, 1.0 - share),
        before=settings.trips * np.exp(own + noise[0]),
        untreated=settings.trips * np.exp(own + noise[1] + shock),
    )


def dispatch_rows(plan: DriverPlan) -> list[tuple[Any, ...]]:
    """Rows of `driver_dispatch_units`."""
    drawn = dispatch(plan)
    factor = _factor(plan, drawn.is_treated, drawn.saturation)
    columns = zip(
        drawn.place, drawn.saturation, drawn.is_treated, 1.0 / drawn.probability,
        np.round(drawn.before, _DIGITS), np.round(drawn.untreated * factor, _DIGITS),
        strict=True,
    )  # fmt: skip
    return [
        (
            number, plan.places.names[place], int(saturation), int(is_treated),
            _exposure(saturation, is_treated=is_treated), float(weight), float(before),
            float(trips),
        )
        for number, (place, saturation, is_treated, weight, before, trips) in enumerate(
            columns, start=1
        )
    ]  # fmt: skip


def dispatch_effects(plan: DriverPlan) -> list[tuple[Any, ...]]:
    """The true effects, rows of `truth_driver_effects`.

    Contrasts with the untouched are over all drivers, as every city could have had each saturation;
    the direct effect is over the drivers of the cities whose saturation was the highest.
    """
    settings, drawn = plan.world.dispatch, dispatch(plan)
    level = float(drawn.untreated.mean())
    rows: list[tuple[Any, ...]] = []
    for saturation in sorted(set(settings.saturations) - {0}):
        for is_treated, estimand in ((False, "spillover"), (True, "total")):
            gain = float(_factor(plan, np.array([is_treated]), np.array([saturation]))[0]) - 1.0
            name = _exposure(saturation, is_treated=is_treated)
            rows += effect_rows(
                (settings.name, estimand, _METRIC, f"exposure={name}"),
                absolute=gain * level,
                relative=gain,
                comment=f"every driver {name} (saturation in per cent), less no one treated at all",
            )
    highest = max(settings.saturations)
    with_it, without = (
        float(_factor(plan, np.array([own]), np.array([highest]))[0]) for own in (True, False)
    )
    return rows + effect_rows(
        (settings.name, "direct", _METRIC, "treatment"),
        absolute=(with_it - without) * float(drawn.untreated[drawn.saturation == highest].mean()),
        relative=with_it / without - 1.0,
        comment=f"own treatment in the cities of which {highest} % are treated",
    )


def _factor(
    plan: DriverPlan, is_treated: npt.NDArray[np.bool_], saturation: npt.NDArray[np.int64]
) -> Array:
    """Trips of an exposure as a multiple of those if no one is treated."""
    settings = plan.world.dispatch
    loss = settings.spillover * saturation / _PER_CENT
    return np.asarray((1.0 + settings.direct * is_treated) * (1.0 - loss), dtype=np.float64)


def _exposure(saturation: int, *, is_treated: bool) -> str:
    return f"{'treated' if is_treated else 'untreated'}_{saturation}"
