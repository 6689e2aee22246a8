"""What a policy is worth on units that its model has not seen, beside other policies.

Values are means of doubly robust scores of the arms chosen, less their costs (Dudik, Langford and
Li 2011; Athey and Wager 2021). The frame that requests are answered from has one column per policy,
the value of each unit's arm under it, and `less_<number>`: the first policy's value less another's.
"""

import dataclasses
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from causal.core.errors import DataError
from causal.core.frames import Column, Constant, FrameRequest, GramRequest, Term
from causal.core.gram import gram
from causal.core.inference import effect
from causal.core.result import Diagnostic, Effect, Result
from causal.core.unit_keys import check_units
from causal.uplift.learners_readout import AIPW, mean_of
from causal.uplift.policy_options import PolicySpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POLICY = "policy"
BEST = "best"
"""The policy within the budget that knows every effect."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """Who was given what.

    Attributes:
        treatments: Names, control first.
        n: Targets by treatment.
        n_unscored: Targets without a score: they get nothing.
        spent: Money that is spent.
        limit: Money that may be spent; `None`: as much as pays.
        price: Gain in money, beyond the cost, that the last money spent had to bring per money.
        expected: Sum over the targets of the gain by their scores, costs taken off.
    """

    treatments: tuple[str, ...]
    n: tuple[int, ...]
    n_unscored: int
    spent: float
    limit: float | None
    price: float
    expected: float

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the targets that each arm has."""
        return tuple(n / sum(self.n) for n in self.n)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The policies whose values are columns `value_<number>`, the learned one first.

    Attributes:
        names: Such as `policy`, `none`, `all surge`, `random`.
        n_by_arm: Held-out units by arm that the policy gives them, control first.
        n_left_out: Held-out units without a score or an outcome.
        cluster: Column of the clusters.
        unit: Column of the unit.
        metric: What a value is a sum of.
    """

    names: tuple[str, ...]
    n_by_arm: tuple[int, ...]
    n_left_out: int
    cluster: str | None
    unit: str
    metric: str


def value_name(number: int) -> str:
    """Column of a policy's values."""
    return f"value_{number}"


def less_name(number: int) -> str:
    """Column of the first policy's values less those of another one."""
    return f"less_{number}"


def estimate(
    spec: PolicySpec, given: Given, compared: Compared
) -> Generator[FrameRequest, pd.DataFrame, Result]:
    """Value a policy; a plan to be run on held-out units.

    Args:
        spec: The spec.
        given: Who was given what.
        compared: The policies.

    Raises:
        DataError: A unit repeats, or no held-out unit has a score and an outcome.
    """
    yield from check_units((compared.unit,), ())
    others = range(1, len(compared.names))
    columns = [value_name(0), *(value_name(n) for n in others), *(less_name(n) for n in others)]
    terms: tuple[Term, ...] = (Constant(), *map(Column, columns))
    clusters = () if compared.cluster is None else (compared.cluster,)
    request = GramRequest(terms=terms, summed_by=clusters)
    moments = gram((yield request), request)
    if moments.n == 0:
        raise DataError("no held-out unit has a score and an outcome: nothing values the policy")
    labels = [
        *compared.names,
        *(f"{compared.names[0]} - {compared.names[n]}" for n in others),
    ]
    n_treated = sum(compared.n_by_arm[1:])
    effects = []
    for position, term in enumerate(labels, start=1):
        mean, std_error = mean_of(moments, position)
        if std_error == 0.0 and mean == 0.0:
            # The policy is the other one: there is no difference to test.
            continue
        effects.append(
            effect(
                estimator=AIPW,
                estimand="policy_value",
                metric=compared.metric,
                term=term,
                estimate=mean,
                std_error=std_error,
                confidence_level=spec.confidence_level,
                n_treated=n_treated,
                n_control=compared.n_by_arm[0],
                df=float(moments.n - 1) if clusters else None,
                n_clusters=moments.n if clusters else None,
            )
        )
    return Result(
        effects=tuple(effects),
        diagnostics=tuple(_checks(given, compared, effects)),
        params={
            "price": given.price,
            "spent": given.spent,
            "expected_gain": given.expected,
            "n_held_out": sum(compared.n_by_arm),
            **({} if given.limit is None else {"budget": given.limit}),
        },
        tables={"assignments": _assignments(given)},
    )


def _assignments(given: Given) -> pd.DataFrame:
    return pd.DataFrame({"treatment": given.treatments, "n": given.n, "share": given.shares})


def _checks(given: Given, compared: Compared, effects: Sequence[Effect]) -> list[Diagnostic]:
    n = sum(compared.n_by_arm)
    is_within = given.limit is None or given.spent <= given.limit * (1 + 1e-9)
    limit = "no limit" if given.limit is None else f"of {given.limit:,.2f} that may be"
    found = [
        Diagnostic(
            name="held_out", statistic=float(n), pvalue=None, passed=True,
            detail=f"valued on {n:,} units that the model has not seen; {compared.n_left_out:,} "
            "more have no score or no outcome and are left out",
        ),
        Diagnostic(
            name="budget", statistic=given.spent, pvalue=None, passed=is_within,
            detail=f"{given.spent:,.2f} are spent, {limit}",
        ),
        Diagnostic(
            name="not_scored", statistic=float(given.n_unscored), pvalue=None, passed=None,
            detail=f"{given.n_unscored:,} targets cannot be scored and get nothing",
        ),
    ]  # fmt: skip
    for item in effects:
        name, _, other = item.term.partition(" - ")
        if other:
            found.append(
                Diagnostic(
                    name=f"not_worse_than.{other.replace(' ', '_')}",
                    statistic=item.statistic, pvalue=item.pvalue, passed=item.ci_upper >= 0,
                    detail=f"{name} is worth {_amount(item)} a unit more than {other}",
                )
            )  # fmt: skip
    return found


def sentences(result: Result, given: Mapping[str, int]) -> list[str]:
    """The policy in plain words.

    Args:
        result: Its values.
        given: Targets by treatment, control first.
    """
    total = sum(given.values())
    who = ", ".join(f"{n:,} ({n / total:.1%}) get {name}" for name, n in given.items())
    out = [f"Of {total:,} targets {who}; {result.params['spent']:,.2f} are spent."]
    for item in result.effects:
        name, _, other = item.term.partition(" - ")
        if not other:
            out.append(f"**{name}** is worth {_amount(item)} a unit.")
        elif item.ci_lower > 0:
            out.append(f"{name} beats **{other}** by {_amount(item)} a unit.")
        elif item.ci_upper < 0:
            out.append(f"{name} is worse than **{other}**: {_amount(item)} a unit.")
        else:
            out.append(f"{name} and **{other}** are not clearly different: {_amount(item)} a unit.")
    return out


def beside_truth(result: Result, truth: Mapping[str, float], *, optimum: float) -> Result:
    """The result with checks of its values and the table `true_values`, the best policy's too.

    Args:
        result: The values.
        truth: True value of each policy, by name.
        optimum: True value of the best policy within the budget, which knows all effects.
    """
    out = []
    for item in result.effects:
        name, _, other = item.term.partition(" - ")
        value = truth[name] - (truth[other] if other else 0.0)
        is_inside = item.ci_lower <= value <= item.ci_upper
        label = item.term.replace(" - ", "_less_").replace(" ", "_")
        out.append(
            Diagnostic(
                name=f"truth.{label}", statistic=value, pvalue=None, passed=is_inside,
                detail=f"{item.term} is truly worth {value:+.4g} a unit, "
                f"{'within' if is_inside else 'outside'} {_amount(item)}",
            )
        )  # fmt: skip
    reached, possible = truth[POLICY] - truth["none"], optimum - truth["none"]
    out.append(
        Diagnostic(
            name="truth.optimum", statistic=optimum, pvalue=None, passed=None,
            detail=f"the best policy within the budget, which knows every effect, is worth "
            f"{possible:+.4g} a unit more than none; this one {reached:+.4g}",
        )
    )  # fmt: skip
    return dataclasses.replace(
        result,
        diagnostics=(*result.diagnostics, *out),
        tables={
            **result.tables,
            "true_values": pd.DataFrame(
                {"policy": [*truth, BEST], "value": [*truth.values(), optimum]}
            ),
        },
    )


def figures(result: Result) -> Mapping[str, "Figure"]:
    """How much more the policy is worth than others, with the truth where a world keeps it.

    Args:
        result: What `estimate` or `beside_truth` returned.
    """
    from causal.core.interval_figure import interval_figure

    against = [item for item in result.effects if " - " in item.term]
    if not against:
        return {}
    table = pd.DataFrame([vars(item) for item in against])
    others = [term.partition(" - ")[2] for term in table["term"]]
    table["term"] = [f"than {name}" for name in others]
    title = "How much more the policy is worth"
    if "true_values" in result.tables:
        truth = result.tables["true_values"].set_index("policy")["value"]
        table["truth"] = [truth[POLICY] - truth[name] for name in others]
        title += f" (the best there is, than none: {truth[BEST] - truth['none']:.3g})"
    return {
        "policy_gains": interval_figure(table, title=title, quantity="money a unit, after costs")
    }


def _amount(item: Effect) -> str:
    return f"{item.estimate:+.4g} [{item.ci_lower:+.4g}, {item.ci_upper:+.4g}]"
