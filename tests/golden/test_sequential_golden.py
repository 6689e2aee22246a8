"""Sequential tests against published figures.

SQ1 to SQ3 of the public validation cases (Lan-DeMets spending as gsDesign and rpact give it, the
classic O'Brien-Fleming test of gsDesign's and of rpact's test suites); designs, their
characteristics, repeated and final p-values from the unit tests of rpact (the files
`test-f_design_group_sequential` and `test-f_analysis_base_means`); constants and inflation factors
from the tables of Jennison and Turnbull (2000), chapter 2.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from causal.experiments.crossing import START, above, advance
from causal.experiments.group_sequential import (
    WangTsiatis,
    boundaries,
    classic_boundaries,
    planned_error,
    stopping,
)
from causal.experiments.sequential import evaluate
from causal.experiments.sequential_design import (
    Futility,
    design,
    expected_fraction,
    fixed_drift,
)
from causal.experiments.sequential_looks import Look
from causal.experiments.sequential_options import SequentialOptions
from causal.experiments.spending import Spending

RPACT = 5e-8
"""rpact's figures are printed to eight digits."""

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def targets(validation_data: Path) -> pd.DataFrame:
    file = validation_data.parent / "targets.csv"
    if not file.is_file():
        pytest.skip(f"no public targets: {file} does not exist")
    return pd.read_csv(file)


def assert_reached(found: Array, targets: pd.DataFrame, *, case: str, figure: str) -> None:
    """Every figure of a case in the file's order, at the file's tolerances."""
    rows = targets[targets["case"].str.startswith(case) & (targets["figure"] == figure)]
    assert len(rows) == len(found) > 0
    assert (np.abs(found - rows["target"]) <= rows["abs_tolerance"]).all()


def equal_looks(n_looks: int) -> Array:
    return np.arange(1, n_looks + 1) / n_looks


def hsd(gamma: float) -> Spending:
    return Spending(family="hwang_shih_decani", parameter=gamma)


def kim_demets(rho: float) -> Spending:
    return Spending(family="power", parameter=rho)


def test_sq1_lan_demets_obrien_fleming(targets: pd.DataFrame) -> None:
    error = planned_error(Spending(), equal_looks(5), alpha=0.025, is_two_sided=True)
    limits = boundaries(equal_looks(5), error, is_two_sided=True)
    assert_reached(limits.efficacy, targets, case="SQ1", figure="z")
    assert_reached(error, targets, case="SQ1", figure="cum alpha per side")


def test_sq1_by_evaluating_looks(targets: pd.DataFrame) -> None:
    looks = [Look(name=str(k), estimate=0.0, std_error=(20.0 * k) ** -0.5) for k in range(1, 6)]
    options = SequentialOptions(method="spending", alpha=0.05, maximum_information=100.0)
    frame = evaluate(looks, options).to_frame()
    upper, lower = frame["efficacy_upper"].to_numpy(), frame["efficacy_lower"].to_numpy()
    assert_reached(upper, targets, case="SQ1", figure="z")
    assert_reached(-lower, targets, case="SQ1", figure="z")
    spent = frame["alpha_spent"].to_numpy() / 2
    assert_reached(spent, targets, case="SQ1", figure="cum alpha per side")


def test_sq2_classic_obrien_fleming(targets: pd.DataFrame) -> None:
    limits = classic_boundaries(equal_looks(4), delta=0.0, alpha=0.025, is_two_sided=True)
    assert_reached(limits.efficacy, targets, case="SQ2", figure="z")
    assert limits.efficacy == pytest.approx([4.0486, 2.8628, 2.3375, 2.0243], abs=5e-5)


def test_sq3_one_sided_obrien_fleming(targets: pd.DataFrame) -> None:
    limits = classic_boundaries(equal_looks(3), delta=0.0, alpha=0.025, is_two_sided=False)
    assert_reached(limits.efficacy, targets, case="SQ3", figure="z")
    spent = np.cumsum(stopping(limits, drift=0.0).upper)
    assert spent == pytest.approx([0.00025917372, 0.0071600594, 0.025], abs=RPACT)


@pytest.mark.parametrize(
    ("n_looks", "pocock", "obrien_fleming"),
    [
        (2, 2.178, 1.977),
        (3, 2.289, 2.004),
        (4, 2.361, 2.024),
        (5, 2.413, 2.040),
        (10, 2.555, 2.087),
        (20, 2.672, 2.126),
    ],
)
def test_constants_of_jennison_and_turnbull(
    n_looks: int, pocock: float, obrien_fleming: float
) -> None:
    """Tables 2.1 and 2.3: two-sided, alpha 0.05."""
    for delta, constant in ((0.5, pocock), (0.0, obrien_fleming)):
        limits = classic_boundaries(
            equal_looks(n_looks), delta=delta, alpha=0.025, is_two_sided=True
        )
        assert limits.efficacy[-1] == pytest.approx(constant, abs=5.1e-4)


@pytest.mark.parametrize(
    ("delta", "power", "factor"),
    [(0.5, 0.9, 1.207), (0.5, 0.8, 1.229), (0.0, 0.9, 1.026), (0.0, 0.8, 1.028)],
)
def test_inflation_factors_of_jennison_and_turnbull(
    delta: float, power: float, factor: float
) -> None:
    """Tables 2.2 and 2.4: five looks, two-sided, alpha 0.05."""
    found = design(
        equal_looks(5),
        rule=WangTsiatis(delta=delta),
        alpha=0.025,
        is_two_sided=True,
        power=power,
    )
    assert found.inflation_factor == pytest.approx(factor, abs=1e-3)


def test_probabilities_of_rpact() -> None:
    """`getGroupSequentialProbabilities` with one and with two continuation intervals."""
    at, limit = equal_looks(4), stats.norm.isf(0.05)
    for inner, lower, reached in (
        (0.0, [0.05, 0.030074925, 0.020961248, 0.01595848], [1.0, 0.9, 0.83985015, 0.79792765]),
        (
            1.0,
            [0.05, 0.016446517, 0.005264288, 0.0019569508],
            [1.0, 0.21731051, 0.065008074, 0.024429419],
        ),
    ):
        go_on = ((-limit, -inner), (inner, limit)) if inner else ((-limit, limit),)
        running = START
        for look, fraction in enumerate(at):
            assert running.probability == pytest.approx(reached[look], abs=RPACT)
            tail = float(above(running, limit, fraction=fraction, drift=0.0))
            assert tail == pytest.approx(lower[look], abs=RPACT)
            if look < 3:
                running = advance(
                    running, go_on, fraction=fraction, next_fraction=at[look + 1], drift=0.0
                )


def test_unequal_looks_of_rpact() -> None:
    limits = classic_boundaries([0.2, 0.5, 1.0], delta=0.3, alpha=0.025, is_two_sided=False)
    assert limits.efficacy == pytest.approx([2.8688923, 2.3885055, 2.0793148], abs=RPACT)


CHARACTERISTICS = [
    pytest.param(
        {"fractions": [0.2, 0.4, 1], "rule": hsd(0), "alpha": 0.03, "power": 0.86},
        None,
        [2.5121443, 2.4228747, 2.0280392],
        [],
        (9.4594101, 1.0788327, 0.83081135, 1.0142116, 1.0697705),
        id="linear spending",
    ),
    pytest.param(
        {"fractions": [0.2, 0.4, 1], "rule": hsd(-1), "alpha": 0.07, "power": 0.86},
        Futility(spending=hsd(-2), power=0.86),
        [2.364813, 2.1928805, 1.5660474],
        [-1.1063623, -0.35992439],
        (7.1015942, 1.0869177, 0.82636428, 0.916142, 0.79471657),
        id="Hwang-Shih-DeCani",
    ),
    pytest.param(
        {"fractions": [0.3, 0.7, 1], "rule": kim_demets(2.2), "alpha": 0.03, "power": 0.66},
        Futility(spending=kim_demets(3.2), power=0.66),
        [2.8594012, 2.2435708, 1.9735737],
        [-1.1558435, 0.72836893],
        (5.551371, 1.0555891, 0.86740735, 0.87361707, 0.75480974),
        id="Kim-DeMets",
    ),
]


@pytest.mark.parametrize(("plan", "futility", "efficacy", "idle", "figures"), CHARACTERISTICS)
def test_one_sided_designs_of_rpact(
    *,
    plan: dict[str, object],
    futility: Futility | None,
    efficacy: list[float],
    idle: list[float],
    figures: tuple[float, ...],
) -> None:
    """Boundaries, squared drift, inflation, expected information at full, half and no effect."""
    found = design(is_two_sided=False, futility=futility, **plan)  # type: ignore[arg-type]
    fractions = found.limits.fractions
    half = stopping(found.limits, drift=found.drift / 2, heeds_futility=futility is not None)
    characteristics = (
        found.drift**2,
        found.inflation_factor,
        found.expected_information(found.under_alternative),
        found.inflation_factor * expected_fraction(fractions, half),
        found.expected_information(found.under_null),
    )
    assert found.limits.efficacy == pytest.approx(efficacy, abs=1e-7)
    if idle:
        assert found.limits.futility is not None
        assert found.limits.futility[:-1] == pytest.approx(idle, abs=1e-7)
        assert found.limits.futility[-1] == pytest.approx(efficacy[-1], abs=1e-7)
    assert characteristics == pytest.approx(figures, abs=1e-7)
    assert found.drift**2 / found.inflation_factor == pytest.approx(
        fixed_drift(alpha=found.alpha, power=found.power) ** 2, rel=1e-12
    )


@pytest.mark.parametrize(
    ("family", "is_binding", "efficacy", "idle"),
    [
        ("obrien_fleming", True, [2.8874465, 2.1853011, 1.6575593], [-0.46043472, 0.64445014]),
        ("pocock", False, [1.9405431, 2.0327662, 1.9734104], [0.5448398, 1.0899149]),
    ],
)
def test_beta_spending_of_rpact(
    *, family: str, is_binding: bool, efficacy: list[float], idle: list[float]
) -> None:
    spending = Spending.model_validate({"family": family})
    found = design(
        [0.4, 0.65, 1],
        rule=spending,
        alpha=0.05,
        is_two_sided=False,
        power=0.9,
        futility=Futility(spending=spending, power=0.9, is_binding=is_binding),
    )
    assert found.limits.efficacy == pytest.approx(efficacy, abs=1e-7)
    assert found.limits.futility is not None
    assert found.limits.futility[:-1] == pytest.approx(idle, abs=1e-7)


@pytest.mark.parametrize(
    ("plan", "gamma", "efficacy", "idle"),
    [
        (
            {"fractions": [0.4, 0.65, 1], "rule": Spending(), "alpha": 0.025, "power": 0.8},
            1.5,
            [3.3568694, 2.5549656, 1.9350784],
            [0.32391511, 0.91946811],
        ),
        (
            {
                "fractions": [0.4, 0.65, 0.8, 1],
                "rule": kim_demets(2.5),
                "alpha": 0.025,
                "power": 0.9,
            },
            1.5,
            [2.8032117, 2.4453423, 2.2956849, 1.9878913],
            [0.3085062, 0.97461473, 1.3896954],
        ),
    ],
)
def test_two_sided_beta_spending_of_rpact(
    *, plan: dict[str, object], gamma: float, efficacy: list[float], idle: list[float]
) -> None:
    """Binding inner wedges. rpact counts rejections of either sign as power, here only upwards."""
    futility = Futility(spending=kim_demets(gamma), power=plan["power"], is_binding=True)  # type: ignore[arg-type]
    found = design(is_two_sided=True, futility=futility, **plan)  # type: ignore[arg-type]
    assert found.limits.efficacy == pytest.approx(efficacy, abs=2e-6)
    assert found.limits.futility is not None
    assert found.limits.futility[:-1] == pytest.approx(idle, abs=5e-6)


ONE_ARM = {"n": [20, 20, 20], "mean": [45.0, 51.0, 45.0], "std": [130.0, 140.0, 120.0]}


def normal_scores(null_value: float) -> Array:
    """z of the t-tests on all data up to each stage, as rpact maps them."""
    n, mean, std = (np.array(ONE_ARM[name], dtype=float) for name in ("n", "mean", "std"))
    out = []
    for end in range(1, len(n) + 1):
        total = n[:end].sum()
        overall = (n[:end] @ mean[:end]) / total
        squares = ((n[:end] - 1) @ std[:end] ** 2) + n[:end] @ (mean[:end] - overall) ** 2
        t = (overall - null_value) / np.sqrt(squares / (total - 1) / total)
        out.append(stats.norm.isf(stats.t.sf(t, total - 1)))
    return np.array(out)


def test_repeated_pvalues_of_rpact() -> None:
    """Wang-Tsiatis 0.4, four planned looks, one-sided 0.025; three stages seen."""
    looks = [
        Look(name=str(stage), estimate=float(z) * stage**-0.5, std_error=stage**-0.5)
        for stage, z in enumerate(normal_scores(10.0), 1)
    ]
    options = SequentialOptions(
        method="wang_tsiatis",
        delta=0.4,
        alpha=0.025,
        alternative="increase",
        planned_fractions=(0.25, 0.5, 0.75, 1.0),
    )
    result = evaluate(looks, options)
    pvalues = [look.pvalue for look in result.looks]
    assert pvalues == pytest.approx([0.28074785, 0.098382799, 0.033210734], abs=1e-6)
    assert result.decision == "continue"


def overall(n: Array, mean: Array, std: Array) -> tuple[float, float, float]:
    """Size, mean and sum of squares of groups taken together."""
    total = float(n.sum())
    centre = float(n @ mean / total)
    return total, centre, float((n - 1) @ std**2 + n @ (mean - centre) ** 2)


def test_inference_at_the_last_stage_of_rpact() -> None:
    """Stage-wise p-value, interval and median-unbiased estimate of a two-sample trial.

    Wang-Tsiatis 0.4, four stages, one-sided 0.025; rpact turns t-tests into normal scores.
    """
    first = [np.array(x) for x in ([23, 23, 22, 23], [170, 150, 180, 250], [130, 240, 220, 130])]
    second = [np.array(x) for x in ([22, 22, 22, 21], [100, 110, 130, 100], [120, 220, 210, 130])]
    looks = []
    for end in range(1, 5):
        n_1, mean_1, squares_1 = overall(*(x[:end].astype(float) for x in first))
        n_2, mean_2, squares_2 = overall(*(x[:end].astype(float) for x in second))
        df = n_1 + n_2 - 2
        std_error = np.sqrt((squares_1 + squares_2) / df * (1 / n_1 + 1 / n_2))
        z = stats.norm.isf(stats.t.sf((mean_1 - mean_2) / std_error, df))
        looks.append(
            Look(name=f"stage {end}", estimate=z * std_error, std_error=std_error, information=end)
        )
    options = SequentialOptions(
        method="wang_tsiatis",
        delta=0.4,
        alpha=0.025,
        alternative="increase",
        planned_fractions=(0.25, 0.5, 0.75, 1.0),
    )
    result = evaluate(looks, options)
    assert [look.decision for look in result.looks] == ["continue"] * 3 + ["stop_efficacy"]
    assert result.adjusted is not None
    assert result.adjusted.pvalue == pytest.approx(0.019111276, abs=5e-9)
    assert result.adjusted.estimate == pytest.approx(65.8091, abs=2e-5)
    # rpact stops its search for the ends at a width of some 1e-5 of the estimate.
    assert result.adjusted.ci_lower == pytest.approx(3.8518991, abs=2e-5)
    assert result.adjusted.ci_upper == pytest.approx(122.8312, abs=5e-5)
    pvalues = [look.pvalue for look in result.looks]
    assert pvalues[0] == pytest.approx(0.10782416, abs=1e-6)
    assert pvalues[2] == pytest.approx(0.10782416, abs=1e-6)
    assert pvalues[3] == pytest.approx(0.0045471564, abs=1e-6)
