"""The method `staggered` against published figures.

R's `did` 2.5.0 on the county teen employment of Callaway and Sant'Anna (2021), analytic errors,
never-treated comparison; further settings from csdid 0.4.3, which agrees with R on the first.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.quasi import staggered

COUNTIES = {
    "unit": "countyreal", "period": "year", "outcome": "lemp",
    "first_treated_period": "first.treat", "never_treated_value": 0,
}  # fmt: skip
TABLES = {
    "group": ("cohort_effects", "first_treated_period"),
    "dynamic": ("event_study", "event_time"),
    "calendar": ("period_effects", "period"),
}
EXACT = 1e-12
CSDID = [
    (
        {"control_group": "not_yet_treated"},
        {
            "simple": (-0.039763625623, 0.012052424787),
            "dynamic": (-0.077399313971, 0.019560176946),
            "group": (-0.030462228113, 0.012575120132),
            "calendar": (-0.044267083476, 0.015570904421),
            "event_time=-2": (-0.002446153886, 0.013120350434),
            "event_time=1": (-0.053589347385, 0.016946385539),
        },
    ),
    (
        {"control_group": "not_yet_treated", "base_period": "universal"},
        {
            "simple": (-0.039763625623, 0.012052424787),
            "dynamic": (-0.077399313971, 0.019560176946),
            "group": (-0.030462228113, 0.012575120132),
            "calendar": (-0.044267083476, 0.015570904421),
            "event_time=-2": (0.024268903415, 0.014463681676),
            "event_time=1": (-0.053589347385, 0.016946385539),
        },
    ),
    (
        {"anticipation": 1},
        {
            "simple": (-0.045205540684, 0.016683131272),
            "dynamic": (-0.044734304424, 0.018611707604),
            "group": (-0.049777513241, 0.017385060989),
            "calendar": (-0.030703566817, 0.017020651343),
            "event_time=-2": (-0.000563084626, 0.013291644737),
            "event_time=1": (-0.043975290297, 0.026578767017),
        },
    ),
    (
        {"control_group": "not_yet_treated", "base_period": "universal", "anticipation": 1},
        {
            "simple": (-0.045205540684, 0.016683131272),
            "dynamic": (-0.044734304424, 0.018611707604),
            "group": (-0.049777513241, 0.017385060989),
            "calendar": (-0.030703566817, 0.017020651343),
            "event_time=1": (-0.043975290297, 0.026578767017),
        },
    ),
    (
        {"balanced_event_time": 1},
        {
            "simple": (-0.039951275155, 0.01203401277),
            "dynamic": (-0.02876076022, 0.013685582558),
            "group": (-0.031018282229, 0.012446059321),
            "calendar": (-0.041700432131, 0.015971851885),
            "event_time=-2": (0.006520112424, 0.023326805142),
            "event_time=1": (-0.050957367065, 0.016893476269),
        },
    ),
    (
        {"control_group": "not_yet_treated", "never_treated_value": None},
        {
            "simple": (-0.041790714948, 0.020454315073),
            "dynamic": (-0.073559193881, 0.024969635548),
            "group": (-0.011442613888, 0.017978048145),
            "calendar": (-0.051658445508, 0.02091336764),
            "event_time=-2": (-0.023986543159, 0.024055831617),
            "event_time=1": (-0.0925872029, 0.032576070419),
        },
    ),
    (
        {"covariates": ["lpop"]},
        {
            "att(2004,2007)": (-0.107544274673, 0.032737692643),
            "att(2006,2004)": (-0.002066058118, 0.022122286484),
            "att(2006,2005)": (-0.006968283067, 0.018345785629),
            "simple": (-0.041968612422, 0.011444829768),
            "dynamic": (-0.080781745334, 0.018745854711),
            "group": (-0.032929240229, 0.011860308766),
            "calendar": (-0.044532331353, 0.014885027813),
        },
    ),
    (
        {"covariates": ["lpop"], "control_group": "not_yet_treated"},
        {
            "att(2006,2004)": (-0.008082062763, 0.021765470267),
            "simple": (-0.041374769792, 0.011377161356),
            "dynamic": (-0.080248548176, 0.018319046945),
            "group": (-0.032252272686, 0.011933240633),
            "calendar": (-0.045677370621, 0.01460828077),
        },
    ),
    (
        {"covariates": ["lpop"], "adjustment": "weighting"},
        {
            "att(2004,2004)": (-0.014548431154, 0.022114533111),
            "att(2004,2005)": (-0.076449860759, 0.028648862537),
            "att(2004,2006)": (-0.140464602655, 0.035371001786),
            "att(2004,2007)": (-0.106932557106, 0.032889151709),
            "att(2006,2004)": (-0.000868560291, 0.022152843418),
            "att(2006,2005)": (-0.006397240343, 0.018457328458),
            "att(2006,2006)": (0.00120804524, 0.019487929103),
            "att(2006,2007)": (-0.041308231739, 0.019721398188),
            "att(2007,2004)": (0.026556103624, 0.014044158505),
            "att(2007,2005)": (-0.004660904906, 0.015669164249),
            "att(2007,2006)": (-0.028340303805, 0.018189309095),
            "att(2007,2007)": (-0.028894766615, 0.016246409387),
            "simple": (-0.041777082199, 0.011499719364),
            "dynamic": (-0.080376886646, 0.018954250382),
            "group": (-0.032875368664, 0.011893200168),
            "calendar": (-0.04417010105, 0.015035223584),
        },
    ),
    (
        {"covariates": ["lpop"], "adjustment": "weighting", "control_group": "not_yet_treated"},
        {
            "att(2004,2005)": (-0.08160699965, 0.028336782822),
            "att(2006,2006)": (0.008790557112, 0.016853296403),
            "simple": (-0.041389409755, 0.011419290153),
            "dynamic": (-0.080016042954, 0.018489700389),
            "group": (-0.032330717936, 0.011976295708),
            "calendar": (-0.045665679399, 0.014696107656),
        },
    ),
    (
        {"covariates": ["lpop"], "adjustment": "doubly_robust"},
        {
            "att(2004,2004)": (-0.014529668305, 0.022129157238),
            "att(2004,2005)": (-0.076421881735, 0.028671314156),
            "att(2004,2006)": (-0.14044833681, 0.03537815471),
            "att(2004,2007)": (-0.106903898111, 0.032886493003),
            "att(2006,2004)": (-0.000472146088, 0.022223437037),
            "att(2006,2005)": (-0.00620252458, 0.018495701904),
            "att(2006,2006)": (0.000960573747, 0.019400195422),
            "att(2006,2007)": (-0.041293865588, 0.019721144145),
            "att(2007,2004)": (0.026727796204, 0.014065660764),
            "att(2007,2005)": (-0.004576570764, 0.01571776313),
            "att(2007,2006)": (-0.028447487198, 0.018180881153),
            "att(2007,2007)": (-0.028781361039, 0.016238952966),
            "simple": (-0.041751772059, 0.011502838152),
            "dynamic": (-0.080353949744, 0.018957557245),
            "group": (-0.032819597161, 0.011898178728),
            "calendar": (-0.044177357757, 0.015038175096),
        },
    ),
    (
        {"covariates": ["lpop"], "adjustment": "doubly_robust", "control_group": "not_yet_treated"},
        {
            "att(2004,2005)": (-0.081603185856, 0.028341541086),
            "att(2006,2006)": (0.008660699868, 0.016839060956),
            "simple": (-0.041351629299, 0.011427839082),
            "dynamic": (-0.079992620959, 0.018494002079),
            "group": (-0.0322640388, 0.011983412614),
            "calendar": (-0.045664632877, 0.014698256757),
        },
    ),
]
"""Estimate and standard error by term; `None` for never: without the never treated.

With covariates csdid's `est_method` "reg", "ipw" and "dr", in this order.
"""

WEIGHTED = [
    (
        {},
        {
            "att(2004,2005)": (-0.048084508314, 0.022557374275),
            "att(2006,2004)": (-9.1309564e-05, 0.02147278307),
            "att(2006,2006)": (0.022082388205, 0.020866943259),
            "simple": (-0.031611096582, 0.009276442175),
            "dynamic": (-0.056014051246, 0.016291445355),
            "group": (-0.030933907561, 0.00851088078),
            "calendar": (-0.027143191574, 0.011722708146),
        },
    ),
    (
        {"covariates": ["lpop"]},
        {
            "att(2004,2005)": (-0.051553638427, 0.02150349339),
            "att(2006,2004)": (-0.003041375302, 0.022161040732),
            "att(2006,2006)": (0.026474076928, 0.025242891482),
            "simple": (-0.032375101105, 0.009718668525),
            "dynamic": (-0.057263353447, 0.016620679082),
            "group": (-0.031906999162, 0.00868394782),
            "calendar": (-0.028223546628, 0.012032962428),
        },
    ),
    (
        {"control_group": "not_yet_treated"},
        {
            "att(2004,2005)": (-0.053192739704, 0.022127861352),
            "att(2006,2004)": (-0.006976054652, 0.021151536814),
            "att(2006,2006)": (0.028988094949, 0.017520505124),
            "simple": (-0.031161736256, 0.008993280605),
            "dynamic": (-0.055500394962, 0.015277180136),
            "group": (-0.030361201911, 0.008644788871),
            "calendar": (-0.028566526119, 0.01096953001),
        },
    ),
    (
        {"covariates": ["lpop"], "control_group": "not_yet_treated"},
        {
            "att(2004,2005)": (-0.054871275175, 0.021193275596),
            "att(2006,2004)": (-0.009041982061, 0.021671881633),
            "att(2006,2006)": (0.031243455726, 0.019767876078),
            "simple": (-0.032021276573, 0.009161367986),
            "dynamic": (-0.056617760445, 0.015226631602),
            "group": (-0.0314946586, 0.008792210839),
            "calendar": (-0.029248676697, 0.010961698861),
        },
    ),
    (
        {"covariates": ["lpop"], "adjustment": "weighting"},
        {
            "att(2004,2005)": (-0.050759007337, 0.021950173177),
            "att(2006,2004)": (-0.002123478409, 0.021700022517),
            "att(2006,2006)": (0.026361564876, 0.025183773221),
            "simple": (-0.032247885618, 0.009681436313),
            "dynamic": (-0.056860182608, 0.017014410729),
            "group": (-0.031905924709, 0.008650048462),
            "calendar": (-0.027851176298, 0.01213963921),
        },
    ),
    (
        {"covariates": ["lpop"], "adjustment": "weighting", "control_group": "not_yet_treated"},
        {
            "att(2004,2005)": (-0.054481828975, 0.021606381526),
            "att(2006,2004)": (-0.008441614076, 0.021345998744),
            "att(2006,2006)": (0.031072932835, 0.019635378104),
            "simple": (-0.031967024943, 0.009129640499),
            "dynamic": (-0.056321009271, 0.015609183964),
            "group": (-0.031525139101, 0.008772882736),
            "calendar": (-0.029078990332, 0.01106694586),
        },
    ),
    (
        {"covariates": ["lpop"], "adjustment": "doubly_robust"},
        {
            "att(2004,2005)": (-0.050746198329, 0.021981947654),
            "att(2006,2004)": (-0.002053300644, 0.021738901625),
            "att(2006,2006)": (0.026257093001, 0.025106105747),
            "simple": (-0.032220507543, 0.009681086044),
            "dynamic": (-0.056846303104, 0.017016066385),
            "group": (-0.031853935732, 0.008645980847),
            "calendar": (-0.027847766915, 0.012140183622),
        },
    ),
    (
        {"covariates": ["lpop"], "adjustment": "doubly_robust", "control_group": "not_yet_treated"},
        {
            "att(2004,2005)": (-0.054482975633, 0.021612334737),
            "att(2006,2004)": (-0.008419025766, 0.021367333427),
            "att(2006,2006)": (0.03104827331, 0.019622786733),
            "simple": (-0.031929303556, 0.009132120542),
            "dynamic": (-0.056303934684, 0.015614031269),
            "group": (-0.031464540508, 0.008765018585),
            "calendar": (-0.029067642835, 0.01107031769),
        },
    ),
]
"""Of csdid 0.4.3, each county weighted by the root of its population, rounded to six places."""

ROWS = [
    (
        {},
        {
            "att(2004,2005)": (-0.070423158103, 0.482269906979),
            "att(2006,2004)": (0.006520112424, 0.30410516345),
            "att(2006,2006)": (-0.004594606953, 0.311269143692),
            "simple": (-0.039951275155, 0.162099949578),
            "dynamic": (-0.077239821457, 0.252113689698),
            "group": (-0.031018282229, 0.16788440745),
            "calendar": (-0.041700432131, 0.247653400428),
        },
    ),
    (
        {"control_group": "not_yet_treated"},
        {
            "att(2004,2005)": (-0.078319099062, 0.477065171273),
            "att(2006,2004)": (-0.002562550943, 0.297258140225),
            "att(2006,2006)": (0.00466087632, 0.304315523665),
            "simple": (-0.039763625623, 0.165771888352),
            "dynamic": (-0.077399313971, 0.252214819618),
            "group": (-0.030462228113, 0.171616490686),
            "calendar": (-0.044267083476, 0.247353451365),
        },
    ),
    (
        {"weights": "root"},
        {
            "att(2004,2005)": (-0.048084508314, 0.709678576946),
            "att(2006,2004)": (-9.1309564e-05, 0.502655017329),
            "att(2006,2006)": (0.022082388205, 0.512852655871),
            "simple": (-0.031611096582, 0.252429431443),
            "dynamic": (-0.056014051246, 0.377080526326),
            "group": (-0.030933907561, 0.263149225151),
            "calendar": (-0.027143191574, 0.367754855951),
        },
    ),
    (
        {"weights": "root", "control_group": "not_yet_treated"},
        {
            "att(2004,2005)": (-0.053192739704, 0.695926945293),
            "att(2006,2004)": (-0.006976054652, 0.486356519157),
            "att(2006,2006)": (0.028988094949, 0.496632732529),
            "simple": (-0.031161736256, 0.258676949053),
            "dynamic": (-0.055500394962, 0.376247990047),
            "group": (-0.030361201911, 0.269954410602),
            "calendar": (-0.028566526119, 0.366060029127),
        },
    ),
    (
        {"unit": "countyreal"},
        {
            "att(2004,2005)": (0.148937765405, 0.278724327646),
            "att(2006,2004)": (-0.144856463943, 0.097510923632),
            "att(2006,2006)": (0.156473086217, 0.128071306897),
            "simple": (-0.056591872734, 0.0762351557),
            "dynamic": (-0.055550434208, 0.130262186706),
            "group": (-0.111476619, 0.072910749014),
            "calendar": (0.07716991072, 0.123893347061),
        },
    ),
    (
        {"unit": "countyreal", "control_group": "not_yet_treated"},
        {
            "att(2004,2005)": (0.184315891711, 0.276810785853),
            "att(2006,2004)": (-0.173765567896, 0.090755490523),
            "att(2006,2006)": (0.129150916478, 0.126242612645),
            "simple": (-0.05961781524, 0.078013345242),
            "dynamic": (-0.05496193603, 0.130367607609),
            "group": (-0.11405965049, 0.074817553326),
            "calendar": (0.075479677434, 0.123624688227),
        },
    ),
]
"""Of csdid 0.4.3: `panel=False`; with the unit, `allow_unbalanced_panel=True` on thinned rows."""

PUBLISHED = {
    "att(2004,2004)": (-0.0145, 0.0231), "att(2004,2005)": (-0.0764, 0.0295),
    "att(2004,2006)": (-0.1404, 0.0382), "att(2004,2007)": (-0.1069, 0.0338),
    "att(2006,2004)": (-0.0005, 0.0226), "att(2006,2005)": (-0.0062, 0.0190),
    "att(2006,2006)": (0.0010, 0.0199), "att(2006,2007)": (-0.0413, 0.0207),
    "att(2007,2004)": (0.0267, 0.0145), "att(2007,2005)": (-0.0046, 0.0151),
    "att(2007,2006)": (-0.0284, 0.0177), "att(2007,2007)": (-0.0288, 0.0154),
    "dynamic": (-0.0804, 0.0195), "event_time=-3": (0.0267, 0.0135),
    "event_time=-2": (-0.0036, 0.0130), "event_time=-1": (-0.0232, 0.0151),
    "event_time=0": (-0.0211, 0.0120), "event_time=1": (-0.0530, 0.0166),
    "event_time=2": (-0.1404, 0.0371), "event_time=3": (-0.1069, 0.0352),
}  # fmt: skip
"""R's `did` with `xformla = ~lpop`, its default, as printed in the vignette of R's `ddml` on it.

Doubly robust, never treated. The errors are bootstrapped, so they agree to some 10 % only.
"""


def analyse(frame: pd.DataFrame, **options: object) -> Result:
    data = {
        "name": "golden",
        "source": {"table": "t"},
        "method": "staggered",
        "options": {**COUNTIES, **options},
    }
    return run(staggered.estimate(validate(staggered.SPEC, data)), PandasEngine(frame))


@pytest.fixture(scope="module")
def counties(validation_data: Path) -> pd.DataFrame:
    return pd.read_csv(validation_data / "mpdta.csv")


def test_all_group_time_effects(counties: pd.DataFrame, validation_data: Path) -> None:
    published = pd.read_csv(validation_data / "r_did_ref_attgt.csv").set_index(["group", "t"])
    table = analyse(counties).tables["group_time"].set_index(["first_treated_period", "period"])

    assert len(table) == len(published) == 12
    found = table.loc[published.index]
    np.testing.assert_allclose(found["estimate"], published["att"], rtol=0, atol=EXACT)
    np.testing.assert_allclose(found["std_error"], published["se"], rtol=0, atol=EXACT)


@pytest.mark.parametrize("kind", ["simple", "group", "dynamic", "calendar"])
def test_all_averages(counties: pd.DataFrame, validation_data: Path, kind: str) -> None:
    published = pd.read_csv(validation_data / "r_did_ref_aggte.csv")
    published = published[published["type"] == kind]
    tables = analyse(counties).tables
    overall = tables["overall"].set_index("term").loc[kind]

    assert overall["estimate"] == pytest.approx(published["overall_att"].iloc[0], abs=EXACT)
    assert overall["std_error"] == pytest.approx(published["overall_se"].iloc[0], abs=EXACT)
    if kind in TABLES:
        name, column = TABLES[kind]
        found = tables[name].set_index(column).loc[published["egt"]]
        assert len(tables[name]) == len(published)
        np.testing.assert_allclose(found["estimate"], published["att_egt"], rtol=0, atol=EXACT)
        np.testing.assert_allclose(found["std_error"], published["se_egt"], rtol=0, atol=EXACT)


def test_the_list_of_public_figures(counties: pd.DataFrame, validation_data: Path) -> None:
    """Each figure of CS1 and ES2 as the list of public targets has it, at its own tolerance."""
    targets = pd.read_csv(
        validation_data.parent / "targets.csv", header=None,
        names=["script", "case", "figure", "target", "tolerance"],
    )  # fmt: skip
    targets = targets[targets["case"].str.contains("mpdta", na=False)]
    result = analyse(counties)
    found: dict[str, float] = {}
    for effect in result.effects:
        kind, _, label = effect.term.partition("=")
        name = {"cohort": f"group {label}", "event_time": f"dynamic {label}",
                "period": f"calendar {label}"}.get(kind, f"{kind} overall")  # fmt: skip
        if kind.startswith("att("):
            found[kind.upper()] = effect.estimate
            found[kind.replace("att", "se")] = effect.std_error
        else:
            found[name] = effect.estimate
            found[f"{name} se"] = effect.std_error

    assert len(targets) == 46
    for row in targets.itertuples():
        assert found[row.figure] == pytest.approx(float(row.target), abs=float(row.tolerance))


@pytest.mark.parametrize(("options", "published"), CSDID)
def test_other_settings(
    counties: pd.DataFrame, options: dict[str, object], published: dict[str, tuple[float, float]]
) -> None:
    frame = counties
    if options.get("never_treated_value", 0) is None:
        frame = counties[counties["first.treat"] > 0]
    effects = {effect.term: effect for effect in analyse(frame, **options).effects}
    for term, figures in published.items():
        found = effects[term]
        assert (found.estimate, found.std_error) == pytest.approx(figures, abs=1e-10), term


def test_what_the_reference_package_prints_given_population(counties: pd.DataFrame) -> None:
    found = analyse(counties, covariates=["lpop"], adjustment="doubly_robust")
    effects = {effect.term: effect for effect in found.effects}

    for term, (effect, error) in PUBLISHED.items():
        assert effects[term].estimate == pytest.approx(effect, abs=5.1e-5), term
        assert effects[term].std_error == pytest.approx(error, rel=0.1), term


@pytest.mark.parametrize(("options", "published"), WEIGHTED)
def test_weighted_counties(
    counties: pd.DataFrame, options: dict[str, object], published: dict[str, tuple[float, float]]
) -> None:
    frame = counties.assign(root=np.round(np.exp(0.5 * counties["lpop"]), 6))
    effects = {effect.term: effect for effect in analyse(frame, weights="root", **options).effects}
    for term, figures in published.items():
        found = effects[term]
        assert (found.estimate, found.std_error) == pytest.approx(figures, abs=1e-10), term


@pytest.mark.parametrize(("options", "published"), ROWS)
def test_counties_as_rows(
    counties: pd.DataFrame, options: dict[str, object], published: dict[str, tuple[float, float]]
) -> None:
    frame = counties.assign(root=np.round(np.exp(0.5 * counties["lpop"]), 6))
    if "unit" in options:
        frame = frame[(frame["countyreal"] + 3 * frame["year"]) % 7 != 0]
    asked = {"unit": None, "panel": False, **options}
    effects = {effect.term: effect for effect in analyse(frame, **asked).effects}
    for term, figures in published.items():
        found = effects[term]
        assert (found.estimate, found.std_error) == pytest.approx(figures, abs=1e-10), term
