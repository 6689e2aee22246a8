"""`staggered` of rows given covariates equals the formulas on the rows themselves.

The reference below is `reg_did_rc`, `std_ipw_did_rc` and `drdid_rc` of Sant'Anna and Zhao (2020) as
R's DRDID states them: one influence number per row, nothing aggregated.
"""

import numpy as np
import pandas as pd
import pytest

from causal.core.errors import DataError, InferenceError, SpecError
from causal.core.result import Result
from tests.unit.test_staggered_adjustments import METHODS, propensity
from tests.unit.test_staggered_covariates import CONTROLS, make_panel
from tests.unit.test_staggered_cross_sections import expect, of_rows

STARTS = (3.0, 4.0)


def analyse(frame: pd.DataFrame, **options: object) -> Result:
    """Bands are not looked at: few draws."""
    return of_rows(frame, n_draws=1000, **options)


def make_rows(seed: int, *, level: float = 0.0, n: int = 260) -> pd.DataFrame:
    """A panel of whose rows half are gone, with covariates of each row's own and a weight."""
    frame = make_panel(seed, level=level, n=n)
    rng = np.random.default_rng(seed + 1)
    frame["x"] += rng.normal(size=len(frame))
    frame["w"] = rng.gamma(2.0, size=len(frame)) * (np.arange(len(frame)) % 11 > 0)
    return frame[rng.uniform(size=len(frame)) > 0.5].reset_index(drop=True)


def least_squares(
    x: np.ndarray, y: np.ndarray, w: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fitted values for all rows, and each row's influence on the coefficients (times n)."""
    wx = x * (w * rows)[:, None]
    b = np.linalg.solve(wx.T @ x, wx.T @ y)
    return x @ b, wx * (y - x @ b)[:, None] @ np.linalg.inv(wx.T @ x / len(y))


def normalised(weight: np.ndarray, values: np.ndarray) -> tuple[float, np.ndarray]:
    """A weighted mean and the rows' influence on it, the values being known."""
    mean = float((weight * values).mean() / weight.mean())
    return mean, weight * (values - mean) / weight.mean()


def compared(  # noqa: PLR0913 - as DRDID has it
    x: np.ndarray, y: np.ndarray, d: np.ndarray, post: np.ndarray, w: np.ndarray, *,
    adjustment: str, trimmed: float = 0.995,
) -> tuple[float, np.ndarray]:  # fmt: skip
    """DRDID's formulas with means over the n rows compared: effect and influence."""
    sides = {1.0: post == 1, -1.0: post == 0}
    control = {sign: least_squares(x, y, w, (d == 0) & at) for sign, at in sides.items()}
    if adjustment == "regression":
        effect, influence = 0.0, np.zeros(len(y))
        for sign, at in sides.items():
            mean, moved = normalised(w * d * at, y)
            fitted, linear = control[sign]
            other, around = normalised(w * d, fitted)
            effect += sign * (mean - other)
            reach = (w * d) @ x / (w * d).sum()
            influence = influence + sign * (moved - around - linear @ reach)
        return effect, influence
    p = propensity(x, d, w)
    hessian = np.linalg.inv((x * (w * p * (1 - p))[:, None]).T @ x / len(y))
    scores = (x * (w * (d - p))[:, None]) @ hessian
    odds = w * (1 - d) * (p < trimmed) * p / (1 - p)
    effect, influence = 0.0, np.zeros(len(y))
    for sign, at in sides.items():
        fitted, linear = control[sign]
        if adjustment == "weighting":
            fitted, linear = np.zeros(len(y)), np.zeros_like(x)
        treated, compare = w * d * at, odds * at
        mean, moved = normalised(treated, y - fitted)
        other, around = normalised(compare, y - fitted)
        effect += sign * (mean - other)
        of_odds = scores @ ((compare * (y - fitted - other)) @ x / compare.sum())
        own, against = treated @ x / treated.sum(), compare @ x / compare.sum()
        influence = influence + sign * (moved - around - of_odds - linear @ (own - against))
        if adjustment == "doubly_robust":
            of_treated, linear_treated = least_squares(x, y, w, (d == 1) & at)
            whole, about = normalised(w * d, of_treated - fitted)
            part, about_part = normalised(treated, of_treated - fitted)
            effect += sign * (whole - part)
            gap = (w * d) @ x / (w * d).sum() - own
            influence = influence + sign * (about - about_part + (linear_treated - linear) @ gap)
    return effect, influence


def row_influence(  # noqa: PLR0913 - one per option
    frame: pd.DataFrame, w: np.ndarray, *, start: float, at: int, base: int, controls: str,
    columns: list[str], adjustment: str, trimmed: float = 0.995,
) -> tuple[float, np.ndarray]:  # fmt: skip
    first, t = frame["first"].to_numpy(dtype=float), frame["t"].to_numpy()
    control = np.isnan(first)
    if controls == "not_yet_treated":
        control = (control | (first > max(at, base))) & (first != start)
    used = (control | (first == start)) & ((t == at) | (t == base))
    x = frame[columns].to_numpy(dtype=float)
    x = np.column_stack([np.ones(len(x)), (x - x.mean(axis=0)) / x.std(axis=0)])
    y = frame["y"].to_numpy(dtype=float) - frame["y"].mean()
    effect, moved = compared(
        x[used], y[used], (first == start)[used].astype(float), (t == at)[used].astype(float),
        w[used], adjustment=adjustment, trimmed=trimmed,
    )  # fmt: skip
    influence = np.zeros(len(frame))
    influence[used] = moved / used.sum()
    return effect, influence


NEVER, LATER = CONTROLS
CASES = {
    "rows": (["x"], None, None, False, NEVER),
    "two covariates": (["x", "z"], None, None, False, LATER),
    "rows by region": (["x"], None, "region", False, LATER),
    "weighted rows": (["x"], None, None, True, NEVER),
    "weighted rows by region": (["x", "z"], None, "region", True, LATER),
    "units with gaps": (["x"], "id", None, False, LATER),
    "units with gaps by region": (["x"], "id", "region", False, NEVER),
}


@pytest.mark.parametrize("adjustment", METHODS)
@pytest.mark.parametrize(
    ("columns", "unit", "cluster", "weighted", "controls"), CASES.values(), ids=CASES.keys()
)
def test_the_rows_own_influence_gives_the_same(
    columns: list[str],
    unit: str | None,
    cluster: str | None,
    weighted: bool,  # noqa: FBT001
    controls: str,
    adjustment: str,
) -> None:
    frame = make_rows(1, level=1e5)
    given = {"unit": unit, "cluster": cluster, "weights": "w" if weighted else None}
    given |= {"control_group": controls, "aggregations": ["dynamic"]}
    result = analyse(frame, covariates=columns, adjustment=adjustment, **given)
    found = result.to_frame().set_index("term")
    w = frame["w"].to_numpy() if weighted else np.ones(len(frame))
    group = frame[cluster or unit].to_numpy() if cluster or unit else np.arange(len(frame))
    effects, moved = {}, {}
    for start in STARTS:
        for at in range(2, 7):
            base = at - 1 if at < start else int(start) - 1
            effects[start, at], moved[start, at] = row_influence(
                frame, w, start=start, at=at, base=base, controls=controls, columns=columns,
                adjustment=adjustment,
            )  # fmt: skip
            row = found.loc[f"att({start:g},{at})"]
            expect(row, effects[start, at], moved[start, at], group)
    # A unit counts once in its cohort's share, however often it is seen.
    share = w if unit is None else 1 / frame.groupby("id")["t"].transform("size").to_numpy()
    sizes = {start: share[frame["first"] == start].sum() for start in STARTS}
    total = sum(sizes.values())
    keys = [(3.0, 5), (4.0, 6)]
    mean = sum(sizes[g] * effects[g, t] for g, t in keys) / total
    influence = sum(sizes[g] / total * moved[g, t] for g, t in keys)
    for g, t in keys:
        influence = influence + (frame["first"] == g) * share * (effects[g, t] - mean) / total
    expect(found.loc["event_time=2"], mean, np.asarray(influence), group)


def test_a_universal_base_looks_back() -> None:
    frame = make_rows(2)
    options = {"covariates": ["x"], "adjustment": "doubly_robust"}
    found = analyse(frame, base_period="universal", **options).to_frame().set_index("term")
    for at in (1, 2, 5):
        effect, moved = row_influence(
            frame, np.ones(len(frame)), start=4.0, at=at, base=3, controls="never_treated",
            columns=["x"], adjustment="doubly_robust",
        )  # fmt: skip
        expect(found.loc[f"att(4,{at})"], effect, moved, np.arange(len(frame)))
    assert "att(4,3)" not in found.index


@pytest.mark.parametrize("adjustment", ["weighting", "doubly_robust"])
def test_rows_without_counterpart_lose_their_weight_and_are_counted(adjustment: str) -> None:
    frame = make_rows(3, n=400)
    result = analyse(frame, covariates=["x"], adjustment=adjustment, max_propensity=0.45)
    effect, moved = row_influence(
        frame, np.ones(len(frame)), start=4.0, at=5, base=3, controls="never_treated",
        columns=["x"], adjustment=adjustment, trimmed=0.45,
    )  # fmt: skip
    found = result.to_frame().set_index("term")
    expect(found.loc["att(4,5)"], effect, moved, np.arange(len(frame)))
    detail = next(item for item in result.diagnostics if item.name == "overlap").detail
    assert "have a propensity of 0.45 or more and no weight" in detail
    assert "at most 0 comparison units" not in detail


def test_a_never_treated_value_and_late_starts_change_nothing() -> None:
    frame = make_rows(4)
    options = {"covariates": ["x"], "adjustment": "doubly_robust", "cluster": "region"}
    plain = analyse(frame, **options)
    zero = analyse(frame.fillna({"first": 0.0}), never_treated_value=0, **options)
    late = analyse(frame.fillna({"first": 99.0}), **options)
    pd.testing.assert_frame_equal(plain.to_frame(), zero.to_frame(), rtol=1e-9)
    pd.testing.assert_frame_equal(plain.to_frame(), late.to_frame(), rtol=1e-9)


@pytest.mark.parametrize("adjustment", METHODS)
def test_rows_that_lack_something_are_left_out_of_every_pass_and_counted(adjustment: str) -> None:
    frame = make_rows(5)
    frame.loc[::9, "y"] = np.nan
    frame.loc[::13, "x"] = np.nan
    options = {"covariates": ["x", "z"], "adjustment": adjustment}
    result = analyse(frame, **options)
    kept = frame.dropna(subset=["x", "y"])
    pd.testing.assert_frame_equal(result.to_frame(), analyse(kept, **options).to_frame(), rtol=1e-7)
    counts = {item.name: item.statistic for item in result.diagnostics}
    assert counts["n_missing"] == len(frame) - len(kept)
    assert counts["n_rows"] == len(kept)


def test_what_cannot_be_is_refused() -> None:
    frame = make_rows(6)

    def refused(match: str, kind: type[Exception] = DataError, **options: object) -> None:
        given = {"covariates": ["x"], "adjustment": "doubly_robust", **options}
        with pytest.raises(kind, match=match):
            analyse(given.pop("frame", frame), **given)  # type: ignore[arg-type]

    refused("the covariate x has the same value", frame=frame.assign(x=1.0))
    refused("collinear", frame=frame.assign(x2=2 * frame["x"]), covariates=["x", "x2"])
    in_cell = (frame["first"] == 4.0) & (frame["t"] == 5)
    few = frame[~in_cell | (in_cell.cumsum() <= 6)]
    drawn = np.random.default_rng(0).normal(size=(len(few), 9))
    wide = few.assign(**{f"z{j}": drawn[:, j] for j in range(9)})
    names = [f"z{j}" for j in range(9)]
    refused(r"too few rows of the cohort in period 5 for att\(4,5\)", frame=wide, covariates=names)
    apart = frame.assign(x=frame["x"] + 1e3 * frame["first"].notna())
    refused("separate cohort 3", InferenceError, frame=apart)
    refused("no row has an outcome, a period and all", frame=frame.assign(x=np.nan))
    refused("needs covariates", SpecError, covariates=[])
    refused("without a unit", SpecError, unit="id", weights="w")
