"""Every table of the lakehouse: those of the worlds, those derived from them, and the results."""

from collections.abc import Mapping
from types import MappingProxyType

from causal.core.errors import SpecError
from transforms.checkout_tables import CHECKOUT_DERIVED_TABLES
from transforms.columns import WORLDS, Outcome, World
from transforms.result_tables import RESULT_TABLES
from transforms.schema import Field, Table
from transforms.synthetic.tables import WORLD_TABLES
from transforms.truth_tables import effects_table

_EXPERIMENT = Field(name="experiment", type="STRING", comment="Name of the experiment")
_VARIANT = Field(name="variant", type="STRING", comment="Arm to which the unit was assigned")
_WEEK = Field(name="week", type="INT", comment="Week of the panel, counted from 0")
_FIRST_TREATED = Field(
    name="first_treated_period",
    type="INT",
    comment="Week in which the rollout reached the place; null: never",
    is_nullable=True,
)
_TENURE = Field(
    name="tenure_days", type="INT", comment="Days from signing up to the start of the experiment"
)


def _unit(world: World) -> Field:
    return Field(name="unit_id", type="BIGINT", comment=f"The unit: {world.unit}")


def _place(world: World) -> Field:
    return Field(name=world.place, type="STRING", comment=f"{world.place.capitalize()} of the unit")


def _segments(world: World) -> tuple[Field, ...]:
    return tuple(
        Field(name=name, type="STRING", comment=f"{name.capitalize()} of the unit")
        for name in world.segments
    )


def _uptake(world: World) -> tuple[Field, ...]:
    if not world.has_uptakes:
        return ()
    return (_flag("is_uptake", "Took the encouraged perk up by the experiment's last day"),)


def _household(world: World) -> tuple[Field, ...]:
    if world.household is None:
        return ()
    return (Field(name=world.household, type="BIGINT", comment="Household of the unit"),)


def _count(name: str, comment: str) -> Field:
    return Field(name=name, type="BIGINT", comment=comment)


def _flag(name: str, comment: str) -> Field:
    return Field(name=name, type="BOOLEAN", comment=comment)


def _sum(name: str, outcome: Outcome, when: str) -> Field:
    return Field(name=name, type=outcome.type, comment=f"{outcome.meaning} {when}")


def _cluster_mean(name: str) -> Field:
    return Field(
        name=f"cluster_{name}",
        type="DOUBLE",
        comment=f"Mean of {name} over the enrolled units of the unit's cluster",
    )


def first_exposures(world: World) -> Table:
    """Declares `<w>_first_exposures`: one row per experiment and unit in the exposure log."""
    return Table(
        name=world.table("first_exposures"),
        comment="First exposure of each unit to each experiment, with what became of its log rows; "
        "n_rows = n_events + n_duplicates + late events if these are dropped",
        fields=(
            _EXPERIMENT,
            _unit(world),
            Field(
                name="variant",
                type="STRING",
                comment="Variant of the first event that counts; null if none counts",
                is_nullable=True,
            ),
            Field(
                name="assigned_variant",
                type="STRING",
                comment="Variant to which the unit was assigned; null if it was not assigned",
                is_nullable=True,
            ),
            Field(
                name="first_exposed_at",
                type="TIMESTAMP",
                comment="Time of the first event that counts; null if none counts",
                is_nullable=True,
            ),
            _count("n_rows", "Rows of the raw log"),
            _count("n_duplicates", "Rows that repeat an event_id"),
            _count("n_late", "Events ingested later than the tolerance allows"),
            _count("n_events", "Events that count"),
            _count("n_outside_window", "Events that count, but lie outside the attribution window"),
            Field(name="n_variants", type="INT", comment="Distinct variants among the events"),
            _flag("is_in_window", "The first exposure lies in the attribution window"),
            _flag("is_crossover", "Saw a variant other than the assigned one, or several"),
        ),
        key=("experiment", "unit_id"),
        checks={
            "events_within_rows": "n_events + n_duplicates <= n_rows",
            "exposure_has_events": "(n_events > 0) = (first_exposed_at IS NOT NULL)",
        },
        clustering=("experiment", "unit_id"),
    )


def cohorts(world: World) -> Table:
    """Declares `<w>_cohorts`: one row per unit."""
    return Table(
        name=world.table("cohorts"),
        comment=f"Cohorts of each of the {world.name}: signup, first exposure and rollout",
        fields=(
            _unit(world),
            _place(world),
            Field(name="signup_cohort", type="DATE", comment="Monday of the week of signing up"),
            Field(
                name="first_exposed_on",
                type="DATE",
                comment="UTC day of the first exposure to any experiment; null: never",
                is_nullable=True,
            ),
            Field(
                name="exposure_cohort",
                type="DATE",
                comment="Monday of the week of the first exposure; null: never exposed",
                is_nullable=True,
            ),
            _FIRST_TREATED,
            _flag("is_in_panel", "Had signed up before the panel's first day"),
        ),
        key=("unit_id",),
        checks={},
        clustering=("unit_id",),
    )


def experiment_units(world: World) -> Table:
    """Declares `<w>_experiment_units`: one row per experiment and enrolled unit."""
    return Table(
        name=world.table("experiment_units"),
        comment="Every enrolled unit of every experiment with covariates from before the start and "
        "outcomes from the start to the end; days without activity count as zeros",
        fields=(
            _EXPERIMENT,
            _unit(world),
            _VARIANT,
            Field(name="stratum", type="STRING", comment="Stratum of the randomisation"),
            Field(
                name="cluster_id",
                type="BIGINT",
                comment="What was randomised: the unit, or its cluster in a clustered design",
            ),
            _place(world),
            *_segments(world),
            _TENURE,
            _flag("is_exposed", "First exposure within the attribution window"),
            *_uptake(world),
            *(_sum(f"pre_{o.name}", o, "before the experiment") for o in world.outcomes),
            _count("pre_active_days", "Active days before the experiment"),
            *(_cluster_mean(f"pre_{o.name}") for o in world.outcomes),
            _cluster_mean("pre_active_days"),
            *(_sum(o.name, o, "during the experiment") for o in world.outcomes),
            _count("active_days", "Active days during the experiment"),
            _flag("is_retained", "Had not left by the end of the experiment's last day"),
        ),
        key=("experiment", "unit_id"),
        checks={},
        clustering=("experiment", "unit_id"),
    )


def weeks(world: World) -> Table:
    """Declares `<w>_weeks`: the dense panel of units and weeks."""
    return Table(
        name=world.table("weeks"),
        comment="Every unit that had signed up before the panel's first day in every week; a week "
        "without activity is a row of zeros, also after the unit has left",
        fields=(
            _unit(world),
            _WEEK,
            _place(world),
            *_household(world),
            _FIRST_TREATED,
            *(_sum(o.name, o, "in the week") for o in world.outcomes),
            _count("active_days", "Active days in the week"),
        ),
        key=("unit_id", "week"),
        checks={"week_not_negative": "week >= 0", "days_in_week": "active_days BETWEEN 0 AND 7"},
        clustering=("unit_id",),
    )


def place_weeks(world: World) -> Table:
    """Declares `<w>_region_weeks` or `<w>_city_weeks`: the panel of places and weeks."""
    return Table(
        name=world.table(f"{world.place}_weeks"),
        comment=f"Sums and counts of the unit panel by {world.place} and week",
        fields=(
            _place(world),
            _WEEK,
            _FIRST_TREATED,
            _count("n_units", "Units of the panel in the place"),
            _count("n_active_units", "Units with an active day in the week"),
            *(_sum(o.name, o, "of all units in the week") for o in world.outcomes),
            _count("active_days", "Active unit-days in the week"),
        ),
        key=(world.place, "week"),
        checks={"week_not_negative": "week >= 0"},
    )


_CHOICE = Field(name="choice", type="STRING", comment="The study: the trial's name and _by_choice")
_CHOSEN = Field(name="is_chosen", type="BOOLEAN", comment="Whether the unit chose the treatment")


def choices(world: World) -> Table:
    """Declares `<w>_choices`: units that chose between two arms themselves."""
    choice = world.choice
    return Table(
        name=world.table("choices"),
        comment=f"Units of the trial {choice.experiment} as they would have been had they chosen "
        f"{choice.treatment} or not ({choice.control}) themselves, by what is known of them from "
        "before it",
        fields=(
            _CHOICE,
            _unit(world),
            _place(world),
            *_segments(world),
            _TENURE,
            *(_sum(f"pre_{o.name}", o, "before the choice") for o in world.outcomes),
            _count("pre_active_days", "Active days before the choice"),
            _CHOSEN,
            *(_sum(o.name, o, "from the choice to the end of the trial") for o in world.outcomes),
        ),
        key=("choice", "unit_id"),
        checks={},
        clustering=("unit_id",),
    )


def potential_choices(world: World) -> Table:
    """Declares `truth_<w>_choices`: potential outcomes and chances of those units."""
    return Table(
        name=f"truth_{world.table('choices')}",
        comment="The chance of each unit's choice, and its outcomes without the treatment and "
        "with it",
        fields=(
            _CHOICE,
            _unit(world),
            _CHOSEN,
            Field(name="propensity", type="DOUBLE", comment="Chance of choosing the treatment"),
            *(
                _sum(f"{o.name}_{state}", o, f"if the unit is {told}")
                for o in world.outcomes
                for state, told in (("without", "not treated"), ("treated", "treated"))
            ),
        ),
        key=("choice", "unit_id"),
        checks={"propensity_is_a_chance": "propensity > 0 AND propensity < 1"},
        clustering=("unit_id",),
    )


def choice_effects(world: World) -> Table:
    """Declares `truth_<w>_choice_effects`: the true effects of the choice."""
    return effects_table(
        f"truth_{world.table('choice_effects')}",
        comment="True effects of what units chose, exact for the units of the study",
        design=f"{world.choice.name}, the study",
        estimand="ate, att or overlap",
        metric="The outcome",
        term="is_chosen",
    )


DERIVED_TABLES: tuple[Table, ...] = (
    *(
        declare(world)
        for world in WORLDS.values()
        for declare in (
            first_exposures,
            cohorts,
            experiment_units,
            weeks,
            place_weeks,
            choices,
            potential_choices,
            choice_effects,
        )
    ),
    *CHECKOUT_DERIVED_TABLES,
)

TABLES: Mapping[str, Table] = MappingProxyType(
    {entry.name: entry for entry in (*WORLD_TABLES, *DERIVED_TABLES, *RESULT_TABLES)}
)


def table(name: str) -> Table:
    """The declaration of a table.

    Args:
        name: Table name without catalog or schema.

    Raises:
        SpecError: No such table is declared.
    """
    if name not in TABLES:
        raise SpecError("there is no such table", given=name, allowed=sorted(TABLES))
    return TABLES[name]
