"""`staggered` by weighting and double robustness equals the formulas on the units themselves.

The reference below is `std_ipw_did_panel` and `drdid_panel` of Sant'Anna and Zhao (2020) as R's
DRDID states them: one row per unit, one influence number per unit, nothing aggregated.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from causal.core.errors import CausalError, DataError, InferenceError, SpecError
from causal.core.result import Result
from causal.quasi import effects_by_unit
from tests.unit.test_staggered_covariates import CONTROLS, make_panel
from tests.unit.test_staggered_parity import analyse

METHODS = ["regression", "weighting", "doubly_robust"]
TRIMMED = 0.995


@dataclass(frozen=True)
class ByUnit:
    """An effect and the influence of each unit, by unit."""

    effect: float
    influence: pd.Series


def propensity(x: np.ndarray, d: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Maximum likelihood by Newton's method on all rows."""
    found = np.zeros(x.shape[1])
    for _ in range(60):
        p = 1 / (1 + np.exp(-x @ found))
        step = np.linalg.solve((x * (w * p * (1 - p))[:, None]).T @ x, x.T @ (w * (d - p)))
        found = found + step
    return 1 / (1 + np.exp(-x @ found))


def compared(
    x: np.ndarray, change: np.ndarray, d: np.ndarray, w: np.ndarray, *, adjustment: str,
    trimmed: float = TRIMMED,
) -> tuple[float, np.ndarray]:  # fmt: skip
    """DRDID's formulas with means over the n units compared: effect and influence."""
    n = len(d)
    p = propensity(x, d, w)
    fitted = np.zeros(n)
    control = d == 0
    if adjustment != "weighting":
        root = np.sqrt(w[control])
        b = np.linalg.lstsq(x[control] * root[:, None], change[control] * root, rcond=None)[0]
        fitted = x @ b
    left = change - fitted
    w_treat = w * d
    eta_treat = (w_treat * left).mean() / w_treat.mean()
    inf_treat = w_treat * (left - eta_treat)
    wols = (w * control * left)[:, None] * x
    wols = wols @ np.linalg.inv((x * (w * control)[:, None]).T @ x / n)
    if adjustment == "regression":
        reach = (w_treat[:, None] * x).mean(axis=0)
        return eta_treat, (inf_treat - wols @ reach) / w_treat.mean()
    w_cont = w * control * (p < trimmed) * p / (1 - p)
    eta_cont = (w_cont * left).mean() / w_cont.mean()
    hessian = np.linalg.inv((x * (w * p * (1 - p))[:, None]).T @ x) * n
    scores = (w * (d - p))[:, None] * x @ hessian
    inf_cont = w_cont * (left - eta_cont)
    inf_cont = inf_cont + scores @ ((w_cont * (left - eta_cont))[:, None] * x).mean(axis=0)
    if adjustment == "doubly_robust":
        inf_treat = inf_treat - wols @ (w_treat[:, None] * x).mean(axis=0)
        inf_cont = inf_cont - wols @ (w_cont[:, None] * x).mean(axis=0)
    return eta_treat - eta_cont, inf_treat / w_treat.mean() - inf_cont / w_cont.mean()


def by_hand(  # noqa: PLR0913 - one per option
    frame: pd.DataFrame, *, start: float, at: int, base: int, controls: str, columns: list[str],
    adjustment: str, weights: str | None = None, trimmed: float = TRIMMED,
) -> ByUnit:  # fmt: skip
    paths = frame.pivot(index="id", columns="t", values="y")
    units = frame.drop_duplicates("id").set_index("id")
    first = units["first"].to_numpy()
    control = np.isnan(first)
    if controls == "not_yet_treated":
        control = (control | (first > max(at, base))) & (first != start)
    used = (first == start) | control
    x = units[columns].to_numpy(dtype=float)
    x = np.column_stack([np.ones(len(x)), (x - x.mean(axis=0)) / x.std(axis=0)])
    w = np.ones(len(units)) if weights is None else units[weights].to_numpy(dtype=float)
    change = (paths[at] - paths[base]).to_numpy()
    effect, moved = compared(
        x[used], change[used], (first == start)[used].astype(float), w[used],
        adjustment=adjustment, trimmed=trimmed,
    )  # fmt: skip
    influence = pd.Series(0.0, index=units.index)
    influence[used] = moved / used.sum()
    return ByUnit(float(effect), influence)


@pytest.mark.parametrize("adjustment", METHODS)
@pytest.mark.parametrize("controls", CONTROLS)
@pytest.mark.parametrize(("columns", "cluster"), [(["x"], None), (["x", "z"], "region")])
def test_the_units_own_influence_gives_the_same(
    adjustment: str, controls: str, columns: list[str], cluster: str | None
) -> None:
    frame = make_panel(1, level=1e6)
    given = {} if cluster is None else {"cluster": cluster}
    result = analyse(
        frame, covariates=columns, control_group=controls, adjustment=adjustment, **given
    )
    region = frame.drop_duplicates("id").set_index("id")["region"]
    check(
        result, frame, region=None if cluster is None else region, controls=controls,
        columns=columns, adjustment=adjustment,
    )  # fmt: skip


WEIGHTED = [("regression", [], None), ("regression", [], "region")] + [
    (adjustment, columns, cluster)
    for adjustment in METHODS
    for columns, cluster in ((["x"], None), (["x", "z"], "region"))
]


@pytest.mark.parametrize("controls", CONTROLS)
@pytest.mark.parametrize(("adjustment", "columns", "cluster"), WEIGHTED)
def test_weighted_units(
    controls: str, adjustment: str, columns: list[str], cluster: str | None
) -> None:
    frame = with_weights(make_panel(6, level=1e4))
    given = {} if cluster is None else {"cluster": cluster}
    given |= {"adjustment": adjustment} if columns else {}
    result = analyse(frame, covariates=columns, control_group=controls, weights="w", **given)
    region = frame.drop_duplicates("id").set_index("id")["region"]
    check(
        result, frame, region=None if cluster is None else region, controls=controls,
        columns=columns, adjustment=adjustment, weights="w",
    )  # fmt: skip


def with_weights(frame: pd.DataFrame) -> pd.DataFrame:
    """Weights that go with the covariate, some of them zero."""
    n_units = frame["id"].nunique()
    drawn = np.random.default_rng(9).gamma(2.0, 3.0, n_units)
    drawn[::17] = 0.0
    return frame.assign(w=drawn[frame["id"]] * (1 + (frame["x"] > 50)))


@pytest.mark.parametrize(
    "options", [{}, {"covariates": ["x"]}, {"covariates": ["x"], "cluster": "region"}]
)
def test_equal_weights_change_nothing(options: dict[str, object]) -> None:
    frame = make_panel(7).assign(w=3.0)
    plain, weighted = analyse(frame, **options), analyse(frame, weights="w", **options)
    pd.testing.assert_frame_equal(plain.to_frame(), weighted.to_frame(), rtol=1e-7)
    for name, table in plain.tables.items():
        pd.testing.assert_frame_equal(table, weighted.tables[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"covariates": ["x"], "adjustment": "doubly_robust"}])
def test_a_weight_of_two_is_two_units_for_the_effects(options: dict[str, object]) -> None:
    frame = make_panel(8)
    twice = frame.assign(w=np.where(frame["id"] % 3 == 0, 2.0, 1.0))
    copies = frame[frame["id"] % 3 == 0].assign(id=lambda rows: rows["id"] + 1000)
    weighted = analyse(twice, weights="w", **options)
    copied = analyse(pd.concat([frame, copies]), **options)
    pd.testing.assert_series_equal(
        weighted.to_frame()["estimate"], copied.to_frame()["estimate"], rtol=1e-7
    )
    for name, column in (("twfe_decomposition", "estimate"), ("cohort_means", "mean")):
        pd.testing.assert_series_equal(
            weighted.tables[name][column], copied.tables[name][column], rtol=1e-7
        )


def test_weights_that_cannot_be_are_refused() -> None:
    frame = make_panel(9, n=60)
    with pytest.raises(DataError, match="weights must not be negative"):
        analyse(frame.assign(w=np.where(frame["id"] == 3, -1.0, 1.0)), weights="w")
    with pytest.raises(DataError, match="w must not change within id"):
        analyse(frame.assign(w=frame["t"]), weights="w")
    with pytest.raises(DataError, match="weights w are zero in every row"):
        analyse(frame.assign(w=0.0), weights="w")
    with pytest.raises(DataError, match=r"units of the cohort have no weight in att\(4,2\)"):
        analyse(frame.assign(w=np.where(frame["first"] == 4.0, 0.0, 1.0)), weights="w")
    with pytest.raises(SpecError, match="column used in two roles"):
        analyse(frame, weights="y")


def check(result: Result, frame: pd.DataFrame, *, region: pd.Series | None, **how: object) -> None:
    """Every effect, its error, and the errors of the event study, from the units' influence."""
    found = result.to_frame().set_index("term")
    by_cell: dict[tuple[float, int], ByUnit] = {}
    for start in (3.0, 4.0):
        for at in range(2, 7):
            base = at - 1 if at < start else int(start) - 1
            by_cell[start, at] = by_hand(frame, start=start, at=at, base=base, **how)  # type: ignore[arg-type]
            expect(found.loc[f"att({start:g},{at})"], by_cell[start, at], region)
    units = frame.drop_duplicates("id").set_index("id")
    name = how.get("weights")
    w = (
        pd.Series(1.0, index=units.index)
        if name is None
        else units[str(name)] / units[str(name)].mean()
    )
    sizes = {start: w[units["first"] == start].sum() for start in (3.0, 4.0)}
    total = sum(sizes.values())
    for time in (-1, 0, 2):
        parts = {start: by_cell[start, int(start) + time] for start in (3.0, 4.0)}
        mean = sum(sizes[start] * part.effect for start, part in parts.items()) / total
        moved = sum(sizes[start] / total * part.influence for start, part in parts.items())
        for start, part in parts.items():
            moved = moved + (units["first"] == start) * w * (part.effect - mean) / total
        expect(found.loc[f"event_time={time}"], ByUnit(mean, moved), region)


def expect(row: pd.Series, by_unit: ByUnit, region: pd.Series | None) -> None:
    influence = by_unit.influence
    sums = influence if region is None else influence.groupby(region).sum()
    assert row["estimate"] == pytest.approx(by_unit.effect, rel=1e-8, abs=1e-9)
    assert row["std_error"] == pytest.approx(float(np.sqrt((sums**2).sum())), rel=1e-8)


@pytest.mark.parametrize("adjustment", ["weighting", "doubly_robust"])
def test_units_without_counterpart_lose_their_weight_and_are_counted(adjustment: str) -> None:
    frame = make_panel(2, n=300)
    result = analyse(frame, covariates=["x"], adjustment=adjustment, max_propensity=0.4)
    found = result.to_frame().set_index("term")
    check_ = by_hand(
        frame, start=4.0, at=5, base=3, controls="never_treated", columns=["x"],
        adjustment=adjustment, trimmed=0.4,
    )  # fmt: skip
    untouched = by_hand(
        frame, start=4.0, at=5, base=3, controls="never_treated", columns=["x"],
        adjustment=adjustment,
    )  # fmt: skip

    expect(found.loc["att(4,5)"], check_, None)
    assert abs(untouched.effect - check_.effect) > 1e-6
    detail = next(item for item in result.diagnostics if item.name == "overlap").detail
    assert "have a propensity of 0.4 or more and no weight" in detail
    assert "at most 0 comparison units" not in detail


def test_the_effective_number_of_comparison_units() -> None:
    frame = make_panel(2, n=300)
    result = analyse(frame[frame["first"] != 3.0], covariates=["x"], adjustment="weighting")
    units = frame[frame["first"] != 3.0].drop_duplicates("id")
    treated = units["first"].notna().to_numpy(dtype=float)
    x = np.column_stack([np.ones(len(units)), units["x"] - 50])
    p = propensity(x, treated, np.ones(len(units)))
    w = (p / (1 - p))[treated == 0]

    overlap = next(item for item in result.diagnostics if item.name == "overlap")
    assert overlap.statistic == pytest.approx(w.sum() ** 2 / (w**2).sum(), rel=1e-8)
    assert overlap.passed is True


def test_units_that_are_treated_for_certain_turn_the_check_red() -> None:
    frame = make_panel(3, n=300)
    lone = frame["id"] == frame.loc[frame["first"] == 4.0, "id"].iloc[0]
    result = analyse(
        frame.assign(x=frame["x"].where(~lone, 130.0)), covariates=["x"], adjustment="weighting"
    )
    overlap = next(item for item in result.diagnostics if item.name == "overlap")
    assert overlap.passed is False


@pytest.mark.parametrize("adjustment", ["weighting", "doubly_robust"])
def test_scale_and_origin_of_a_covariate_do_not_matter(adjustment: str) -> None:
    frame = make_panel(2)
    moved = frame.assign(x=1e6 + 1e-3 * frame["x"])
    columns = ["term", "estimate", "std_error"]
    pd.testing.assert_frame_equal(
        analyse(moved, covariates=["x"], adjustment=adjustment).to_frame()[columns],
        analyse(frame, covariates=["x"], adjustment=adjustment).to_frame()[columns],
        rtol=1e-6,
    )


def test_a_universal_base_and_anticipation_have_their_reference() -> None:
    frame = make_panel(4)
    result = analyse(
        frame, covariates=["x"], adjustment="doubly_robust", base_period="universal",
        control_group="not_yet_treated", anticipation=1,
    )  # fmt: skip
    table = result.tables["group_time"].set_index("term")
    assert table.loc["att(4,2)", "estimate"] == 0.0
    assert np.isnan(table.loc["att(4,2)", "std_error"])
    units = frame["first"].isna() | (frame["first"] == 4.0)
    expected = by_hand(
        frame[units], start=4.0, at=6, base=2, controls="never_treated", columns=["x"],
        adjustment="doubly_robust",
    )  # fmt: skip
    assert table.loc["att(4,6)", "estimate"] == pytest.approx(expected.effect, rel=1e-8)


def refused(frame: pd.DataFrame, **options: object) -> CausalError:
    with pytest.raises(CausalError) as caught:
        analyse(frame, **options)
    return caught.value


def test_what_separates_a_cohort_is_refused_with_its_name() -> None:
    frame = make_panel(5)
    apart = frame.assign(z=np.where(frame["first"] == 4.0, 5.0, 0.0) + 0.1 * frame["z"])
    error = refused(apart, covariates=["x", "z"], adjustment="doubly_robust")

    assert isinstance(error, InferenceError)
    assert "separate cohort 4 and its comparison units of period 2, 3, 4, 5, 6" in str(error)
    flag = frame.assign(z=np.where((frame["first"] == 4.0) & (frame["id"] % 2 == 0), 1.0, 0.0))
    error = refused(flag[frame["first"] != 3.0], covariates=["z"], adjustment="weighting")
    assert "separate cohort 4" in str(error)


def test_what_cannot_be_is_refused() -> None:
    frame = make_panel(4, n=60)
    with pytest.raises(DataError, match=r"collinear .* in cohort 3"):
        analyse(frame.assign(x2=3 - 2 * frame["x"]), covariates=["x", "x2"], adjustment="weighting")
    with pytest.raises(SpecError, match="needs covariates"):
        analyse(frame, adjustment="doubly_robust")
    with pytest.raises(SpecError, match="max_propensity goes with"):
        analyse(frame, covariates=["x"], max_propensity=0.9)
    two = frame.loc[frame["first"] == 3.0, "id"].unique()[:2]
    few = frame[(frame["first"] != 3.0) | frame["id"].isin(two)]
    with pytest.raises(DataError, match="too few units for the covariates: cohort 3"):
        analyse(few, covariates=["x", "z"], adjustment="weighting")
    never = frame.loc[frame["first"].isna(), "id"].unique()[:3]
    few = frame[frame["first"].notna() | frame["id"].isin(never)]
    with pytest.raises(DataError, match=r"too few comparison units .* of att\(3,2\)"):
        analyse(few, covariates=["x", "z"], adjustment="doubly_robust")


def test_more_effects_than_can_be_crossed_need_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects_by_unit, "MAX_CROSSED", 5)
    frame = make_panel(4)
    asked = {"covariates": ["x"], "adjustment": "doubly_robust"}
    with pytest.raises(DataError, match=r"name a cluster; given: 10 effects; allowed: at most 5"):
        analyse(frame, **asked)
    assert len(analyse(frame, cluster="region", **asked).tables["group_time"]) == 10
