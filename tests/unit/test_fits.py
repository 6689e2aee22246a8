"""Many fits on pandas: the grid, each fit as it is by itself, and what is said of all of them."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal.core import plan, registry
from causal.core.errors import CausalError, DataError, SpecError
from causal.core.multiplicity import adjusted_pvalues
from causal.core.pandas_engine import PandasEngine
from causal.core.spec import validate
from causal.fits import fits_figures, fits_readout, fits_spec, fitting
from causal.fits.fits_spec import FitsSpec
from causal.fits.fitting import Fitted
from causal.fits.grid import Grid, grid

STARTS = {"a": 15.0, "b": 15.0, "c": 18.0}


@pytest.fixture(scope="module")
def panel() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    regions, n_periods = [*STARTS, *(f"d{i:02d}" for i in range(22))], 24
    walks = rng.normal(size=(3, n_periods)).cumsum(axis=1)
    paths = 40 + rng.dirichlet(np.ones(3), len(regions)) @ walks
    rows = pd.DataFrame(
        {
            "region": np.repeat(regions, n_periods),
            "week": np.tile(np.arange(n_periods), len(regions)),
            "sales": paths.ravel() + 0.3 * rng.normal(size=paths.size),
            "visits": 10 + paths.ravel() / 2 + 0.3 * rng.normal(size=paths.size),
        }
    )
    rows["start"] = rows["region"].map(STARTS)
    rows.loc[(rows["region"] == "a") & (rows["week"] >= 15), "sales"] += 6.0
    return rows


def document(**over: Any) -> dict[str, Any]:
    return {
        "name": "regions", "source": {"path": "panel.csv"}, "method": "synthetic_control",
        "options": {"unit": "region", "period": "week"},
        "fits": {"over": {"treated": "start", "outcomes": ["sales", "visits"], **over}},
    }  # fmt: skip


def spec_of(document_: dict[str, Any]) -> FitsSpec:
    spec = validate(FitsSpec, document_)
    fits_spec.check(spec)
    return spec


def fitted(spec: FitsSpec, panel: pd.DataFrame) -> tuple[Grid, list[Fitted]]:
    found = plan.run(grid(spec), PandasEngine(panel))
    return found, [
        item
        for task in fitting.tasks(spec, found)
        for item in fitting.fit_each(spec, task, grid=found, rows=panel)
    ]


METHODS: dict[str, dict[str, Any]] = {
    "synthetic_control": {},
    "synthetic_did": {"standard_errors": "placebo", "n_replications": 50},
    "bsts": {"n_draws": 100, "placebo": False},
}


@pytest.mark.parametrize("method", METHODS)
def test_each_fit_is_the_one_that_the_method_makes_alone(panel: pd.DataFrame, method: str) -> None:
    given = document() | {"method": method}
    given["options"] = given["options"] | METHODS[method]
    _, found = fitted(spec_of(given), panel)

    assert [(f.fit.outcome, f.fit.unit) for f in found] == [
        (outcome, unit) for outcome in ("sales", "visits") for unit in "abc"
    ]
    for item in found:
        options = given["options"] | {
            "outcome": item.fit.outcome, "treated": item.fit.unit,
            "treatment_period": STARTS[str(item.fit.unit)],
            "donors": [f"d{i:02d}" for i in range(22)],
        }  # fmt: skip
        alone = {key: value for key, value in given.items() if key != "fits"}
        module = registry.method(method)
        own = validate(module.SPEC, alone | {"options": options})
        expected = plan.run(module.estimate(own), PandasEngine(panel))
        assert item.reason is None
        assert item.effects == expected.effects
        assert item.diagnostics == expected.diagnostics
        assert fitting.decoded(item.fit, fitting.encoded(item)) == item


def test_a_column_a_mapping_and_a_list_name_the_same_fits(panel: pd.DataFrame) -> None:
    at_once = panel.assign(start=panel["start"].where(panel["start"].isna(), 15.0))
    listed = document(treated=["a", "b", "c"])
    listed["options"]["treatment_period"] = 15
    grids = [
        plan.run(grid(spec_of(given)), PandasEngine(at_once))
        for given in (document(), document(treated=dict.fromkeys("abc", 15.0)), listed)
    ]
    assert grids[0] == grids[1] == grids[2]
    assert grids[0].n_rows == len(panel)
    assert len(grids[0].donors) == 22


def test_tasks_hold_one_outcome_and_every_fit_once(panel: pd.DataFrame) -> None:
    given = document(placebos=True)
    given["fits"]["fits_per_task"] = 4
    spec = spec_of(given)
    found = plan.run(grid(spec), PandasEngine(panel))
    split = list(fitting.tasks(spec, found))
    assert [fit for task in split for fit in task] == list(found.fits)
    assert len(found.fits) == 2 * 25
    assert all(len({fit.outcome for fit in task}) == 1 and len(task) <= 4 for task in split)
    starts = [fit.start for fit in found.fits if fit.is_placebo and fit.outcome == "sales"]
    assert starts[:6] == [15.0, 15.0, 18.0, 15.0, 15.0, 18.0]


def test_a_fit_that_fails_is_a_row_and_the_rest_goes_on(panel: pd.DataFrame) -> None:
    holes = panel[~((panel["region"] == "b") & (panel["week"] == 3))].copy()
    holes.loc[holes["region"] == "c", "start"] = 99.0
    spec = spec_of(document())
    found_grid, found = fitted(spec, holes)
    failed = {(f.fit.outcome, f.fit.unit): f for f in found if f.reason is not None}
    assert set(failed) == {(o, u) for o in ("sales", "visits") for u in "bc"}
    assert "lack a value" in str(failed["sales", "b"].reason)
    assert "99" in str(failed["sales", "c"].reason)
    assert {item.exit_code for item in failed.values()} == {DataError.exit_code}

    result = fits_readout.readout(spec, found, grid=found_grid)
    assert result.params["n_failed"] == 4
    named = {item.name: item for item in result.diagnostics}
    assert named["fit:sales:b"].passed is False
    assert not named["fits"].passed
    assert named["fits"].statistic == 4
    assert {effect.term.split(" | ")[1] for effect in result.effects} == {"a"}
    table = result.tables["fits"]
    assert list(table.columns) == list(fits_readout.FIT_COLUMNS)
    assert table["estimate"].isna().sum() == table["reason"].notna().sum() == 4


def test_pvalues_are_adjusted_over_treated_regions_alone(panel: pd.DataFrame) -> None:
    given = document(placebos=True)
    given["method"] = "synthetic_did"
    given["options"] |= {"standard_errors": "placebo", "n_replications": 100}
    spec = spec_of(given)
    found_grid, found = fitted(spec, panel)
    result = fits_readout.readout(spec, found, grid=found_grid)
    table = result.tables["fits"]
    own = table[~table["is_placebo"]]
    expected = adjusted_pvalues(own["pvalue"].to_numpy(), correction="benjamini_hochberg")
    np.testing.assert_array_equal(own["pvalue_adjusted"], expected)
    assert table.loc[table["is_placebo"], "pvalue_adjusted"].isna().all()
    named = {item.name: item for item in result.diagnostics}
    assert named["pvalue_adjusted:sales:a"].pvalue == expected[0] < 0.05
    assert list(fits_readout.discoveries(spec, table)["unit"]) == ["a"]
    placebos = table.loc[table["is_placebo"], "pvalue"]
    assert named["placebo_rejections"].statistic == (placebos <= 0.05).mean() < 0.25
    kinds = {effect.estimator for effect in result.effects if " | d" in effect.term}
    assert all(kind.endswith("_placebo") for kind in kinds)

    keys = [(e.estimator, e.metric, e.term, e.scale) for e in result.effects]
    assert len(set(keys)) == len(keys)
    drawn = fits_figures.figures(spec, result)
    assert set(drawn) == {"effects_sales", "effects_visits", "placebo_pvalues"}


def test_infinite_ends_of_intervals_travel(panel: pd.DataFrame) -> None:
    spec = spec_of(document() | {"confidence_level": 0.99})
    found_grid, found = fitted(spec, panel)
    assert not np.isfinite(found[0].effects[0].ci_upper)
    again = fitting.decoded(found[0].fit, fitting.encoded(found[0]))
    assert again == found[0]
    figure = fits_figures.figures(spec, fits_readout.readout(spec, found, grid=found_grid))
    low, high = figure["effects_sales"].axes[0].get_xlim()
    assert np.isfinite([low, high]).all()


def _with(name: str, value: object) -> dict[str, Any]:
    given = document()
    given["options"][name] = value
    return given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (_with("outcome", "sales"), "options.outcome must not be given"),
        (_with("first_treated_period", "start"), "options.first_treated_period must not be"),
        (_with("returns", {"spend": 3}), "options.returns must not be given"),
        (_with("treatment_period", 9), "treatment_period goes with a list"),
        (document(treated=["a"]), "treatment_period goes with a list"),
        (document(treated=["a", "a"]), "treated names a twice"),
        (document(outcomes=["sales", "sales"]), "outcomes names sales twice"),
        (_with("unit", 3), "options.unit is required"),
        (_with("donors", "d01"), "options.donors must be a list"),
        (_with("variannt", "standard"), "did you mean 'variant'"),
        (_with("variant", "negative"), "Input should be 'standard'"),
        (document() | {"method": "did"}, "compare a treated region with donors"),
        (document() | {"method": "synthetic"}, "unknown method"),
    ],
)
def test_specs_that_cannot_be_right_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec_of(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (document(treated={"z": 15.0}), "no such treated region"),
        (_with("donors", ["a", "d01"]), "treated region in the donor pool"),
        (_with("donors", ["z"]), "no such donor region"),
        (_with("excluded", ["a", "b", "c"]), "no region has a first treated period"),
        (_with("excluded", [f"d{i:02d}" for i in range(22)]), "there is no donor"),
    ],
)
def test_panels_that_carry_no_fit_are_refused(
    panel: pd.DataFrame, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        plan.run(grid(spec_of(given)), PandasEngine(panel))


def test_listed_donors_stand_in_for_treated_regions_and_for_each_other(
    panel: pd.DataFrame,
) -> None:
    given = document(placebos=True, outcomes=["sales"])
    given["options"]["donors"] = [f"d{i:02d}" for i in range(8)]
    _, found = fitted(spec_of(given), panel)
    assert len(found) == 3 + 8
    assert all(item.reason is None for item in found)
    assert {item.headline.n_control for item in found if item.headline} == {7, 8}


def test_a_constant_donor_and_a_missing_value_are_no_reason_to_fail(panel: pd.DataFrame) -> None:
    odd = panel.copy()
    odd.loc[odd["region"] == "d03", "sales"] = 40.0
    odd.loc[(odd["region"] == "d04") & (odd["week"] == 2), "sales"] = np.nan
    given = document(outcomes=["sales"])
    given["options"]["incomplete"] = "drop"
    _, found = fitted(spec_of(given), odd)
    assert all(item.reason is None for item in found)
    assert all(any("d04" in d.detail for d in item.diagnostics) for item in found)


def test_a_library_that_gives_up_is_a_reason(
    panel: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr("causal.quasi.synthetic_control.study", fails)
    _, found = fitted(spec_of(document(outcomes=["sales"])), panel)
    assert {item.reason for item in found} == {"LinAlgError: SVD did not converge"}
    assert {item.exit_code for item in found} == {CausalError.exit_code}
