"""Over many worlds the suite's own analyses are unbiased and their intervals cover the truth."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from jobs.analyze import run_all
from jobs.runtime import analyses, truths
from jobs.runtime.cli import main
from jobs.runtime.context import Context
from jobs.runtime.progress import Progress
from jobs.runtime.settings import load_settings
from jobs.runtime.truths import Comparison

SEEDS = range(1, 21)
PREPARATION = ("generate", "exposure", "cohorts", "covariates", "choices", "panels", "regions")
NAIVE = "ad_free_choice_naive"
_SIZE = 5_000


@pytest.mark.validation
@pytest.mark.timeout(7200)
@pytest.mark.usefixtures("spark")
def test_intervals_cover_the_truth_of_many_worlds(tmp_path: Path) -> None:
    rows = pd.concat([_scores(_comparisons(tmp_path / f"{seed}", seed=seed)) for seed in SEEDS])
    rows.to_csv(tmp_path / "scores.csv", index=False)
    is_naive = rows["analysis"] == NAIVE
    assert not rows.loc[is_naive, "is_covered"].any()
    rows = rows[~is_naive]
    # Metrics of a trial share their units, scales and estimators share their numbers: what
    # varies freely is the trial, so the band is that of some 180 of them.
    assert 0.90 < rows["is_covered"].mean() < 0.99
    one_scale = rows[rows["scale"] == "absolute"]
    groups = one_scale.groupby(["analysis", "metric", "term", "estimator"])["z"]
    assert len(groups) > 40
    means = groups.mean() * len(SEEDS) ** 0.5
    assert means.abs().max() < 4.5, means.sort_values()
    assert 0.7 < groups.apply(lambda z: (z**2).mean()).mean() < 1.4


def _comparisons(warehouse: Path, *, seed: int) -> Sequence[Comparison]:
    """The suite's analyses on a world of their own, beside its truth."""
    given = ["--size", str(_SIZE), "--seed", str(seed), "--warehouse", str(warehouse)]
    assert main(["pipeline", *given, "--only", *PREPARATION]) == 0
    context = Context(settings=load_settings(warehouse=str(warehouse)), progress=Progress())
    readouts = run_all(context, analyses.default_specs())
    return truths.compare(readouts, truths.read_truths(context.lakehouse))


def _scores(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "analysis": item.analysis,
                "metric": item.effect.metric,
                "term": item.effect.term,
                "scale": item.effect.scale,
                "estimator": item.effect.estimator,
                "is_covered": item.is_covered,
                "z": (item.effect.estimate - item.truth) / item.effect.std_error,
            }
            for item in comparisons
        ]
    )
