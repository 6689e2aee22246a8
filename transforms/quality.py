"""Quality gates: rules about a frame that stop a run when they are broken.

A rule says what must hold; `evaluate` checks all rules of a frame in few passes: one aggregation
for everything that looks at single rows or at the newest date, one group-by per key, one join per
reference. A gate's message gives counts and examples, fetched only for rules that are broken, five
at most.

Example:
    Gate(
        name="subscriber_assignments",
        frame=assignments,
        rules=(keys_unique("experiment", "subscriber_id"), no_nulls("variant")),
    ).check()
"""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from causal.core.errors import DataError, SpecError
from transforms.bounded import collect_bounded
from transforms.columns import Transform, quoted
from transforms.schema import Table

MAX_EXAMPLES = 5
SAMPLE_RATIO_ALPHA = 0.0005
_MAX_ARMS = 10_000


@dataclass(frozen=True, kw_only=True)
class RowRule:
    """Every row must pass.

    Attributes:
        name: What must hold.
        is_violated: Makes a column that is true in rows that break the rule, false or null in the
            others; made when the rule is evaluated, so that a rule needs no session.
        shown: Columns of an example; empty: the first columns of the frame.
    """

    name: str
    is_violated: Callable[[], Column]
    shown: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FreshRule:
    """The newest date must be at most `max_age_days` older than `as_of`.

    Attributes:
        name: What must hold.
        column: A DATE or TIMESTAMP column.
        as_of: Logical date of the run.
        max_age_days: Greatest age allowed, in days.
    """

    name: str
    column: str
    as_of: dt.date
    max_age_days: int


@dataclass(frozen=True, kw_only=True)
class FrameRule:
    """A query that returns one row per violation must return none.

    Attributes:
        name: What must hold.
        violations: The query; its columns make the examples.
    """

    name: str
    violations: Transform


@dataclass(frozen=True, kw_only=True)
class RatioRule:
    """The arms of each experiment must have the planned shares (no sample-ratio mismatch).

    Attributes:
        name: What must hold.
        experiment: Column of the experiment, here and in `definitions`.
        variant: Column of the arm.
        unit: Column of what was randomised: the unit, or the cluster of a clustered design.
        definitions: One row per experiment with arrays `variants` and `shares`.
        alpha: Probability of a false alarm, per experiment.
    """

    name: str
    experiment: str
    variant: str
    unit: str
    definitions: DataFrame
    alpha: float


Rule = RowRule | FreshRule | FrameRule | RatioRule


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A rule that does not hold.

    Attributes:
        rule: Name of the rule.
        n_violations: Rows, keys or experiments that break it.
        examples: Up to five of them as text.
    """

    rule: str
    n_violations: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        """One clause: rule, count, examples."""
        shown = f", such as {'; '.join(self.examples)}" if self.examples else ""
        return f"{self.rule}: {self.n_violations:,} violation(s){shown}"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Rules bound to the frame that they look at.

    Attributes:
        name: The frame's name, shown in progress and messages.
        frame: The frame.
        rules: What must hold.
    """

    name: str
    frame: DataFrame
    rules: tuple[Rule, ...]

    def check(self) -> None:
        """Return if every rule holds.

        Raises:
            DataError: Some do not; says for each how often, with up to five examples.
        """
        violations = evaluate(self.frame, self.rules)
        if violations:
            raise DataError(
                f"{self.name} failed {len(violations)} of {len(self.rules)} quality rules",
                given=" | ".join(str(violation) for violation in violations),
            )


def keys_unique(*columns: str) -> FrameRule:
    """No combination of these columns occurs twice. Nulls are the business of `no_nulls`."""

    def repeated(df: DataFrame) -> DataFrame:
        counts = df.groupBy(*map(quoted, columns)).agg(F.count(F.lit(1)).alias("n_rows"))
        return counts.where(F.col("n_rows") > 1)

    return FrameRule(name=f"({', '.join(columns)}) is unique", violations=repeated)


def no_nulls(*columns: str, shown: Sequence[str] = ()) -> tuple[RowRule, ...]:
    """None of these columns holds a null; one rule per column, all in one pass.

    Args:
        *columns: The columns.
        shown: Columns of an example, such as the key.
    """
    return tuple(
        RowRule(
            name=f"{column} is not null",
            is_violated=partial(_is_null, column),
            shown=tuple(shown),
        )
        for column in columns
    )


def in_range(
    column: str,
    *,
    lower: float | None = None,
    upper: float | None = None,
    shown: Sequence[str] = (),
) -> RowRule:
    """A number lies within the limits, ends included; NaN does not, null is not looked at.

    Args:
        column: A numeric column.
        lower: Lower limit, if any.
        upper: Upper limit, if any.
        shown: Further columns of an example, such as the key.
    """

    def is_outside() -> Column:
        value = F.col(quoted(column))
        outside = F.isnan(value.cast("double"))
        if lower is not None:
            outside = outside | (value < F.lit(lower))
        if upper is not None:
            outside = outside | (value > F.lit(upper))
        return outside

    low, high = (
        ("-inf" if lower is None else f"{lower:g}"),
        ("inf" if upper is None else f"{upper:g}"),
    )
    return RowRule(
        name=f"{column} is within [{low}, {high}]",
        is_violated=is_outside,
        shown=(*shown, column),
    )


def satisfies(name: str, predicate: str, *, shown: Sequence[str] = ()) -> RowRule:
    """A declared SQL predicate is not false, as in a CHECK constraint (null passes).

    Args:
        name: Name of the constraint.
        predicate: SQL from a `Table` declaration, never from a user.
        shown: Columns of an example.
    """
    return RowRule(
        name=f"{name} ({predicate})", is_violated=lambda: ~F.expr(predicate), shown=tuple(shown)
    )


def fresh(column: str, *, as_of: dt.date, max_age_days: int) -> FreshRule:
    """The newest value of a DATE or TIMESTAMP column is recent enough.

    Args:
        column: The column.
        as_of: Logical date of the run.
        max_age_days: Greatest age allowed, in days.
    """
    name = f"{column} reaches {as_of - dt.timedelta(days=max_age_days)}"
    return FreshRule(name=name, column=column, as_of=as_of, max_age_days=max_age_days)


def referential(
    columns: Sequence[str], *, other: DataFrame, other_columns: Sequence[str], other_name: str
) -> FrameRule:
    """Every key is present in another frame; null keys are the business of `no_nulls`.

    Args:
        columns: The key here.
        other: The other frame.
        other_columns: The key there, in the same order.
        other_name: Name of the other frame, for the message.
    """

    def orphans(df: DataFrame) -> DataFrame:
        names = [f"_key_{place}" for place in range(len(columns))]
        present = other.select(
            *[F.col(quoted(c)).alias(n) for c, n in zip(other_columns, names, strict=True)]
        )
        keys = df.select(*map(quoted, columns)).dropna().distinct()
        is_same = [keys[quoted(c)] == present[n] for c, n in zip(columns, names, strict=True)]
        return keys.join(present, on=is_same, how="left_anti")

    return FrameRule(name=f"({', '.join(columns)}) is known to {other_name}", violations=orphans)


def sample_ratio(
    *,
    experiment: str,
    variant: str,
    unit: str,
    definitions: DataFrame,
    alpha: float = SAMPLE_RATIO_ALPHA,
) -> RatioRule:
    """The randomised units of each experiment split as planned (Pearson's chi-square test).

    A mismatch means that the comparison is broken, whatever the estimate says (Fabijan et al. 2019,
    "Diagnosing sample ratio mismatch in online controlled experiments", KDD).

    Args:
        experiment: Column of the experiment, here and in `definitions`.
        variant: Column of the arm.
        unit: Column of what was randomised; each distinct value counts once.
        definitions: One row per experiment with arrays `variants` and `shares`.
        alpha: Probability of a false alarm, per experiment.
    """
    return RatioRule(
        name=f"the arms of each {experiment} have their shares",
        experiment=experiment,
        variant=variant,
        unit=unit,
        definitions=definitions,
        alpha=alpha,
    )


def declared(table: Table) -> tuple[Rule, ...]:
    """The rules that a table's declaration states: key, columns that are not nullable, checks."""
    required = [field.name for field in table.fields if not field.is_nullable]
    checks = (satisfies(name, sql, shown=table.key) for name, sql in table.checks.items())
    return (keys_unique(*table.key), *no_nulls(*required, shown=table.key), *checks)


def evaluate(df: DataFrame, rules: Sequence[Rule]) -> tuple[Violation, ...]:
    """The rules that do not hold, in the order given.

    Args:
        df: The frame.
        rules: The rules; names must differ.

    Raises:
        SpecError: Two rules have one name.
    """
    names = [rule.name for rule in rules]
    if len(set(names)) < len(names):
        raise SpecError("two quality rules have one name", given=names)
    totals = _totals(df, rules)
    found = (_violation(df, rule, totals) for rule in rules)
    return tuple(violation for violation in found if violation is not None)


def chi_square_pvalue(counts: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """P-value of the hypothesis that units fell into arms with these shares.

    Args:
        counts: Units by arm; an arm that is missing has none.
        shares: Planned share by arm.

    Returns:
        The p-value; zero when an arm occurs that has no share.
    """
    from scipy.stats import chi2

    total = sum(counts.values())
    if any(n > 0 and shares.get(arm, 0.0) <= 0.0 for arm, n in counts.items()):
        return 0.0
    planned = {arm: share * total for arm, share in shares.items() if share > 0.0}
    if total == 0 or len(planned) <= 1:
        return 1.0
    statistic = sum((counts.get(arm, 0) - n) ** 2 / n for arm, n in planned.items())
    return float(chi2.sf(statistic, len(planned) - 1))


def _is_null(column: str) -> Column:
    return F.col(quoted(column)).isNull()


def _totals(df: DataFrame, rules: Sequence[Rule]) -> Mapping[str, Any]:
    """One pass: violating rows of every row rule, newest value of every freshness rule."""
    aggregates: list[Column] = []
    for place, rule in enumerate(rules):
        match rule:
            case RowRule(is_violated=is_violated):
                aggregates.append(F.count_if(is_violated()).alias(f"rule_{place}"))
            case FreshRule(column=column):
                newest = F.max(F.col(quoted(column)).cast("date"))
                aggregates.append(newest.alias(f"rule_{place}"))
    if not aggregates:
        return {}
    row = collect_bounded(df.agg(*aggregates), max_rows=1, what="quality totals").iloc[0]
    names = [rule.name for rule in rules]
    return {names[int(str(key).removeprefix("rule_"))]: value for key, value in row.items()}


def _violation(df: DataFrame, rule: Rule, totals: Mapping[str, Any]) -> Violation | None:
    match rule:
        case RowRule():
            return _row_violation(df, rule, int(totals[rule.name]))
        case FreshRule():
            return _fresh_violation(rule, totals[rule.name])
        case FrameRule():
            return _frame_violation(rule.name, rule.violations(df))
        case RatioRule():
            return _ratio_violation(df, rule)


def _row_violation(df: DataFrame, rule: RowRule, n_violations: int) -> Violation | None:
    if n_violations == 0:
        return None
    shown = rule.shown or tuple(df.columns[:3])
    broken = df.where(rule.is_violated()).select(*map(quoted, shown))
    return Violation(rule=rule.name, n_violations=n_violations, examples=_examples(broken))


def _fresh_violation(rule: FreshRule, newest: object) -> Violation | None:
    if isinstance(newest, dt.date) and not pd.isna(newest):
        if (rule.as_of - newest).days <= rule.max_age_days:
            return None
        return Violation(rule=rule.name, n_violations=1, examples=(f"newest is {newest}",))
    return Violation(rule=rule.name, n_violations=1, examples=("there is no value",))


def _frame_violation(name: str, broken: DataFrame) -> Violation | None:
    count = broken.agg(F.count(F.lit(1)).alias("n"))
    n_violations = int(collect_bounded(count, max_rows=1, what="a violation count")["n"].iloc[0])
    if n_violations == 0:
        return None
    return Violation(rule=name, n_violations=n_violations, examples=_examples(broken))


def _ratio_violation(df: DataFrame, rule: RatioRule) -> Violation | None:
    found = [
        f"{experiment}: {_shown(counts)} for shares {_shown(shares)}, p = {pvalue:.2g}"
        for experiment, counts, shares in _arms(df, rule)
        if (pvalue := chi_square_pvalue(counts, shares)) < rule.alpha
    ]
    if not found:
        return None
    return Violation(rule=rule.name, n_violations=len(found), examples=tuple(found[:MAX_EXAMPLES]))


def _arms(df: DataFrame, rule: RatioRule) -> list[tuple[str, dict[str, int], dict[str, float]]]:
    """Experiment, units by arm, planned share by arm (zero for an arm that was not planned)."""
    experiment, variant = quoted(rule.experiment), quoted(rule.variant)
    planned = rule.definitions.select(
        F.col(experiment).alias("experiment"), F.expr("inline(arrays_zip(variants, shares))")
    ).select("experiment", F.col("variants").alias("variant"), F.col("shares").alias("share"))
    units = df.select(
        F.col(experiment).alias("experiment"),
        F.col(variant).alias("variant"),
        F.col(quoted(rule.unit)).alias("unit"),
    ).distinct()
    counted = units.groupBy("experiment", "variant").agg(F.count(F.lit(1)).alias("n_units"))
    arms = collect_bounded(
        counted.join(planned, on=["experiment", "variant"], how="full").orderBy(
            "experiment", "variant"
        ),
        max_rows=_MAX_ARMS,
        what="arms by experiment",
        keys=("experiment", "variant"),
    )
    arms["n_units"] = arms["n_units"].fillna(0).astype(int)
    return [
        (
            str(name),
            dict(zip(part["variant"].astype(str), part["n_units"], strict=True)),
            dict(zip(part["variant"].astype(str), part["share"].fillna(0.0), strict=True)),
        )
        for name, part in arms.groupby("experiment", sort=True)
    ]


def _shown(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in values.items())


def _examples(broken: DataFrame) -> tuple[str, ...]:
    few = collect_bounded(broken.limit(MAX_EXAMPLES), max_rows=MAX_EXAMPLES, what="examples")
    return tuple(
        "(" + ", ".join(f"{name} {value}" for name, value in row.items()) + ")"
        for row in few.to_dict("records")
    )
