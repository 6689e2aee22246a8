"""The rule of a policy as column expressions: what each unit gets, costs and is worth.

The rule is that of `causal.uplift.policy.best_treatment`: the treatment with the largest gain less
priced cost, if that is positive. Units that are alike at the price are told apart by a hash.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from causal.core.frames import BUCKET, HashBucket
from causal.core.gram import Array
from causal.uplift.policy_readout import POLICY, less_name, value_name
from causal.uplift.spending import Bracket, Spending, bracket
from transforms.bounded import collect_bounded
from transforms.columns import Transform
from transforms.terms import bucketed, quoted

TREATMENT, TIE = "(treatment)", "(tie)"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Who gets what.

    Attributes:
        gains: Columns of the gain of each treatment over none, its cost taken off.
        costs: Cost of each treatment.
        price: Price of money; units whose `TIE` is below `kept` decide at it.
        kept: See above.
        low_price: Price at which the others decide.
    """

    gains: tuple[str, ...]
    costs: tuple[float, ...]
    price: float = 0.0
    kept: float = 1.0
    low_price: float = 0.0

    @property
    def choice(self) -> Column:
        """Number of the treatment, 0 for none."""
        return self.with_kept(F.lit(self.kept))

    def with_kept(self, kept: Column) -> Column:
        """Number of the treatment if another share of the units decided at `price`."""
        at_low = self.at(F.lit(self.low_price))
        return F.when(quoted(TIE) < kept, self.at(F.lit(self.price))).otherwise(at_low)

    def at(self, price: Column) -> Column:
        """Number of the treatment that is best at a price."""
        net = [
            quoted(gain) - price * F.lit(float(cost))
            for gain, cost in zip(self.gains, self.costs, strict=True)
        ]
        best = F.greatest(F.lit(0.0), *net)
        chosen = F.when(best <= 0.0, 0)
        for number, value in enumerate(net, start=1):
            chosen = chosen.when(value == best, number)
        return F.coalesce(chosen, F.lit(0))

    def cost_of(self, choice: Column) -> Column:
        """What a choice costs."""
        return F.element_at(F.array(*map(F.lit, (0.0, *self.costs))), choice + 1)


def with_ties(order: HashBucket) -> Transform:
    """Add a number between 0 and 1 by which units that are alike are told apart."""

    def transform(df: DataFrame) -> DataFrame:
        share = quoted(BUCKET).cast("double") / F.lit(float(order.n_buckets))
        return bucketed(df, order).withColumn(TIE, F.coalesce(share, F.lit(0.0))).drop(BUCKET)

    return transform


def within_budget(df: DataFrame, rule: Rule, *, budget: float | None) -> Rule:
    """The rule that gets most out of a budget.

    Args:
        df: The units with gains and `TIE`.
        rule: Its gains and costs.
        budget: Money that may be spent; `None`: no limit.

    Raises:
        DataError: No rule stays within it.
    """
    if budget is None:
        return rule
    slack = max(rule.costs)
    ratios = [F.max(quoted(gain)) / cost
              for gain, cost in zip(rule.gains, rule.costs, strict=True) if cost > 0]  # fmt: skip
    if not ratios:
        return rule
    highest = F.greatest(F.lit(0.0), *ratios).alias("highest")
    top = float(collect_bounded(df.agg(highest), max_rows=1, what="a price")["highest"].iloc[0])
    prices = bracket(
        _spending(df, rule, rule.at),
        low=0.0, high=2.0 * top + 1.0, budget=budget, slack=slack,
    )  # fmt: skip
    if prices.is_met:
        return rule
    found = _with(rule, prices, kept=1.0)
    if prices.spent_low - prices.spent_high <= slack:
        return found
    ties = bracket(
        _spending(df, rule, found.with_kept),
        low=0.0, high=1.0, budget=budget, slack=slack,
    )  # fmt: skip
    return _with(rule, prices, kept=ties.high)


def _with(rule: Rule, prices: Bracket, *, kept: float) -> Rule:
    return replace(rule, price=prices.high, low_price=prices.low, kept=kept)


def _spending(df: DataFrame, rule: Rule, chosen: Callable[[Column], Column]) -> Spending:
    """What is spent at each of some positions, in one pass."""

    def spending(at: Array) -> Array:
        places = F.posexplode(F.array(*[F.lit(float(position)) for position in at]))
        rows = df.select(quoted(TIE), *map(quoted, rule.gains), places.alias("place", "position"))
        costs = rule.cost_of(chosen(F.col("position")))
        sums = rows.groupBy("place").agg(F.sum(costs).alias("spent"))
        found = collect_bounded(sums, max_rows=len(at), what="what is spent").set_index("place")
        return np.array([found["spent"].get(n, 0.0) for n in range(len(at))], dtype=np.float64)

    return spending


def with_gains(effects: Sequence[str], rule: Rule, *, outcome_value: float) -> Transform:
    """Add the gain of each treatment, in money and its cost taken off, as the rule reads it.

    Args:
        effects: Columns of effects, one a treatment.
        rule: Names the gains and has the costs.
        outcome_value: Money that one unit of the outcome is worth.
    """

    def transform(df: DataFrame) -> DataFrame:
        made = {
            gain: quoted(name) * F.lit(float(outcome_value)) - F.lit(float(cost))
            for gain, name, cost in zip(rule.gains, effects, rule.costs, strict=True)
        }
        return df.withColumns(made)

    return transform


def with_values(
    outcomes: Sequence[str], rule: Rule, *, outcome_value: float, shares: Sequence[float]
) -> Transform:
    """Add what each unit's arm is worth under several policies: `value_n`, and `less_n`.

    The policies: that of the column `TREATMENT`; nothing for all; each treatment for all; the
    treatments at random, with the shares given.

    Args:
        outcomes: Columns of the outcome in every arm, control first: doubly robust scores, or true.
        rule: Has the costs.
        outcome_value: Money that one unit of the outcome is worth.
        shares: Share of the units that each arm has, control first.
    """

    def transform(df: DataFrame) -> DataFrame:
        worth = [
            quoted(name) * F.lit(float(outcome_value)) - F.lit(float(cost))
            for name, cost in zip(outcomes, (0.0, *rule.costs), strict=True)
        ]
        chosen = F.element_at(F.array(*worth), quoted(TREATMENT) + 1)
        mixed = reduce(add, [F.lit(float(p)) * part for p, part in zip(shares, worth, strict=True)])
        values = dict(enumerate([chosen, *worth, mixed]))
        made = df.withColumns({value_name(n): value for n, value in values.items()})
        first = quoted(value_name(0))
        less = {less_name(n): first - quoted(value_name(n)) for n in values if n}
        return made.withColumns(less)

    return transform


def policy_names(treatments: Sequence[str]) -> tuple[str, ...]:
    """Names of the policies of `with_values`."""
    return (POLICY, "none", *(f"all {name}" for name in treatments), "random")
