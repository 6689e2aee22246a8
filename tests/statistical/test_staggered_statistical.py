"""Coverage of the intervals and bands of `staggered` over many small worlds with known effects.

Cohorts are drawn at random, so that their shares are random too; effects differ by cohort and grow
with time, which makes two-way fixed effects a biased average. Errors are serially correlated.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.core.gram import PanelGram
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import validate
from causal.quasi import did, staggered
from causal.quasi.group_time import comparisons, effects
from causal.quasi.group_time_averages import Effects, Shares, average
from causal.quasi.group_time_inference import infer, pre_trend
from causal.quasi.staggered_options import StaggeredOptions
from causal.quasi.staggered_panel import design

pytestmark = pytest.mark.slow

LEVEL = 0.95
PERIODS = np.arange(1.0, 7.0)
STARTS = np.array([3.0, 4.0, 6.0, np.nan])
SHARES = np.array([0.2, 0.25, 0.2, 0.35])
COLUMNS = {"unit": "id", "period": "t", "outcome": "y", "first_treated_period": "first"}
ENDS = ("simple", "group", "dynamic", "calendar")


def effect_of(start: float, period: float) -> float:
    """Early cohorts gain more, and more with time."""
    return (1.0 + 0.6 * (period - start)) * (7.0 - start) / 3.0 if period >= start else 0.0


EFFECT = np.array([[0.0 if np.isnan(g) else effect_of(g, t) for t in PERIODS] for g in STARTS])


def truths() -> dict[str, float]:
    """ATT(g,t) and their averages in the population from which the worlds are drawn."""
    cells = {
        (g, t): EFFECT[c, j]
        for c, g in enumerate(STARTS[:-1])
        for j, t in enumerate(PERIODS)
        if j > 0
    }
    share = dict(zip(STARTS, SHARES, strict=True))

    def weighted(keys: list[tuple[float, float]]) -> float:
        weights = np.array([share[g] for g, _ in keys])
        return float(weights @ [cells[key] for key in keys] / weights.sum())

    out = {f"att({g:g},{t:g})": value for (g, t), value in cells.items()}
    post = [key for key in cells if key[1] >= key[0]]
    times = sorted({t - g for g, t in cells})
    study = {e: weighted([k for k in cells if k[1] - k[0] == e]) for e in times}
    out |= {f"event_time={e:g}": value for e, value in study.items()}
    by_cohort = {g: np.mean([cells[k] for k in post if k[0] == g]) for g in STARTS[:-1]}
    by_period = [weighted([k for k in post if k[1] == t]) for t in sorted({t for _, t in post})]
    out["simple"] = weighted(post)
    out["dynamic"] = float(np.mean([value for e, value in study.items() if e >= 0]))
    out["group"] = float(SHARES[:-1] @ list(by_cohort.values()) / SHARES[:-1].sum())
    out["calendar"] = float(np.mean(by_period))
    return out


def outcomes(rng: np.random.Generator, cohort: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Paths of units, shape (n, T): own serially correlated noise and shocks of their region."""
    n, n_periods = len(cohort), len(PERIODS)
    own = rng.normal(size=(n, n_periods))
    own[:, 1:] += 0.5 * own[:, :-1]
    shocks = rng.normal(size=(region.max() + 1, n_periods)) if len(set(region)) < n else None
    y = rng.normal(size=(n, 1)) + 0.3 * PERIODS + own + EFFECT[cohort]
    return y if shocks is None else y + 0.7 * shocks[region]


def moments(y: np.ndarray, cohort: np.ndarray, region: np.ndarray | None) -> list[PanelGram]:
    """What the engine would answer, for whole regions or for independent units.

    By region the mean paths say all: cross-products within regions are not asked for.
    """
    if region is None:
        parts = [y[cohort == c] for c in range(len(STARTS))]
        crosses = [(part - part.mean(axis=0)).T @ (part - part.mean(axis=0)) for part in parts]
        starts, labels = STARTS, [()] * len(STARTS)
        sizes, means = [len(part) for part in parts], [part.mean(axis=0) for part in parts]
    else:
        first = np.flatnonzero(np.diff(region, prepend=-1))
        sizes = np.diff([*first, len(y)]).tolist()
        means = np.add.reduceat(y, first) / np.array(sizes)[:, None]
        crosses = [np.zeros((len(PERIODS), len(PERIODS)))] * len(first)
        starts, labels = STARTS[cohort[first]], [(int(key),) for key in region[first]]
    return [
        PanelGram(None if np.isnan(g) else float(g), label, PERIODS, n, 0, 0, mean, cross)
        for g, label, n, mean, cross in zip(starts, labels, sizes, means, crosses, strict=True)
    ]


def hits(
    found: list[PanelGram], options: StaggeredOptions, rng: np.random.Generator
) -> Iterator[tuple[str, bool]]:
    """Whether each interval and each band holds the truth."""
    known = truths()
    made = design(found, options)
    cells, _ = comparisons(made, options)
    base = Effects(
        cells=cells,
        estimates=effects(made, cells),
        periods=PERIODS,
        shares=Shares.of_units(made.moments.counts),
    )
    sets = {"group_time": ([f"att({c.start:g},{c.period:g})" for c in cells], base.estimates)}
    study = average(base, "dynamic", options)
    sets["event_study"] = ([f"event_time={e:g}" for e in study.labels], study.parts)
    for kind in ENDS:
        sets[kind] = ([kind], average(base, kind, options).overall)
    for name, (terms, estimates) in sets.items():
        result = infer(estimates, made.moments, options, confidence_level=LEVEL, rng=rng, scale=1.0)
        off = np.abs(result.values - [known[term] for term in terms]) / result.std_errors
        yield from ((term, bool(t <= result.pointwise)) for term, t in zip(terms, off, strict=True))
        if len(terms) > 1:
            yield f"band of {name}", bool(off.max() <= result.simultaneous)
        if name == "group_time":
            check = pre_trend(
                cells, result, anticipation=0, n_independent=made.moments.n_independent, alpha=0.05
            )
            yield "pre_trend", bool(check.passed)


def simulate(
    seed: int, n_worlds: int, world: Callable[[np.random.Generator], Iterator[tuple[str, bool]]]
) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    rows = [dict(world(rng)) for _ in range(n_worlds)]
    return pd.DataFrame(rows).astype(float).mean().to_dict()


def independent_units(rng: np.random.Generator) -> Iterator[tuple[str, bool]]:
    n = 600
    cohort = rng.choice(len(STARTS), n, p=SHARES)
    y = outcomes(rng, cohort, np.arange(n))
    return hits(moments(y, cohort, None), options(), rng)


def regions(rng: np.random.Generator) -> Iterator[tuple[str, bool]]:
    """Whole regions of unequal sizes start together and share shocks."""
    n_regions = 300
    sizes = rng.integers(2, 7, n_regions)
    region = np.repeat(np.arange(n_regions), sizes)
    cohort = rng.choice(len(STARTS), n_regions, p=SHARES)[region]
    y = outcomes(rng, cohort, region)
    asked = options(cluster="region", small_sample="clusters")
    return hits(moments(y, cohort, region), asked, rng)


def options(**more: object) -> StaggeredOptions:
    base = {"control_group": "not_yet_treated", "n_draws": 2000}
    return StaggeredOptions.model_validate({**COLUMNS, **base, **more})


def check_coverage(shares: Mapping[str, float], n_worlds: int, *, certainty: float) -> None:
    """Each share within what 95 % coverage gives; the mean over estimates much closer."""
    low, high = stats.binom.interval(certainty, n_worlds, LEVEL)
    for term, share in shares.items():
        assert low / n_worlds - 0.01 <= share <= high / n_worlds, (term, share)
    intervals = [share for term, share in shares.items() if "band" not in term]
    assert 0.935 <= np.mean(intervals) <= 0.965
    assert {"band of event_study", "band of group_time", "pre_trend", *ENDS} <= set(shares)
    assert len(intervals) > 25


@pytest.mark.parametrize("world", [independent_units, regions])
def test_intervals_bands_and_the_pre_trend_test_hold_their_level(
    world: Callable[[np.random.Generator], Iterator[tuple[str, bool]]],
) -> None:
    check_coverage(simulate(11, 500, world), 500, certainty=0.9999)


@pytest.mark.validation
@pytest.mark.parametrize("world", [independent_units, regions])
def test_coverage_in_the_long_run(
    world: Callable[[np.random.Generator], Iterator[tuple[str, bool]]],
) -> None:
    check_coverage(simulate(12, 5000, world), 5000, certainty=0.9999)


def test_errors_that_ignore_regions_are_too_small() -> None:
    """The same worlds read as independent units: the clustered errors are not for nothing."""

    def wrong(rng: np.random.Generator) -> Iterator[tuple[str, bool]]:
        region = np.repeat(np.arange(60), 10)
        cohort = rng.choice(len(STARTS), 60, p=SHARES)[region]
        return hits(moments(outcomes(rng, cohort, region), cohort, None), options(), rng)

    assert simulate(13, 100, wrong)["simple"] < 0.85


def test_two_way_fixed_effects_are_biased_where_group_time_effects_are_not() -> None:
    rng = np.random.default_rng(14)
    n = 4000
    cohort = rng.choice(len(STARTS), n, p=SHARES)
    frame = pd.DataFrame(
        {
            "id": np.repeat(np.arange(n), len(PERIODS)),
            "t": np.tile(PERIODS, n),
            "first": np.repeat(STARTS[cohort], len(PERIODS)),
            "y": outcomes(rng, cohort, np.arange(n)).ravel(),
        }
    )
    data = {"name": "world", "source": {"table": "t"}}
    asked = {**data, "method": "staggered", "options": COLUMNS}
    plan = staggered.estimate(validate(staggered.SPEC, asked))
    right = run(plan, PandasEngine(frame)).effects[0]
    asked = {**data, "method": "did", "options": {**COLUMNS, "estimator": "twfe"}}
    wrong = run(did.estimate(validate(did.SPEC, asked)), PandasEngine(frame)).effects[0]
    truth = truths()["simple"]

    assert right.term == "simple"
    assert abs(right.estimate - truth) < 3 * right.std_error
    assert wrong.estimate < truth - 5 * wrong.std_error
