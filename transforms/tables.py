"""Every table of the lakehouse: those of the worlds, those derived from them, and the results."""

from collections.abc import Mapping
from types import MappingProxyType

from causal.core.errors import SpecError
from transforms.columns import WORLDS, Outcome, World
from transforms.schema import Field, Table
from transforms.synthetic.tables import WORLD_TABLES

_EXPERIMENT = Field(name="experiment", type="STRING", comment="Name of the experiment")
_VARIANT = Field(name="variant", type="STRING", comment="Arm to which the unit was assigned")
_WEEK = Field(name="week", type="INT", comment="Week of the panel, counted from 0")
_FIRST_TREATED = Field(
    name="first_treated_period",
    type="INT",
    comment="Week in which the rollout reached the place; null: never",
    is_nullable=True,
)


def _unit(world: World) -> Field:
    return Field(name="unit_id", type="BIGINT", comment=f"The unit: {world.unit}")


def _place(world: World) -> Field:
    return Field(name=world.place, type="STRING", comment=f"{world.place.capitalize()} of the unit")


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
        comment="First exposure of each unit to each experiment, with what happened to its log rows; "
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
    segments = tuple(
        Field(name=name, type="STRING", comment=f"{name.capitalize()} of the unit")
        for name in world.segments
    )
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
            *segments,
            Field(
                name="tenure_days",
                type="INT",
                comment="Days from signing up to the start of the experiment",
            ),
            _flag("is_exposed", "First exposure within the attribution window"),
            _flag("is_uptake", "Took the encouraged perk up before the experiment's end"),
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


GRAM = Table(
    name="gram",
    comment="Stored moments of an analysis: counts, means and centred cross-products by key",
    fields=(
        Field(name="analysis", type="STRING", comment="Name of the analysis"),
        Field(name="source", type="STRING", comment="Table or path that was aggregated"),
        Field(name="request_hash", type="STRING", comment="Fingerprint of the request"),
        Field(name="key_json", type="STRING", comment="Values of the key columns, a JSON object"),
        Field(name="terms_json", type="STRING", comment="The p encoded terms, a JSON list"),
        Field(name="by", type="ARRAY<STRING>", comment="Names of the key columns"),
        Field(name="n", type="BIGINT", comment="Rows used"),
        Field(name="n_missing", type="BIGINT", comment="Rows left out for a missing value"),
        Field(name="n_units", type="BIGINT", comment="Absorbed units; 0 if none are absorbed"),
        Field(name="sum_weights", type="DOUBLE", comment="Sum of the weights"),
        Field(name="mean", type="ARRAY<DOUBLE>", comment="Weighted means of the p terms"),
        Field(
            name="cross_products",
            type="ARRAY<DOUBLE>",
            comment="Upper triangle, row by row, of the centred cross-product matrix",
        ),
    ),
    key=("analysis", "request_hash", "key_json"),
    checks={"counts_not_negative": "n >= 0 AND n_missing >= 0 AND n_units >= 0"},
)

PANEL_GRAM = Table(
    name="panel_gram",
    comment="Stored moments of outcome paths: means and cross-products over periods, by cohort",
    fields=(
        Field(name="analysis", type="STRING", comment="Name of the analysis"),
        Field(name="source", type="STRING", comment="Table or path that was aggregated"),
        Field(name="request_hash", type="STRING", comment="Fingerprint of the request"),
        Field(
            name="key_json",
            type="STRING",
            comment="First treated period and key columns of the cohort, a JSON object",
        ),
        Field(name="request_json", type="STRING", comment="The encoded request"),
        Field(
            name="first_treated_period",
            type="DOUBLE",
            comment="First treated period of the cohort; null: never treated",
            is_nullable=True,
        ),
        Field(name="periods", type="ARRAY<DOUBLE>", comment="The T periods in ascending order"),
        Field(name="n", type="BIGINT", comment="Units observed in every period"),
        Field(name="n_incomplete", type="BIGINT", comment="Units that lack a period, not used"),
        Field(name="n_missing", type="BIGINT", comment="Rows without an outcome"),
        Field(name="mean", type="ARRAY<DOUBLE>", comment="Mean outcome by period"),
        Field(
            name="cross_products",
            type="ARRAY<DOUBLE>",
            comment="Upper triangle, row by row, of the centred T x T cross-product matrix",
        ),
    ),
    key=("analysis", "request_hash", "key_json"),
    checks={"counts_not_negative": "n >= 0 AND n_incomplete >= 0 AND n_missing >= 0"},
)

EFFECTS = Table(
    name="effects",
    comment="Estimates of every method, one row each",
    fields=(
        Field(name="run_key", type="STRING", comment="Run that estimated it"),
        Field(name="analysis", type="STRING", comment="Name of the analysis"),
        Field(name="method", type="STRING", comment="Method of the analysis, such as ab or did"),
        Field(name="as_of", type="TIMESTAMP", comment="Logical time of the run"),
        Field(name="estimator", type="STRING", comment="How it was estimated: welch, cuped, twfe"),
        Field(name="estimand", type="STRING", comment="ate, att, cate, itt, late or coefficient"),
        Field(name="metric", type="STRING", comment="Outcome measured"),
        Field(name="term", type="STRING", comment="Comparison or coefficient"),
        Field(name="scale", type="STRING", comment="absolute, or relative to the control level"),
        Field(name="estimate", type="DOUBLE", comment="The estimate"),
        Field(name="std_error", type="DOUBLE", comment="Standard error of the estimate"),
        Field(name="statistic", type="DOUBLE", comment="estimate / std_error"),
        Field(
            name="df",
            type="DOUBLE",
            comment="Degrees of freedom of the t reference; null: standard normal",
            is_nullable=True,
        ),
        Field(name="ci_lower", type="DOUBLE", comment="Lower end of the interval"),
        Field(name="ci_upper", type="DOUBLE", comment="Upper end of the interval"),
        Field(name="confidence_level", type="DOUBLE", comment="Nominal coverage of the interval"),
        Field(name="pvalue", type="DOUBLE", comment="Two-sided p-value of a zero effect"),
        Field(name="n_treated", type="BIGINT", comment="Units behind the treated side"),
        Field(name="n_control", type="BIGINT", comment="Units behind the comparison side"),
        Field(
            name="n_clusters",
            type="BIGINT",
            comment="Clusters behind the standard error; null: not clustered",
            is_nullable=True,
        ),
    ),
    key=("run_key", "estimator", "metric", "term", "scale"),
    checks={
        "std_error_not_negative": "std_error >= 0",
        "pvalue_is_share": "pvalue BETWEEN 0 AND 1",
        "known_scale": "scale IN ('absolute', 'relative')",
    },
    clustering=("analysis",),
)

DIAGNOSTICS = Table(
    name="diagnostics",
    comment="Checks of every run, in the order in which a reader wants them",
    fields=(
        Field(name="run_key", type="STRING", comment="Run that made the check"),
        Field(name="analysis", type="STRING", comment="Name of the analysis"),
        Field(name="position", type="INT", comment="Place of the check in its run, from 0"),
        Field(name="name", type="STRING", comment="Name of the check"),
        Field(
            name="statistic",
            type="DOUBLE",
            comment="Test statistic or measured figure, if there is one",
            is_nullable=True,
        ),
        Field(
            name="pvalue",
            type="DOUBLE",
            comment="P-value; null where the check is no test",
            is_nullable=True,
        ),
        Field(
            name="passed",
            type="BOOLEAN",
            comment="Whether it passed; null: for information only",
            is_nullable=True,
        ),
        Field(name="detail", type="STRING", comment="One plain sentence"),
    ),
    key=("run_key", "position"),
    checks={"position_not_negative": "position >= 0"},
    clustering=("analysis",),
)

RUNS = Table(
    name="runs",
    comment="Every run of every job, written when it ends",
    fields=(
        Field(name="run_key", type="STRING", comment="Hash of job, configuration, inputs and code"),
        Field(name="job", type="STRING", comment="Name of the job"),
        Field(name="status", type="STRING", comment="finished, failed, skipped or killed"),
        Field(name="started_at", type="TIMESTAMP", comment="When it started"),
        Field(name="finished_at", type="TIMESTAMP", comment="When it ended"),
        Field(name="config_json", type="STRING", comment="Resolved configuration, JSON"),
        Field(name="inputs_json", type="STRING", comment="Table to version read, JSON"),
        Field(name="outputs_json", type="STRING", comment="Table to version written, JSON"),
        Field(name="code_version", type="STRING", comment="Hash of the code that ran"),
        Field(name="detail", type="STRING", comment="Error or note, empty if there is none"),
    ),
    key=("run_key", "started_at"),
    checks={
        "known_status": "status IN ('finished', 'failed', 'skipped', 'killed')",
        "ends_after_start": "finished_at >= started_at",
    },
    clustering=("job",),
)

RESULT_TABLES: tuple[Table, ...] = (GRAM, PANEL_GRAM, EFFECTS, DIAGNOSTICS, RUNS)

DERIVED_TABLES: tuple[Table, ...] = tuple(
    declare(world)
    for world in WORLDS.values()
    for declare in (first_exposures, cohorts, experiment_units, weeks, place_weeks)
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
