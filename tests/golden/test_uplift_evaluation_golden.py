"""Uplift figures of Hillstrom's e-mail experiment, as scikit-uplift and causalml compute them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from causal.uplift.evaluation import Intervals, auuc, qini, qini_area, uplift_at
from causal.uplift.score_histogram import ScoreHistogram, histogram_of

ESTIMATES = Intervals(resampling=None)


@pytest.fixture(scope="module")
def hillstrom(validation_data: Path) -> ScoreHistogram:
    """Visits under the women's e-mail, scored by two least-squares models (T-learner)."""
    rows = pd.read_csv(validation_data / "hillstrom.csv")
    rows = rows[rows["segment"].isin(["Womens E-Mail", "No E-Mail"])]
    treated = (rows["segment"] == "Womens E-Mail").to_numpy()
    design = pd.DataFrame({
        "constant": 1.0, "recency": rows["recency"], "history": rows["history"],
        "mens": rows["mens"], "womens": rows["womens"], "newbie": rows["newbie"],
        "urban": rows["zip_code"] == "Urban", "suburban": rows["zip_code"] == "Surburban",
        "web": rows["channel"] == "Web", "multichannel": rows["channel"] == "Multichannel",
    }).astype(float)  # fmt: skip
    visit = rows["visit"].astype(float)
    models = [sm.OLS(visit[arm], design[arm]).fit() for arm in (treated, ~treated)]
    score = design.to_numpy() @ (models[0].params - models[1].params).to_numpy()
    assert len(rows) == 42_693
    assert score.mean() == pytest.approx(0.0454096330, abs=1e-9)
    assert score.std() == pytest.approx(0.0324184419, abs=1e-9)
    # Scores of equal customers differ in the last digits; libraries see them as distinct.
    return histogram_of(score=score, treated=treated, outcome=visit)


def test_up1_qini_of_scikit_uplift(hillstrom: ScoreHistogram) -> None:
    assert qini_area(hillstrom, intervals=ESTIMATES).estimate == pytest.approx(8_005_121.55, abs=2)
    assert qini(hillstrom, intervals=ESTIMATES).estimate == pytest.approx(0.07292036897, abs=2e-6)


def test_up1_auuc_and_qini_of_causalml(hillstrom: ScoreHistogram) -> None:
    """The tolerance is that of the order in which ties are read."""
    found = auuc(hillstrom, definition="causalml", intervals=ESTIMATES).estimate
    assert found == pytest.approx(0.6931891651, abs=2e-4)
    found = qini(hillstrom, definition="causalml", intervals=ESTIMATES).estimate
    assert found == pytest.approx(0.1938128, abs=2e-4)


def test_up1_uplift_at_30_per_cent(hillstrom: ScoreHistogram) -> None:
    found = uplift_at(hillstrom, k=0.3, intervals=ESTIMATES).estimate
    assert found == pytest.approx(0.0816764, abs=5e-7)


def test_up2_two_units() -> None:
    """The fixtures of scikit-uplift's own tests."""
    units = histogram_of(score=[0.1, 0.3], treated=[1, 0], outcome=[0, 1])
    assert qini(units, intervals=ESTIMATES).estimate == pytest.approx(1, abs=1e-9)
    assert auuc(units, intervals=ESTIMATES).estimate == pytest.approx(0, abs=1e-9)
    assert np.isfinite(qini(units, negative_effect=True, intervals=ESTIMATES).estimate)
