"""The figures of an experiment."""

import io

import numpy as np
import pandas as pd
import pytest

from causal.core.pandas_engine import PandasEngine
from causal.core.plan import run
from causal.core.spec import validate
from causal.experiments import ab


@pytest.mark.parametrize(
    ("covariates", "names"),
    [
        (["before"], {"arm_levels", "effects_absolute", "effects_relative", "cuped_against_raw"}),
        ([], {"arm_levels", "effects_absolute", "effects_relative"}),
    ],
)
def test_figures_show_every_metric_and_draw(covariates: list[str], names: set[str]) -> None:
    rng = np.random.default_rng(0)
    n = 300
    frame = pd.DataFrame(
        {
            "id": np.arange(n),
            "arm": np.array(["control", "light", "full"])[np.arange(n) % 3],
            "y": rng.normal(10, 1, n),
            "z": rng.integers(0, 2, n),
            "before": rng.normal(size=n),
        }
    )
    metrics = [
        {"name": "minutes", "type": "mean", "column": "y", "covariates": covariates},
        {"name": "retained", "type": "proportion", "column": "z"},
    ]
    options = {"unit": "id", "variant": "arm", "control": "control", "metrics": metrics}
    data = {"name": "x", "source": {"table": "t"}, "method": "ab", "options": options}
    spec = validate(ab.SPEC, data)
    result = run(ab.estimate(spec), PandasEngine(frame))
    drawn = ab.figures(spec, result)
    assert set(drawn) == names
    for figure in drawn.values():
        target = io.BytesIO()
        figure.savefig(target, format="png", dpi=60)
        assert target.getbuffer().nbytes > 2000
    titles = [axes.get_title(loc="left") for axes in drawn["effects_absolute"].axes]
    assert titles == ["minutes", "retained"]
    ticks = [label.get_text() for label in drawn["effects_relative"].axes[0].get_yticklabels()]
    assert ticks[0] == "minutes: full - control"
    assert len(ticks) == 4


def test_figures_of_strata_segments_and_families() -> None:
    rng = np.random.default_rng(1)
    n = 600
    frame = pd.DataFrame(
        {
            "id": np.arange(n),
            "arm": np.array(["control", "light", "full"])[np.arange(n) % 3],
            "tier of user": rng.choice(["basic", "gold"], n),
            "y": rng.normal(10, 1, n),
            "z": rng.integers(0, 2, n),
        }
    )
    options = {
        "unit": "id", "variant": "arm", "control": "control",
        "metrics": [
            {"name": "minutes", "type": "mean", "column": "y", "role": "primary"},
            {"name": "lost", "type": "proportion", "column": "z", "role": "guardrail"},
        ],
        "strata": ["tier of user"], "segments": ["tier of user"],
        "multiplicity": {"correction": "bonferroni"},
    }  # fmt: skip
    data = {"name": "x", "source": {"table": "t"}, "method": "ab", "options": options}
    spec = validate(ab.SPEC, data)
    drawn = ab.figures(spec, run(ab.estimate(spec), PandasEngine(frame)))
    assert set(drawn) == {
        "arm_levels", "effects_absolute", "effects_relative", "strata_against_raw",
        "effects_corrected", "segments_tier_of_user",
    }  # fmt: skip
    segments = drawn["segments_tier_of_user"]
    titles = [axes.get_title(loc="left") for axes in segments.axes]
    assert titles == [f"{m}: {t} - control" for m in ("minutes", "lost") for t in ("full", "light")]
    ticks = [label.get_text() for label in segments.axes[0].get_yticklabels()]
    assert [tick.split(" (")[0] for tick in ticks] == ["all", "basic", "gold"]
    corrected = drawn["effects_corrected"]
    assert [axes.get_title(loc="left") for axes in corrected.axes] == ["minutes"]
    for figure in drawn.values():
        target = io.BytesIO()
        figure.savefig(target, format="png", dpi=60)
        assert target.getbuffer().nbytes > 2000
