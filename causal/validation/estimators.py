"""Estimators on trial: size without an effect, coverage and power with one, for every metric type.

Each simulated experiment is a frame of units that goes through the method `ab` as a whole, from its
spec to its effects, on the engine for pandas frames. No estimator is written again here.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from causal.core import plan
from causal.core.pandas_engine import PandasEngine
from causal.core.result import Result
from causal.core.spec import validate
from causal.experiments import ab
from causal.experiments.ab_options import AbSpec
from causal.validation import rates, worlds
from causal.validation.rates import Rate, Subject
from causal.validation.replication import Findings, Size, Workers, generator, spans

STUDY = "estimators"
SIZE, COVERAGE = rates.Range(lower=0.04, upper=0.06), rates.Range(lower=0.935, upper=0.965)
ALPHA = 0.05

SRM = "sample_ratio"
"""Stands in place of the metric where the rate is that of the sample-ratio check."""

_WITHOUT, _WITH = "no effect", "effect"
_PIECE = 20
_N_BINS = 20
_KEYS = ["metric", "estimator", "scale"]


@dataclass(frozen=True, kw_only=True)
class Design:
    """How the experiments of a scenario are made and read.

    Attributes:
        draw: Makes the units of one.
        world: Name of the units; designs of one world see the same experiments.
        metrics: Names of the metrics.
        options: Options of `ab` beyond the metrics.
        prefix: Estimators that this design is about begin with it; others are left out.
        suffix: Follows their names.
    """

    draw: Callable[..., pd.DataFrame]
    world: str
    metrics: tuple[str, ...]
    options: Mapping[str, Any]
    prefix: str = ""
    suffix: str = ""


_CLUSTERED = tuple(name for name in worlds.METRICS if name != "retention_censored")
_UNIT_SHARES = {worlds.CONTROL: worlds.CONTROL_SHARE, worlds.TREATMENT: 1 - worlds.CONTROL_SHARE}
_HOME_SHARES = {worlds.CONTROL: 0.5, worlds.TREATMENT: 0.5}

DESIGNS: Mapping[str, Design] = {
    "independent units": Design(
        draw=worlds.units,
        world="units",
        metrics=tuple(worlds.METRICS),
        options={"expected_shares": _UNIT_SHARES},
    ),
    "strata": Design(
        draw=worlds.units,
        world="units",
        metrics=worlds.MOMENTS,
        options={"strata": ["tier"]},
        prefix="post_stratified",
    ),
    "clusters, cr1": Design(
        draw=worlds.homes,
        world="homes",
        metrics=worlds.MOMENTS,
        options={
            "cluster": "home",
            "cluster_correction": "cr1",
            "degrees_of_freedom": "clusters_minus_one",
        },
        suffix="_cr1",
    ),
    "clusters, cr2": Design(
        draw=worlds.homes,
        world="homes",
        metrics=_CLUSTERED,
        options={
            "cluster": "home",
            "cluster_correction": "cr2",
            "expected_shares": _HOME_SHARES,
        },
        suffix="_cr2",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A piece of work: some experiments of a design.

    Attributes:
        design: Name of the design.
        metrics: Names of the metrics that are read.
        has_effect: Whether the treatment does something.
        numbers: Numbers of the experiments.
        seed: Seed of the study.
    """

    design: str
    metrics: tuple[str, ...]
    has_effect: bool
    numbers: range
    seed: int


def study(size: Size, workers: Workers) -> Findings:
    """Rejection, uniformity, coverage and power of every estimator.

    Args:
        size: How much is simulated.
        workers: Who runs it.
    """
    trials = [
        Trial(
            design=name, metrics=item.metrics, has_effect=has_effect, numbers=part, seed=size.seed
        )
        for name, item in DESIGNS.items()
        for has_effect in (False, True)
        for part in spans(0, _first(size, has_effect=has_effect), length=_PIECE)
    ]
    found = _gathered(trials, workers)
    judged = _judged(found, size)
    if size.confirmation:
        again = _gathered(list(_confirming(judged, size)), workers)
        found = {where: _confirmed(rows, again.get(where)) for where, rows in found.items()}
        judged = _judged(found, size)
    return Findings(
        rates=rates.frame([rate for _, rate in judged]),
        pvalues=_histograms(found),
    )


def _first(size: Size, *, has_effect: bool) -> int:
    """Experiments at first; coverage has a wider range, so half of them will do."""
    return size.replications // 2 if has_effect else size.replications


_Where = tuple[str, bool]
"""Design, and whether there is an effect."""


def run_trial(trial: Trial) -> pd.DataFrame:
    """The effects found in some experiments.

    Returns:
        One row per experiment, metric, estimator and scale: these (the sample-ratio check with
        its metric `sample_ratio`), `pvalue`, `is_covered`.
    """
    design = DESIGNS[trial.design]
    spec = spec_of(trial.design, trial.metrics)
    truths = worlds.truths() if trial.has_effect else {}
    rows: list[tuple[object, ...]] = []
    for number in trial.numbers:
        rng = generator(trial.seed, STUDY, design.world, int(trial.has_effect), number)
        frame = design.draw(rng, has_effect=trial.has_effect)
        rows += _read(plan.run(ab.estimate(spec), PandasEngine(frame)), design, truths)
    return pd.DataFrame(rows, columns=[*_KEYS, "pvalue", "is_covered"])


def spec_of(design: str, metrics: Sequence[str]) -> AbSpec:
    """The spec by which the experiments of a design are read."""
    return _spec_of(design, tuple(metrics))


@functools.cache
def _spec_of(design: str, metrics: tuple[str, ...]) -> AbSpec:
    declared = [{"name": name, **worlds.METRICS[name]} for name in metrics]
    options = {
        "unit": "unit", "variant": "variant", "control": worlds.CONTROL, "metrics": declared,
        **DESIGNS[design].options,
    }  # fmt: skip
    data = {"name": "trial", "source": {"table": "units"}, "method": "ab", "options": options}
    return validate(ab.SPEC, data)


def _read(
    result: Result, design: Design, truths: Mapping[str, worlds.Truth]
) -> Iterator[tuple[object, ...]]:
    for effect in result.effects:
        if effect.estimator.startswith(design.prefix):
            truth = truths[effect.metric].on(effect.scale) if truths else 0.0
            is_covered = effect.ci_lower <= truth <= effect.ci_upper
            name = f"{effect.estimator}{design.suffix}"
            yield effect.metric, name, effect.scale, effect.pvalue, is_covered
    for check in result.diagnostics:
        if check.name == SRM:
            kind = "clustered" if "cluster" in design.options else "pearson"
            yield SRM, kind, "absolute", check.pvalue, False


def _gathered(trials: Sequence[Trial], workers: Workers) -> dict[_Where, pd.DataFrame]:
    parts: dict[_Where, list[pd.DataFrame]] = {}
    for trial, rows in zip(trials, workers(run_trial, trials), strict=True):
        parts.setdefault((trial.design, trial.has_effect), []).append(rows)
    return {where: pd.concat(rows, ignore_index=True) for where, rows in parts.items()}


def _confirmed(first: pd.DataFrame, again: pd.DataFrame | None) -> pd.DataFrame:
    """The first experiments, and of metrics that were simulated again only the new ones.

    New experiments have a sample-ratio check of their own, which takes the place of the first.
    """
    if again is None:
        return first
    order = {metric: place for place, metric in enumerate(first["metric"].unique())}
    kept = first[~first["metric"].isin(again["metric"])]
    together = pd.concat([kept, again], ignore_index=True)
    return together.sort_values("metric", key=lambda names: names.map(order), kind="stable")


def _confirming(judged: Sequence[tuple[_Where, Rate]], size: Size) -> Iterator[Trial]:
    """New experiments for the metrics of which a promise is open."""
    metrics: dict[_Where, set[str]] = {}
    for where, rate in judged:
        if rate.is_open and rate.metric_type != SRM:
            metrics.setdefault(where, set()).add(rate.metric_type)
    for (design, has_effect), names in metrics.items():
        first = _first(size, has_effect=has_effect)
        for part in spans(first, first + size.confirmation * size.replications, length=_PIECE):
            yield Trial(
                design=design, metrics=tuple(sorted(names)), has_effect=has_effect, numbers=part,
                seed=size.seed,
            )  # fmt: skip


def _judged(found: Mapping[_Where, pd.DataFrame], size: Size) -> list[tuple[_Where, Rate]]:
    groups = [
        (where, cast(tuple[str, str, str], key), rows)
        for where, table in found.items()
        for key, rows in table.groupby(_KEYS, sort=False)
    ]
    n_tests = sum(
        not where[1] and key[0] != SRM and key[2] == "absolute" for where, key, _ in groups
    )
    return [
        (where, rate)
        for where, key, rows in groups
        for rate in _rates_of(where, key, rows, size=size, n_tests=n_tests)
    ]


def _rates_of(
    where: _Where, key: tuple[str, str, str], rows: pd.DataFrame, *, size: Size, n_tests: int
) -> Iterator[Rate]:
    (design, has_effect), (metric, estimator, scale) = where, key
    scenario = f"{design}, {_WITH if has_effect else _WITHOUT}, {scale}"
    subject = Subject(
        study=STUDY, metric_type=metric, estimator=estimator, scenario=scenario, seed=size.seed
    )
    pvalues = rows["pvalue"].to_numpy(dtype=np.float64)
    rejected = pvalues < ALPHA
    if not has_effect:
        yield rates.share(subject, rates.REJECTION, rejected, promised=SIZE)
        # Counts of units are whole numbers, so their p-values cannot be uniform.
        if scale == "absolute" and metric != SRM:
            yield rates.uniformity(subject, pvalues, n_tests=n_tests, n_promised=size.replications)
    elif metric != SRM:
        covered = rows["is_covered"].to_numpy(dtype=bool)
        yield rates.share(subject, rates.COVERAGE, covered, promised=COVERAGE)
        yield rates.share(subject, rates.POWER, rejected)


def _histograms(found: Mapping[_Where, pd.DataFrame]) -> pd.DataFrame:
    """Counts of the p-values of true null hypotheses by bin."""
    edges = np.linspace(0, 1, _N_BINS + 1)
    tables = []
    for (_, has_effect), table in found.items():
        kept = table[table["scale"] == "absolute"] if not has_effect else table.iloc[:0]
        for (metric, estimator), rows in kept.groupby(["metric", "estimator"], sort=False):
            counts, _ = np.histogram(rows["pvalue"], edges)
            bins = {"metric_type": metric, "estimator": estimator, "lower": edges[:-1]}
            tables.append(pd.DataFrame({**bins, "count": counts}))
    return pd.concat(tables, ignore_index=True)
