"""What learners found, on units that none of them has seen, and how well they found it.

Mean effects, by segment too, are means of doubly robust scores; how scores rank, by group and
over all, comes from score histograms (`causal.uplift.evaluation`). The frame that requests are
answered from has the columns of `UpliftModel.evaluation`, and `arm_score` and `gain` columns made
of them: what an arm would have been worth, and by how much more than control.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from causal.checks import srm
from causal.core.errors import DataError, InferenceError
from causal.core.frames import Column, Condition, Constant, FrameRequest, GramRequest, Level, Term
from causal.core.gram import Gram, gram, grams
from causal.core.inference import critical_value, effect
from causal.core.result import Diagnostic, Effect, Result
from causal.core.unit_keys import check_units
from causal.uplift.evaluation import Intervals, evaluate, qini_band, rate, toc_band
from causal.uplift.groups import Groups, calibration_of, grouped_uplift
from causal.uplift.inputs import STATUSES
from causal.uplift.learned_model import UpliftModel, name_of, rows_by_arm
from causal.uplift.learners_options import UpliftLearnersSpec
from causal.uplift.resampling import Resampling, Score
from causal.uplift.score_histogram import HistogramOptions, ScoreHistogram, count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLD = "fold"
"""Column of a hash of the cluster, where clusters were assigned."""
N_FOLDS = 200
AIPW = "aipw"
"""Estimator of means of doubly robust scores."""
_ALPHA = 0.001
_KS = (0.1, 0.3)
_MIN_GROUP_ROWS = 20
_MIN_RANKED = 30

Receives = Generator[FrameRequest, pd.DataFrame, Result]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The units that no model saw.

    Attributes:
        n: Those with an outcome and a score, by arm.
        not_scored: Others, by why they have none.
    """

    n: tuple[int, ...]
    not_scored: Mapping[str, int]

    def shares(self, spec: UpliftLearnersSpec) -> tuple[float, ...]:
        """The chances of the arms: planned, or as they came."""
        planned = spec.options.propensity
        if isinstance(planned, dict):
            return tuple(planned[str(arm)] for arm in spec.options.arms)
        return tuple(n / sum(self.n) for n in self.n)


def held_out(spec: UpliftLearnersSpec) -> Generator[FrameRequest, pd.DataFrame, HeldOut]:
    """Count the held-out units; a plan to be run on their scored rows.

    Raises:
        DataError: A unit repeats, or an arm has too few units to evaluate anything.
    """
    options = spec.options
    where = (Condition(options.variant, options.arms),)
    yield from check_units((options.unit,), where)
    request = GramRequest(
        terms=(Column(options.outcome),), by=(options.variant, "status"), where=where
    )
    found = grams((yield request), request)
    scored = {key[0]: item.n for key, item in found.items() if key[1] == 0}
    n = rows_by_arm(scored, options.arms)
    few = [f"{arm} ({size})" for arm, size in zip(options.arms, n, strict=True)
           if size < 2 * options.groups]  # fmt: skip
    if few:
        raise DataError(
            "an arm has too few held-out units to evaluate scores by",
            given=few, allowed=f"at least {2 * options.groups}, or fewer groups",
            key="options.held_out",
        )  # fmt: skip
    lost = dict.fromkeys((*STATUSES[1:], "no_outcome"), 0)
    for key, item in found.items():
        status = int(float(str(key[1])))
        if status:
            lost[STATUSES[status]] += item.n + item.n_missing
        else:
            lost["no_outcome"] += item.n_missing
    return HeldOut(n=tuple(n), not_scored=lost)


def estimate(model: UpliftModel, rows: HeldOut) -> Receives:
    """Evaluate a model; a plan to be run on the scored rows of the held-out units.

    Args:
        model: The model.
        rows: How many they are.

    Raises:
        DataError: A segment is null in some rows, or groups are too small.
    """
    effects, small = yield from _mean_effects(model, rows)
    checks = [*_checks(model, rows), *small]
    tables: dict[str, list[pd.DataFrame]] = {}
    for learner in model.learners:
        for number, _ in enumerate(model.treatments, start=1):
            counted = yield from count(
                _histogram(model, learner, number), near=model.near(learner, number)
            )
            found = _Ranking.of(model, counted.histogram, learner=learner, number=number)
            effects += found.effects
            checks += found.checks
            for name, table in found.tables.items():
                tables.setdefault(name, []).append(table)
    return Result(
        effects=tuple(effects),
        diagnostics=tuple(checks),
        params={
            "n_held_out": sum(rows.n),
            "n_training_rows": sum(model.n_rows),
            "n_trained_on": sum(model.n_drawn),
            **{f"chance_{arm}": share for arm, share in _named_shares(model, rows).items()},
        },
        tables={
            **{name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()},
            "inputs": _inputs_table(model),
        },
    )


def _named_shares(model: UpliftModel, rows: HeldOut) -> dict[str, float]:
    if not model.spec.options.is_randomised:
        return {}
    names = map(str, model.spec.options.arms)
    return dict(zip(names, rows.shares(model.spec), strict=True))


def term_of(model: UpliftModel, number: int) -> str:
    """The comparison of a treatment, numbered from 1, with control."""
    return f"{model.treatments[number - 1]} - {model.spec.options.control}"


def _mean_effects(
    model: UpliftModel, rows: HeldOut
) -> Generator[FrameRequest, pd.DataFrame, tuple[list[Effect], list[Diagnostic]]]:
    """Means of doubly robust gains, over all and by segment; and segments that are too small."""
    options = model.spec.options
    gains = tuple(Column(f"gain_{number}") for number in range(1, len(model.treatments) + 1))
    clusters = () if options.cluster is None else (options.cluster,)
    terms: tuple[Term, ...] = (Constant(), *gains)
    where = (Condition(options.variant, options.arms), Condition("status", (0,)))
    request = GramRequest(terms=terms, where=where, summed_by=clusters)
    is_clustered, small = options.cluster is not None, []
    whole = gram((yield request), request)
    found = _gains(model, whole, rows.n, suffix="", is_clustered=is_clustered)
    for segment in options.segments:
        request = GramRequest(terms=terms, by=(segment,), where=where, summed_by=clusters)
        by_level = grams((yield request), request)
        counted = GramRequest(terms=(), by=(segment, options.variant), where=where)
        sizes = grams((yield counted), counted)
        if None in {key[0] for key in by_level}:
            raise DataError(f"{segment} is null in some rows", given=segment)
        for key in sorted(by_level, key=str):
            own = {arm: item.n for (level, arm), item in sizes.items() if level == key[0]}
            n = rows_by_arm(own, options.arms)
            name = f"{segment}={_text(key[0])}"
            if min(by_level[key].n, *n) < _MIN_GROUP_ROWS:
                detail = f"{name} has {sum(n):,} units and is not reported"
                small.append(_note(f"small_segment.{name}", float(sum(n)), detail))
                continue
            found += _gains(model, by_level[key], n, suffix=f" | {name}", is_clustered=is_clustered)
    return found, small


def _gains(
    model: UpliftModel, moments: Gram, n: Sequence[int], *, suffix: str, is_clustered: bool
) -> list[Effect]:
    """Mean gains of a set of rows, or of clusters' sums of rows."""
    out = []
    for number in range(1, len(model.treatments) + 1):
        mean, std_error = mean_of(moments, number)
        out.append(
            effect(
                estimator=AIPW,
                estimand="cate" if suffix else "ate",
                metric=model.spec.options.outcome,
                term=term_of(model, number) + suffix,
                estimate=mean,
                std_error=std_error,
                confidence_level=model.spec.confidence_level,
                n_treated=n[number],
                n_control=n[0],
                df=float(moments.n - 1) if is_clustered else None,
                n_clusters=moments.n if is_clustered else None,
            )
        )
    return out


def mean_of(moments: Gram, position: int) -> tuple[float, float]:
    """Mean over rows of a term, and its standard error, from moments of rows or clusters.

    The first term is the constant 1, so that its sum by cluster is the number of rows; the error is
    that of a ratio of sums, with n/(n-1) or G/(G-1).

    Args:
        moments: Of the constant and the values.
        position: Of the value.

    Raises:
        InferenceError: There are fewer than two rows or clusters.
    """
    if moments.n < 2:  # noqa: PLR2004
        raise InferenceError("an interval needs two or more rows or clusters", given=moments.n)
    size, total = moments.mean[0], moments.mean[position]
    mean = total / size
    at = [0, position]
    inner = moments.cross[np.ix_(at, at)]
    contrast = np.array([-mean, 1.0])
    variance = float(contrast @ inner @ contrast) / (moments.n * (moments.n - 1)) / size**2
    return float(mean), float(np.sqrt(max(variance, 0.0)))


def _histogram(model: UpliftModel, learner: str, number: int) -> HistogramOptions:
    options = model.spec.options
    return HistogramOptions(
        score=name_of("effect", learner, number),
        score_bin=name_of("bin", learner, number),
        outcome=options.outcome,
        variant=options.variant,
        treatment=options.treatments[number - 1],
        control=options.control,
        fold=None if options.cluster is None else FOLD,
        pseudo_outcome=f"gain_{number}",
        pseudo_of="all",
    )


@dataclass(frozen=True, kw_only=True)
class _Ranking:
    """How a learner's scores of one treatment rank units."""

    effects: list[Effect]
    checks: list[Diagnostic]
    tables: dict[str, pd.DataFrame]

    @classmethod
    def of(
        cls, model: UpliftModel, histogram: ScoreHistogram, *, learner: str, number: int
    ) -> "_Ranking":
        spec, options = model.spec, model.spec.options
        is_clustered = options.cluster is not None
        resampling = Resampling(
            by="folds" if is_clustered else "units", n_draws=options.draws, seed=spec.seed
        )
        intervals = Intervals(resampling=resampling, confidence_level=spec.confidence_level)
        groups = grouped_uplift(
            histogram,
            n_groups=options.groups,
            confidence_level=spec.confidence_level,
            measured="arms" if options.is_randomised else "pseudo",
            resampling=resampling if is_clustered else None,
        )
        label = {"learner": learner, "treatment": model.treatments[number - 1]}
        sizes = (int(histogram.treated.n.sum()), int(histogram.control.n.sum()))
        shared: dict[str, Any] = {
            "estimator": learner,
            "metric": options.outcome,
            "confidence_level": spec.confidence_level,
        }
        term = term_of(model, number)
        rows = [
            effect(
                estimand="cate",
                term=f"{term} | group {row['group']:.0f} of {options.groups}",
                estimate=row["uplift"],
                std_error=row["std_error"],
                n_treated=round(row["n_treated"]),
                n_control=round(row["n_control"]),
                **shared,
            )
            for row in groups.table.to_dict("records")
        ]
        tables = {"groups": groups.table}
        if histogram.score.size == 1 or not np.ptp(histogram.score) > 0:
            note = _note(
                f"ranking.{learner}.{label['treatment']}", None,
                "every unit has the same score: there is nothing to rank",
            )  # fmt: skip
            return cls(effects=rows, checks=[note], tables=_labelled(tables, label))
        scores = _figures(histogram, intervals, is_randomised=options.is_randomised)
        tables["ranking"] = pd.DataFrame([vars(score) for score in scores])
        tables["toc_curve"] = toc_band(histogram, intervals=intervals)
        if options.is_randomised:
            tables["qini_curve"] = qini_band(histogram, intervals=intervals)
        line, check = _calibrated(groups, learner=learner, treatment=label["treatment"])
        tables |= {"calibration": line}
        rates = [
            effect(
                estimand="rate",
                term=f"{term} | {score.name}",
                estimate=score.estimate,
                std_error=score.std_error,
                n_treated=sizes[0],
                n_control=sizes[1],
                **shared,
            )
            for score in scores
            if score.name in ("autoc", "rate_qini") and score.std_error is not None
        ]
        return cls(effects=[*rates, *rows], checks=[check], tables=_labelled(tables, label))


def _figures(
    histogram: ScoreHistogram, intervals: Intervals, *, is_randomised: bool
) -> list[Score]:
    """Every figure that the design allows: arms that were not randomised cannot be compared."""
    if is_randomised:
        found = evaluate(histogram, ks=_KS, intervals=intervals)
        return [Score(**{str(key): value for key, value in row.items()})
                for row in found.to_dict("records")]  # fmt: skip
    return [rate(histogram, weighting=w, intervals=intervals) for w in ("autoc", "qini")]


def _labelled(
    tables: Mapping[str, pd.DataFrame], label: Mapping[str, str]
) -> dict[str, pd.DataFrame]:
    out = {}
    for name, table in tables.items():
        own = table.rename(columns={"name": "figure"})
        for position, (column, value) in enumerate(label.items()):
            own.insert(position, column, value)
        out[name] = own
    return out


def _calibrated(groups: Groups, *, learner: str, treatment: str) -> tuple[pd.DataFrame, Diagnostic]:
    found = calibration_of(groups)
    passed = found.pvalue >= _ALPHA
    detail = (
        f"observed uplift by group rises by {found.slope:.2f} (standard error "
        f"{found.slope_std_error:.2f}) per unit of score, 1 if scores are right; test of scores "
        f"being right in all {found.df} groups: p = {found.pvalue:.3g}"
    )
    check = Diagnostic(
        name=f"calibration.{learner}.{treatment}",
        statistic=found.statistic,
        pvalue=found.pvalue,
        passed=passed,
        detail=detail,
    )
    return pd.DataFrame([vars(found)]), check


def _checks(model: UpliftModel, rows: HeldOut) -> list[Diagnostic]:
    options = model.spec.options
    share = options.held_out
    found = [
        _note(
            "held_out", float(sum(rows.n)),
            f"{sum(rows.n):,} units evaluate models that saw none of them: {share:.0%} of all, by "
            f"a hash of {model.spec.split.column}", passed=True,
        ),
        _note(
            "training_rows", float(sum(model.n_drawn)),
            f"learned from {sum(model.n_drawn):,} of {sum(model.n_rows):,} training units: "
            + ", ".join(f"{arm} {n:,}" for arm, n in zip(options.arms, model.n_drawn, strict=True))
            + f"; {model.n_without_outcome:,} more have no outcome",
        ),
    ]  # fmt: skip
    found += model.balance
    for name, n in rows.not_scored.items():
        found.append(_note(name, float(n), f"{n:,} held-out units are left out: {_WHY[name]}"))
    if isinstance(options.propensity, dict):
        counts: dict[Level, int] = dict(zip(map(str, options.arms), rows.n, strict=True))
        planned = rows.shares(model.spec)
        if options.cluster is None:
            found.append(srm.check(counts, shares=planned, alpha=_ALPHA))
    return found


def other_variants(n: int) -> Diagnostic:
    """How many rows of the source are of other arms than those of the spec, or of none."""
    return _note("other_variants", float(n), f"{n:,} rows of other variants are left out")


_WHY = {
    "unseen_category": "they have a level that no training row had",
    "missing_value": "a feature is missing that never was in training",
    "no_outcome": "they have no outcome",
}


def _note(
    name: str, statistic: float | None, detail: str, *, passed: bool | None = None
) -> Diagnostic:
    return Diagnostic(name=name, statistic=statistic, pvalue=None, passed=passed, detail=detail)


def _inputs_table(model: UpliftModel) -> pd.DataFrame:
    inputs = model.inputs
    return pd.DataFrame(
        {
            "feature": inputs.columns,
            "kind": ["number"] * len(inputs.numbers) + ["levels"] * len(inputs.levels),
            "n_levels": [len(inputs.levels.get(name, ())) for name in inputs.columns],
            "may_be_missing": [
                name in inputs.fills or name in inputs.may_miss for name in inputs.columns
            ],
        }
    )


def _text(level: Level | None) -> str:
    return str(int(level)) if isinstance(level, float) and level.is_integer() else str(level)


def rank_interval(rho: float, *, n: int, confidence_level: float) -> tuple[float, float]:
    """Interval of Spearman's correlation (Bonett and Wright 2000).

    Args:
        rho: The correlation.
        n: Pairs, more than three.
        confidence_level: Nominal coverage.
    """
    half = critical_value(confidence_level) * np.sqrt((1 + rho**2 / 2) / (n - 3))
    centre = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12))
    return float(np.tanh(centre - half)), float(np.tanh(centre + half))


def rank_correlations(model: UpliftModel, sample: pd.DataFrame) -> list[Diagnostic]:
    """Spearman's correlation of scores with true effects, with its interval.

    Args:
        model: The model.
        sample: Held-out units: columns of effects, and `truth_<t>`, the true effect of treatment t.
    """
    from scipy import stats

    out = []
    for learner in model.learners:
        for number, treatment in enumerate(model.treatments, start=1):
            score, truth = sample[name_of("effect", learner, number)], sample[f"truth_{number}"]
            name, n = f"truth_rank.{learner}.{treatment}", len(sample)
            if n < _MIN_RANKED or not (np.ptp(score) > 0 and np.ptp(truth) > 0):
                out.append(_note(name, None, "scores or true effects of too few units differ"))
                continue
            rho = float(stats.spearmanr(score, truth).statistic)
            low, high = rank_interval(rho, n=n, confidence_level=model.spec.confidence_level)
            detail = (
                f"rank correlation of scores with true effects of {n:,} held-out units: {rho:.3f} "
                f"[{low:.3f}, {high:.3f}]"
            )
            out.append(_note(name, rho, detail, passed=bool(low > 0)))
    return out


def sentences(spec: UpliftLearnersSpec, result: Result) -> list[str]:
    """Who benefits, in plain words."""
    out = [f"**{item.term}** on average: {_amount(item)} {item.metric} a unit."
           for item in result.effects if item.estimand == "ate"]  # fmt: skip
    out += [_segment_sentence(item) for item in result.effects
            if item.estimand == "cate" and item.estimator == AIPW]  # fmt: skip
    for learner in spec.options.learners:
        own = [item for item in result.effects if item.estimator == learner]
        for treatment in spec.options.treatments:
            term = f"{treatment} - {spec.options.control}"
            out += _ranking_sentence(
                [item for item in own if item.term.startswith(f"{term} | ")], learner, term
            )
    return out


def _segment_sentence(item: Effect) -> str:
    term, _, segment = item.term.partition(" | ")
    return f"{segment}: {term} gives {_amount(item)} {item.metric} a unit ({_verdict(item)})."


def _ranking_sentence(items: Sequence[Effect], learner: str, term: str) -> list[str]:
    groups = [item for item in items if item.estimand == "cate" and item.estimator == learner
              and " | group " in item.term]  # fmt: skip
    rates = [item for item in items if item.term.endswith("autoc")]
    if not groups:
        return []
    first, last = groups[0], groups[-1]
    text = (
        f"{learner}, {term}: the 1/{len(groups)} of units with the highest scores gain "
        f"{_amount(first)}, those with the lowest {_amount(last)}."
    )
    for item in rates:
        is_ranking = item.ci_lower > 0
        text += (
            f" Scores {'find' if is_ranking else 'do not clearly find'} those who benefit more "
            f"(AUTOC {_amount(item)}, p = {item.pvalue:.2g})."
        )
    return [text]


def _amount(item: Effect) -> str:
    return f"{item.estimate:+.3g} [{item.ci_lower:+.3g}, {item.ci_upper:+.3g}]"


def _verdict(item: Effect) -> str:
    if item.ci_lower > 0:
        return "benefits"
    return "is harmed" if item.ci_upper < 0 else "no clear effect"


def figures(spec: UpliftLearnersSpec, result: Result) -> dict[str, "Figure"]:
    """Qini and TOC curves and uplift by group, by file name without ending."""
    from causal.uplift.evaluation_figures import decile_figure, qini_figure, toc_figure

    drawn: dict[str, tuple[str, Callable[..., Figure]]] = {
        "uplift_by_group": ("groups", decile_figure),
        "qini": ("qini_curve", qini_figure),
        "toc": ("toc_curve", toc_figure),
    }
    out = {}
    for name, (table, draw) in drawn.items():
        if table not in result.tables:
            continue
        for (learner, treatment), part in result.tables[table].groupby(["learner", "treatment"]):
            own = part.reset_index(drop=True)
            out[f"{name}_{learner}_{treatment}"] = draw(own, outcome=spec.options.outcome)
    return out


def metrics(result: Result) -> dict[str, float]:
    """Figures of ranking and calibration by name."""
    out = {}
    for row in result.tables.get("ranking", pd.DataFrame()).to_dict("records"):
        name = f"{row['figure']}.{row['definition']}/{row['learner']}/{row['treatment']}"
        out[f"ranking/{name}"] = float(row["estimate"])
    for row in result.tables.get("calibration", pd.DataFrame()).to_dict("records"):
        out[f"calibration_slope/{row['learner']}/{row['treatment']}"] = float(row["slope"])
    return out
