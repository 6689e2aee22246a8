"""Purchase and spend models against the published figures of CDNOW and of the donations data."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causal.clv import bg_nbd, calibration
from causal.clv.cells import cells_of
from causal.clv.fitting import fit_spend
from causal.clv.gamma_gamma import spend_cells
from causal.clv.models import MODELS, fit_purchases

DONATIONS = {
    (0, 0): 3464, (1, 1): 1091, (1, 2): 277, (1, 3): 129, (1, 4): 78, (1, 5): 119, (1, 6): 129,
    (2, 2): 613, (2, 3): 255, (2, 4): 155, (2, 5): 173, (2, 6): 234, (3, 3): 322, (3, 4): 181,
    (3, 5): 225, (3, 6): 357, (4, 4): 240, (4, 5): 284, (4, 6): 512, (5, 5): 335, (5, 6): 728,
    (6, 6): 1203,
}  # fmt: skip
"""Donors of a 1995 cohort by (donations, year of the last) over six years, as Fader, Hardie and
Shang (2010) print them."""


@pytest.fixture(scope="module")
def cdnow() -> Path:
    """The data sets inside the package Lifetimes 0.11.3, which is not imported."""
    found = importlib.util.find_spec("lifetimes")
    if found is None or not found.submodule_search_locations:
        pytest.skip("no CDNOW data: the package Lifetimes==0.11.3 is not installed")
    return Path(next(iter(found.submodule_search_locations))) / "datasets"


@pytest.fixture(scope="module")
def histories(cdnow: Path) -> pd.DataFrame:
    frame = pd.read_csv(cdnow / "cdnow_customers_summary.csv")
    assert len(frame) == 2357
    return frame


def test_cv1_bg_nbd(histories: pd.DataFrame) -> None:
    """Fader, Hardie and Lee (2005): parameters, example and fit to frequencies."""
    cells = cells_of(histories["frequency"], histories["recency"], histories["T"])
    fit = fit_purchases("bg_nbd", cells)
    np.testing.assert_allclose(fit.parameters, [0.243, 4.414, 0.793, 2.426], atol=5e-4)
    np.testing.assert_allclose(fit.parameters, [0.242593, 4.413532, 0.792886, 2.425754], atol=2e-6)
    assert fit.log_likelihood == pytest.approx(-9582.43, abs=5e-3)
    one = cells_of([2], [30.43], [38.86])
    assert bg_nbd.conditional_purchases(fit.parameters, one, 39.0)[0] == pytest.approx(
        1.226, abs=5e-4
    )
    fits = calibration.goodness_of_fit(fit, cells)
    assert fits.statistic == pytest.approx(4.82, abs=5e-3)
    assert fits.pvalue == pytest.approx(0.19, abs=5e-3)


def test_cdnow_pareto_nbd(histories: pd.DataFrame) -> None:
    """The same paper's Pareto/NBD benchmark."""
    cells = cells_of(histories["frequency"], histories["recency"], histories["T"])
    fit = fit_purchases("pareto_nbd", cells)
    np.testing.assert_allclose(fit.parameters, [0.553, 10.578, 0.606, 11.669], atol=1.5e-3)
    assert fit.log_likelihood == pytest.approx(-9595.0, abs=0.05)
    fits = calibration.goodness_of_fit(fit, cells)
    assert fits.statistic == pytest.approx(11.99, abs=5e-3)
    assert fits.pvalue == pytest.approx(0.007, abs=5e-4)


def test_cv2_gamma_gamma(cdnow: Path) -> None:
    """Fader and Hardie (2013): 946 customers who bought again."""
    frame = pd.read_csv(cdnow / "cdnow_customers_summary_with_transactions.csv")
    repeat = frame[frame["x"] > 0]
    fit = fit_spend(spend_cells(repeat["x"], repeat["zbar"]))
    assert fit.n == 946
    np.testing.assert_allclose(fit.parameters, [6.25, 3.74, 15.44], atol=0.01)
    assert fit.log_likelihood == pytest.approx(-4055.92, abs=5e-3)


def test_bg_bb_donations() -> None:
    """Fader, Hardie and Shang (2010): the 11,104 donors of 1995."""
    history = np.array(list(DONATIONS))
    count = np.array(list(DONATIONS.values()))
    cells = cells_of(history[:, 0], history[:, 1], np.full(len(count), 6), count)
    assert cells.n == 11_104
    fit = fit_purchases("bg_bb", cells)
    np.testing.assert_allclose(fit.parameters, [1.204, 0.750, 0.657, 2.783], atol=5e-4)
    assert fit.log_likelihood == pytest.approx(-33_225.6, abs=0.05)
    # Donors with a full record are expected to give 3.75 times in the next five years.
    ahead = MODELS["bg_bb"].conditional_purchases(fit.parameters, cells_of([6], [6], [6]), 5.0)
    assert ahead[0] == pytest.approx(3.75, abs=0.01)
