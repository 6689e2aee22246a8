"""What is fixed about a world before a row is made: parameters, seed, places, arms and faults."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pyspark.sql import Column
from pyspark.sql import functions as F

from transforms.synthetic.parameters import EffectT, Fault, Trial, World
from transforms.synthetic.places import PlacePlan
from transforms.synthetic.randomness import Draws, lookup

WorldT = TypeVar("WorldT", bound=World)


@dataclass(frozen=True, kw_only=True)
class Arm(Generic[EffectT]):
    """One numbered arm; number zero is "in no trial".

    Attributes:
        trial: The trial of the arm, None for number zero.
        variant: Name of the variant, empty for number zero.
        effect: What the variant does to an affected unit.
        is_control: Whether it is the control of its trial.
    """

    trial: Trial[EffectT] | None
    variant: str
    effect: EffectT
    is_control: bool

    @property
    def experiment(self) -> str:
        """Name of the trial, empty for number zero."""
        return self.trial.experiment if self.trial else ""

    @property
    def is_encouragement(self) -> bool:
        """Whether the trial encourages an uptake."""
        return self.trial is not None and self.trial.uptake is not None


@dataclass(frozen=True, kw_only=True)
class Plan(Generic[WorldT, EffectT]):
    """A world that is fixed but not yet generated.

    Attributes:
        world: The parameters.
        trials: The trials, each on its own layer of units.
        arms: The numbered arms of all trials, `arms_of(trials)`.
        draws: Randomness.
        places: Regions or cities, their shocks and the rollout.
        n_days: Days of the world, whole weeks.
        faults: The faults that are switched on.
        outcomes: Outcome columns of the unit-days that add up over days.
    """

    world: WorldT
    trials: tuple[Trial[EffectT], ...]
    arms: tuple[Arm[EffectT], ...]
    draws: Draws
    places: PlacePlan
    n_days: int
    faults: frozenset[Fault]
    outcomes: tuple[str, ...]

    @property
    def n_weeks(self) -> int:
        """Weeks of the world."""
        return self.n_days // 7

    def of_arm(self, value: Callable[[Arm[EffectT]], float], arm: Column) -> Column:
        """A number of the arm whose position the column `arm` holds (DOUBLE)."""
        return lookup([float(value(entry)) for entry in self.arms], arm)

    def of_effect(self, value: Callable[[EffectT], float], arm: Column) -> Column:
        """A parameter of the effect of an arm (DOUBLE)."""
        return self.of_arm(lambda entry: value(entry.effect), arm)

    def is_arm(self, predicate: Callable[[Arm[EffectT]], bool], arm: Column) -> Column:
        """Whether an arm fulfils a predicate (BOOLEAN)."""
        return lookup([predicate(entry) for entry in self.arms], arm)

    def controls(self, *, of: Callable[[Arm[EffectT]], bool]) -> list[int]:
        """For each arm its own number, or that of its trial's control where the predicate holds."""
        firsts = {arm.experiment: n for n, arm in enumerate(self.arms) if arm.is_control}
        return [
            firsts[arm.experiment] if arm.trial and of(arm) else number
            for number, arm in enumerate(self.arms)
        ]

    def season(self, weekdays: Sequence[float]) -> Column:
        """Factor of the column `day`: the weekly season, and a common trend under `drift`."""
        drift = self.world.faults.drift if "drift" in self.faults else 0.0
        days = range(self.n_days)
        return lookup(
            [weekdays[day % 7] * (1.0 + drift) ** (day / 7.0) for day in days], F.col("day")
        )


def arms_of(trials: Sequence[Trial[EffectT]], none: EffectT) -> tuple[Arm[EffectT], ...]:
    """All arms in order: none, then the variants of each trial, control first."""
    arms = [Arm(trial=None, variant="", effect=none, is_control=False)]
    for trial in trials:
        for number, variant in enumerate(trial.variants):
            arms.append(
                Arm(
                    trial=trial,
                    variant=variant.name,
                    effect=variant.effect,
                    is_control=number == 0,
                )
            )
    return tuple(arms)
