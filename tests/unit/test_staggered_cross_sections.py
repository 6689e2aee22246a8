"""`staggered` on rows that are no complete paths equals the rows' own influence, summed by hand."""

import numpy as np
import pandas as pd
import pytest

from causal.core.errors import CausalError, DataError, SpecError
from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.result import Result
from causal.core.spec import validate
from causal.quasi import staggered
from tests.unit.test_staggered_covariates import CONTROLS, make_panel
from tests.unit.test_staggered_parity import analyse


def of_rows(frame: pd.DataFrame, **options: object) -> Result:
    columns = {"period": "t", "outcome": "y", "first_treated_period": "first", "panel": False}
    data = {
        "name": "rows", "source": {"table": "t"}, "method": "staggered",
        "options": {**columns, **options},
    }  # fmt: skip
    return run(staggered.estimate(validate(staggered.SPEC, data)), PandasEngine(frame))


def thinned(seed: int, **options: float) -> pd.DataFrame:
    """A panel from which a third of the rows is gone, more of them for later periods."""
    frame = make_panel(seed, **options)
    drawn = np.random.default_rng(seed + 1).uniform(size=len(frame))
    return frame[drawn > 0.08 * frame["t"]].reset_index(drop=True)


def row_influence(
    frame: pd.DataFrame, w: np.ndarray, *, start: float, at: int, base: int, controls: str
) -> tuple[float, np.ndarray]:
    """Four means and what each row adds to them."""
    first, t, y = (frame[name].to_numpy(dtype=float) for name in ("first", "t", "y"))
    control = np.isnan(first)
    if controls == "not_yet_treated":
        control = (control | (first > max(at, base))) & (first != start)
    effect, influence = 0.0, np.zeros(len(frame))
    for sign, members in ((1.0, first == start), (-1.0, control)):
        for side, period in ((sign, at), (-sign, base)):
            cell = members & (t == period)
            mean = float(w[cell] @ y[cell] / w[cell].sum())
            effect += side * mean
            influence += side * cell * w * (y - mean) / w[cell].sum()
    return effect, influence


CASES = {
    "rows": (None, None, False), "rows by region": (None, "region", False),
    "weighted rows": (None, None, True), "weighted rows by region": (None, "region", True),
    "units with gaps": ("id", None, False), "units with gaps by region": ("id", "region", False),
}  # fmt: skip


@pytest.mark.parametrize("controls", CONTROLS)
@pytest.mark.parametrize(("unit", "cluster", "weighted"), CASES.values(), ids=CASES.keys())
def test_the_rows_own_influence_gives_the_same(
    controls: str,
    unit: str | None,
    cluster: str | None,
    weighted: bool,  # noqa: FBT001
) -> None:
    frame = thinned(1, level=1e5)
    drawn = np.random.default_rng(4).gamma(2.0, size=len(frame))
    frame["w"] = drawn * (np.arange(len(frame)) % 11 > 0)
    given = {"unit": unit, "cluster": cluster, "weights": "w" if weighted else None}
    result = of_rows(frame, control_group=controls, **given)
    found = result.to_frame().set_index("term")
    w = frame["w"].to_numpy() if weighted else np.ones(len(frame))
    group = frame[cluster or unit].to_numpy() if cluster or unit else np.arange(len(frame))
    effects, moved = {}, {}
    for start in (3.0, 4.0):
        for at in range(2, 7):
            base = at - 1 if at < start else int(start) - 1
            key = (start, at)
            effects[key], moved[key] = row_influence(
                frame, w, start=start, at=at, base=base, controls=controls
            )
            expect(found.loc[f"att({start:g},{at})"], effects[key], moved[key], group)
    # A unit counts once in its cohort's share, however often it is seen.
    share = w if unit is None else 1 / frame.groupby("id")["t"].transform("size").to_numpy()
    sizes = {start: share[frame["first"] == start].sum() for start in (3.0, 4.0)}
    total = sum(sizes.values())
    keys = [(3.0, 5), (4.0, 6)]
    mean = sum(sizes[g] * effects[g, t] for g, t in keys) / total
    influence = sum(sizes[g] / total * moved[g, t] for g, t in keys)
    for g, t in keys:
        influence = influence + (frame["first"] == g) * share * (effects[g, t] - mean) / total
    expect(found.loc["event_time=2"], mean, np.asarray(influence), group)


def expect(row: pd.Series, effect: float, influence: np.ndarray, group: np.ndarray) -> None:
    sums = pd.Series(influence).groupby(group).sum()
    assert row["estimate"] == pytest.approx(effect, rel=1e-8, abs=1e-9)
    assert row["std_error"] == pytest.approx(float(np.sqrt((sums**2).sum())), rel=1e-8)


def test_a_complete_panel_has_the_same_effects_and_errors_either_way() -> None:
    frame = make_panel(2)
    columns = ["term", "estimate", "std_error", "n_treated", "n_control"]
    pd.testing.assert_frame_equal(
        of_rows(frame, unit="id").to_frame()[columns], analyse(frame).to_frame()[columns], rtol=1e-7
    )


def test_a_mean_without_rows_has_no_effect_and_is_counted() -> None:
    frame = make_panel(3)
    gone = frame[(frame["first"] != 4.0) | (frame["t"] != 5)]
    result = of_rows(gone)
    terms = {effect.term for effect in result.effects}

    assert "att(4,5)" not in terms
    assert {"att(4,4)", "att(4,6)", "att(3,5)"} <= terms
    left = {item.name: item for item in result.diagnostics}
    assert left["no_comparison"].statistic == 1
    assert left["n_rows"].statistic == len(gone)
    assert "twfe" not in left
    means = result.tables["cohort_means"].set_index(["first_treated_period", "period"])["mean"]
    assert np.isnan(means[4.0, 5.0])
    assert means[3.0, 5.0] == pytest.approx(
        frame.loc[(frame["first"] == 3.0) & (frame["t"] == 5), "y"].mean()
    )


def test_one_row_has_no_variance_that_could_be_seen() -> None:
    frame = make_panel(3)
    of_one = (frame["first"] == 4.0) & (frame["t"] == 5)
    single = frame[~of_one | (frame["id"] == frame.loc[of_one, "id"].iloc[0])]

    assert "att(4,5)" not in {effect.term for effect in of_rows(single).effects}
    assert "att(4,5)" in {effect.term for effect in of_rows(single, min_cohort_size=1).effects}


def test_rows_without_an_outcome_are_counted() -> None:
    frame = make_panel(4)
    frame.loc[::7, "y"] = np.nan
    result = of_rows(frame)
    plain = of_rows(frame.dropna(subset=["y"]))
    pd.testing.assert_frame_equal(result.to_frame(), plain.to_frame(), rtol=1e-9)
    missing = next(item for item in result.diagnostics if item.name == "n_missing")
    assert missing.statistic == frame["y"].isna().sum()


def refused(frame: pd.DataFrame, kind: type[CausalError], match: str, **options: object) -> None:
    with pytest.raises(kind, match=match):
        of_rows(frame, **options)


def test_what_cannot_be_is_refused() -> None:
    frame = make_panel(5, n=60)
    refused(frame, SpecError, "without a unit", unit="id", weights="z")
    refused(frame, SpecError, "unit is missing", panel=True)
    refused(frame.assign(z=-1.0), DataError, "weights must not be negative", weights="z")
    refused(frame.assign(z=0.0), DataError, "z are zero in every row", weights="z")
    refused(frame.assign(y=np.nan), DataError, "no row has an outcome")
    refused(
        pd.concat([frame, frame[:1]]), DataError, "more than one row for the same id", unit="id"
    )
    moving = frame.assign(first=frame["first"].where(frame["t"] > 1, 4.0))
    refused(moving, DataError, "first must not change within id", unit="id")
    refused(
        frame.assign(region=frame["t"]), DataError, "first, region must not change within id",
        unit="id", cluster="region",
    )  # fmt: skip
    refused(frame[frame["t"] == 2], DataError, "two or more periods are needed")
