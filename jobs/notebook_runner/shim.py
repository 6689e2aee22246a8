"""What a Databricks notebook finds in its namespace: `spark`, `dbutils`, `display`, `displayHTML`.

Inside Databricks nothing of this is used; the runner puts it into the kernel elsewhere.
"""

import io
import json
import os
import re
import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import pandas as pd
from IPython.display import HTML, Image
from IPython.display import display as show
from matplotlib.figure import Figure
from pyspark.sql import DataFrame

from causal.core.errors import SpecError
from jobs.runtime.session import build_session
from jobs.runtime.settings import Settings

_MAX_ROWS = 1000
_SHOWN_ROWS = 30
_DPI = 110
_WIDGET = "CAUSALAKE_WIDGET_"
_SECRET = "CAUSALAKE_SECRET_"  # noqa: S105 - a prefix, not a secret


class NotebookExit(Exception):  # noqa: N818 - no error: how a notebook ends early
    """`dbutils.notebook.exit` was called; the message is the value."""


class Widgets:
    """`dbutils.widgets`: values by name, those given from outside over the defaults.

    A value comes from the run's own options, else from the environment
    (`CAUSALAKE_WIDGET_<NAME>`), else it is the default.

    Args:
        given: Values of the run's options.
    """

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = dict(given)
        self._values: dict[str, str] = {}

    def text(self, name: str, defaultValue: str, label: str = "") -> None:  # noqa: N803
        """A free text."""
        del label
        self._values[name] = self._chosen(name, defaultValue)

    def combobox(
        self,
        name: str,
        defaultValue: str,  # noqa: N803
        choices: Sequence[str],
        label: str = "",
    ) -> None:
        """One of the choices, or a text of one's own."""
        del choices, label
        self._values[name] = self._chosen(name, defaultValue)

    def dropdown(
        self,
        name: str,
        defaultValue: str,  # noqa: N803
        choices: Sequence[str],
        label: str = "",
    ) -> None:
        """One of the choices.

        Raises:
            SpecError: The value is none of them.
        """
        del label
        self._values[name] = self._one_of(name, [self._chosen(name, defaultValue)], choices)

    def multiselect(
        self,
        name: str,
        defaultValue: str,  # noqa: N803
        choices: Sequence[str],
        label: str = "",
    ) -> None:
        """Some of the choices, with commas between them.

        Raises:
            SpecError: A value is none of them.
        """
        del label
        chosen = [part.strip() for part in self._chosen(name, defaultValue).split(",")]
        self._values[name] = self._one_of(name, [part for part in chosen if part], choices)

    def get(self, name: str) -> str:
        """The value.

        Raises:
            SpecError: There is no such widget.
        """
        if name not in self._values:
            raise SpecError("no such widget", given=name, allowed=sorted(self._values))
        return self._values[name]

    def getAll(self) -> dict[str, str]:  # noqa: N802
        """All values by name."""
        return dict(self._values)

    def remove(self, name: str) -> None:
        """Take a widget away.

        Raises:
            SpecError: There is no such widget.
        """
        self.get(name)
        del self._values[name]

    def removeAll(self) -> None:  # noqa: N802
        """Take all widgets away."""
        self._values.clear()

    def _chosen(self, name: str, default: str) -> str:
        variable = _WIDGET + _variable(name)
        return self._given.get(name, os.environ.get(variable, default))

    def _one_of(self, name: str, values: Sequence[str], choices: Sequence[str]) -> str:
        for value in values:
            if value not in choices:
                raise SpecError(
                    "not a choice of this widget", given=value, allowed=list(choices), key=name
                )
        return ",".join(values)


class Secrets:
    """`dbutils.secrets`: from the environment only, `CAUSALAKE_SECRET_<SCOPE>_<KEY>`."""

    def get(self, scope: str, key: str) -> str:
        """The secret.

        Raises:
            SpecError: The variable is not set.
        """
        variable = _SECRET + _variable(f"{scope}_{key}")
        if variable not in os.environ:
            raise SpecError(
                "this secret is not set", allowed=f"the environment variable {variable}"
            )
        return os.environ[variable]


class Notebook:
    """`dbutils.notebook`."""

    def exit(self, value: str = "") -> None:
        """End the notebook here; what stands below is not run."""
        raise NotebookExit(value)


class DbUtils:
    """`dbutils`, as far as the notebooks of this suite use it.

    Attributes:
        widgets: Values given from outside.
        secrets: Secrets of the environment.
        notebook: How to end early.
    """

    def __init__(self, widgets: Mapping[str, str]) -> None:
        self.widgets = Widgets(widgets)
        self.secrets = Secrets()
        self.notebook = Notebook()


def install(namespace: MutableMapping[str, Any], *, settings: str, widgets: str) -> None:
    """Put what Databricks offers into a kernel's namespace.

    Args:
        namespace: The kernel's globals.
        settings: The run's settings as JSON.
        widgets: Values of widgets as a JSON object.
    """
    warnings.filterwarnings("ignore", message="IProgress not found")
    namespace.update(
        spark=build_session(Settings.model_validate_json(settings)),
        dbutils=DbUtils(json.loads(widgets)),
        display=display,
        displayHTML=display_html,
    )


def display(value: object) -> None:
    """Show a frame as a table, a matplotlib figure as a picture, anything else as it is."""
    if isinstance(value, DataFrame):
        value = value.limit(_MAX_ROWS).toPandas()
    if isinstance(value, pd.DataFrame):
        show(HTML(value.to_html(max_rows=_SHOWN_ROWS, index=False, border=0)))
    elif isinstance(value, Figure):
        show(Image(data=_png(value), format="png", alt=_title(value)))
    else:
        show(value)


def display_html(text: str) -> None:
    """Show HTML."""
    show(HTML(text))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight")
    return buffer.getvalue()


def _title(figure: Figure) -> str:
    """What a figure is called: for those who cannot see it."""
    placed = [axes.get_title(loc) for axes in figure.axes for loc in ("left", "center", "right")]
    return "; ".join(filter(None, [figure.get_suptitle(), *placed])) or "figure without a title"


def _variable(name: str) -> str:
    return re.sub(r"\W", "_", name).upper()
