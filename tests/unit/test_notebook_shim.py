"""`dbutils` outside Databricks: widgets, secrets, exit, display."""

import json

import pandas as pd
import pytest
from matplotlib.figure import Figure

from causal.core.errors import SpecError
from jobs.notebook_runner import shim
from jobs.notebook_runner.shim import DbUtils, NotebookExit


def test_widgets_have_their_defaults() -> None:
    widgets = DbUtils({}).widgets
    widgets.text("size", "1000", "Size")
    widgets.dropdown("scale", "absolute", ["absolute", "relative"])
    widgets.combobox("region", "US-01", ["US-01", "US-02"])
    widgets.multiselect("metrics", "minutes", ["minutes", "revenue"])
    assert widgets.getAll() == {
        "size": "1000",
        "scale": "absolute",
        "region": "US-01",
        "metrics": "minutes",
    }


def test_values_given_win_over_the_environment_and_it_over_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CAUSALAKE_WIDGET_SIZE", "7")
    monkeypatch.setenv("CAUSALAKE_WIDGET_START_WEEK", "3")
    widgets = DbUtils({"size": "5"}).widgets
    widgets.text("size", "1")
    widgets.text("start week", "2")
    assert (widgets.get("size"), widgets.get("start week")) == ("5", "3")


@pytest.mark.parametrize("kind", ["dropdown", "multiselect"])
def test_a_value_that_is_no_choice_is_refused(kind: str) -> None:
    widgets = DbUtils({"scale": "logarithmic"}).widgets
    with pytest.raises(SpecError, match="not a choice"):
        getattr(widgets, kind)("scale", "absolute", ["absolute", "relative"])


def test_a_combobox_takes_a_text_of_ones_own_and_several_may_be_selected() -> None:
    widgets = DbUtils({"region": "elsewhere", "metrics": "minutes, revenue"}).widgets
    widgets.combobox("region", "US-01", ["US-01"])
    widgets.multiselect("metrics", "minutes", ["minutes", "revenue"])
    assert (widgets.get("region"), widgets.get("metrics")) == ("elsewhere", "minutes,revenue")


def test_widgets_can_be_removed() -> None:
    widgets = DbUtils({}).widgets
    widgets.text("a", "1")
    widgets.text("b", "2")
    widgets.remove("a")
    assert widgets.getAll() == {"b": "2"}
    widgets.removeAll()
    with pytest.raises(SpecError, match="no such widget"):
        widgets.get("b")
    with pytest.raises(SpecError, match="no such widget"):
        widgets.remove("b")


def test_secrets_come_from_the_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = DbUtils({}).secrets
    with pytest.raises(SpecError, match="CAUSALAKE_SECRET_STORE_API_KEY"):
        secrets.get("store", "api-key")
    monkeypatch.setenv("CAUSALAKE_SECRET_STORE_API_KEY", "hidden")
    assert secrets.get("store", "api-key") == "hidden"


def test_exit_carries_its_value() -> None:
    with pytest.raises(NotebookExit, match="done"):
        DbUtils({}).notebook.exit("done")


def test_display_shows_tables_pictures_and_html(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(shim, "show", seen.append)
    shim.display(pd.DataFrame({"n": [1, 2]}))
    figure = Figure()
    figure.subplots().plot([0, 1])
    shim.display(figure)
    shim.display_html("<b>x</b>")
    shim.display(json.dumps({}))
    table, picture, html, text = seen
    assert "<table" in table._repr_html_()  # type: ignore[attr-defined]
    assert picture.data.startswith(b"\x89PNG")  # type: ignore[attr-defined]
    assert html._repr_html_() == "<b>x</b>"  # type: ignore[attr-defined]
    assert text == "{}"
