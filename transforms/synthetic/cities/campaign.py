"""The geo experiment: a campaign in cities drawn at random, after a long history of weeks.

Cities differ in level, in how strongly the year's season moves them and in their growth, so that a
mean of the other cities is a poor stand-in for a treated one. The history reaches back to before
the world's first day, in weeks below zero.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.synthetic.cities.effect_rows import effect_rows
from transforms.synthetic.drivers import DriverPlan
from transforms.synthetic.places import autoregression

_DIGITS = 4
_WEEKS_PER_YEAR = 52
_METRIC = "trips_per_driver"


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """A geo experiment that is drawn but not yet written down.

    Attributes:
        weeks: Weeks from the start of the world, shape (t,); negative before it.
        starts: First treated week.
        is_treated: Whether each city gets the campaign, shape (cities,).
        untreated: Trips per driver and week without it, shape (cities, t).
    """

    weeks: npt.NDArray[np.int64]
    starts: int
    is_treated: npt.NDArray[np.bool_]
    untreated: npt.NDArray[np.float64]

    @property
    def is_on(self) -> npt.NDArray[np.bool_]:
        """Cities and weeks with the campaign, shape (cities, t)."""
        return np.asarray(self.is_treated[:, None] & (self.weeks >= self.starts)[None, :])


def campaign(plan: DriverPlan) -> Campaign:
    """Draw the treated cities, a simple random sample, and what would happen without treatment."""
    settings, draws = plan.world.campaign, plan.draws
    cities = np.arange(len(plan.places.names))
    weeks = np.arange(-settings.history_weeks, plan.n_weeks)
    order = np.argsort(draws.few_uniforms("campaign", cities), kind="stable")
    column = cities[:, None]
    level = settings.city_sd * draws.few_normals("campaign-city", column)
    swing = settings.season * (
        1.0 + settings.swing_sd * draws.few_normals("campaign-swing", column)
    )
    growth = settings.growth_sd * draws.few_normals("campaign-growth", column)
    noise = draws.few_normals("campaign-week", column, weeks[None, :])
    years = weeks / _WEEKS_PER_YEAR
    log_trips = (
        level
        + swing * np.sin(2.0 * np.pi * years)
        + growth * years
        + settings.week_sd * autoregression(noise, persistence=settings.persistence)
    )
    return Campaign(
        weeks=weeks,
        starts=plan.world.pre_days // 7,
        is_treated=np.isin(cities, order[: settings.n_treated]),
        untreated=settings.trips * np.exp(log_trips),
    )


def week_rows(plan: DriverPlan) -> list[tuple[Any, ...]]:
    """Rows of `driver_campaign_weeks`."""
    drawn = campaign(plan)
    lift = plan.world.campaign.lift
    trips = np.round(drawn.untreated * (1.0 + lift * drawn.is_on), _DIGITS)
    return [
        (name, int(week), drawn.starts if is_treated else None, float(value))
        for name, is_treated, values in zip(plan.places.names, drawn.is_treated, trips, strict=True)
        for week, value in zip(drawn.weeks, values, strict=True)
    ]


def week_effects(plan: DriverPlan) -> list[tuple[Any, ...]]:
    """The true effects, rows of `truth_driver_effects`."""
    settings, drawn = plan.world.campaign, campaign(plan)
    added = settings.lift * drawn.untreated[drawn.is_on]
    comment = "of the campaign on trips per driver, over treated cities and weeks"
    average = effect_rows(
        (settings.name, "att", _METRIC, "average"),
        absolute=float(added.mean()),
        relative=settings.lift,
        comment=f"mean effect {comment}",
    )
    cumulative = effect_rows(
        (settings.name, "att", _METRIC, "cumulative"),
        absolute=float(added.sum()),
        relative=None,
        comment=f"summed effect {comment}",
    )
    return [*average, *cumulative]
