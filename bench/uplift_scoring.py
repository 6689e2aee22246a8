"""Scoring a table by learners of uplift and ranking its units, beside the bare predictions."""

from typing import Any

import numpy as np
import pandas as pd

from bench import data
from bench.harness import Bench, Question, Sides, compare
from causal.core import plan
from causal.core.spec import validate
from causal.uplift import evaluation, learners_options
from causal.uplift.learned_model import UpliftModel, learned, name_of
from causal.uplift.score_histogram import HistogramOptions, ScoreHistogram, count, histogram_of
from transforms.gram import SparkEngine
from transforms.uplift_frames import evaluated

LEARNER = "t"
FEATURES = tuple(f"f{number}" for number in range(data.N_FEATURES))
SCORE, BIN = (name_of(what, LEARNER, 1) for what in ("effect", "bin"))
_POINT = evaluation.Intervals(resampling=None)
_TOLERANCE = 1e-9


def model_of(rows: pd.DataFrame) -> UpliftModel:
    """A T-learner of 100 LightGBM trees an arm, and the outcome models of its evaluation."""
    spec = validate(
        learners_options.SPEC,
        {
            "name": "campaign", "source": {"table": "campaign"}, "method": "uplift_learners",
            "options": {
                "unit": "unit_id", "outcome": "converted", "variant": "variant",
                "control": "control", "treatments": ["treatment"], "features": list(FEATURES),
                "learners": [LEARNER], "base": "lightgbm", "bins": 100,
            },
        },
    )  # fmt: skip
    arms = [rows[rows["variant"] == arm] for arm in spec.options.arms]
    return learned(spec, arms, n_rows=[len(part) for part in arms])


def prepare(bench: Bench) -> Sides:
    """Question: from Parquet to the Qini coefficient, beside the predictions of rows in memory."""
    n_units = bench.size(1_000_000, small=20_000)
    files = data.campaign(bench.data, n_units=n_units)
    rows = pd.read_parquet(files)
    model = model_of(rows.head(bench.size(200_000, small=4_000)))
    matrix = rows[list(FEATURES)].to_numpy(dtype=np.float64)
    frame = bench.session().read.parquet(str(files))
    options = HistogramOptions(
        score=SCORE, score_bin=BIN, outcome="converted", variant="variant",
        treatment="treatment", control="control",
    )  # fmt: skip

    def ours() -> tuple[ScoreHistogram, float]:
        scored = frame.transform(evaluated(model)).select("variant", "converted", SCORE, BIN)
        # What the model knows spares the engine a look, so nothing need be kept.
        plan_ = count(options, near=model.near(LEARNER, 1)[:2])
        histogram = plan.run(plan_, SparkEngine(scored)).histogram
        return histogram, evaluation.qini(histogram, intervals=_POINT).estimate

    def peer() -> np.ndarray:
        effects = model.learners[LEARNER].effects(matrix)
        model.arms.outcomes_of(matrix)
        return effects[:, 0]

    def check(found: tuple[ScoreHistogram, float], scores: np.ndarray) -> None:
        """The histogram and the coefficient are those of the bare predictions in the same bins."""
        expected = histogram_of(
            score=np.searchsorted(model.edges[LEARNER][0], scores, side="left"),
            treated=rows["variant"] == "treatment",
            outcome=rows["converted"],
        )
        np.testing.assert_array_equal(found[0].n, expected.n)
        qini = evaluation.qini(expected, intervals=_POINT).estimate
        np.testing.assert_allclose(found[1], qini, rtol=_TOLERANCE)

    notes: dict[str, Any] = {"rows": n_units, "features": len(FEATURES), "bins": 100}
    return Sides(ours=ours, peer=peer, check=check, rows=n_units, notes=notes)


QUESTIONS = (
    Question(
        name="uplift_scoring",
        work="uplift scores, outcome models and Qini of 1 M rows",
        peer="the bare predictions of the same LightGBM models, data in memory",
        target=1.3,
        measure=compare(prepare),
    ),
)
