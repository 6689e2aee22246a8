"""Doubly robust effects of ten million rows with twenty covariates, and EconML's of the same.

Each side runs in a process of its own. Double machine learning, cross-fitted in five folds, meets
EconML's LinearDML and LinearDRLearner on as many rows as these hold in 20 GB: the same scores, the
same kinds of models without a penalty, other folds. `weighting` (logistic propensity, AIPW,
sandwich errors) is measured beside.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import data, engine
from bench.harness import Bench, DisagreementError, Question, Record
from bench.own_process import LIMIT_MIB, found_by, peaks, usage_of, used

COVARIATES = tuple(f"x{number}" for number in range(data.N_COVARIATES))
_FOLDS = 5
_APART = 0.5
"""Standard errors by which estimates may differ: folds differ, and so does a nuisance model."""
_ERRORS = 0.1

_STUDY = {"outcome": "y", "treatment": "d", "covariates": list(COVARIATES)}
SPECS: dict[str, dict[str, Any]] = {
    "weighting": {"estimator": "aipw"},
    "dml": {"unit": "unit_id", "estimator": ["aipw", "plr"], "folds": _FOLDS},
}


def on_spark(folder: Path, *, memory: str, method: str, n_rows: int) -> dict[str, Any]:
    """The effect by a method of the suite, in a session that has done nothing before."""
    from causal.core import plan, registry
    from causal.core.spec import validate
    from transforms.gram import SparkEngine

    path = data.confounded(folder, n_rows=n_rows)
    session = engine.start(folder, memory=memory)
    chosen = registry.method(method)
    document = {"name": "bench", "source": {"table": "rows"}, "method": method}
    spec = validate(chosen.SPEC, document | {"options": _STUDY | SPECS[method]})
    effects: list[Any] = []
    n_passes = 0

    def work() -> None:
        nonlocal n_passes

        def asked(number: int, _: object) -> None:
            nonlocal n_passes
            n_passes = number

        rows = SparkEngine(session.read.parquet(str(path)))
        effects.extend(plan.run(chosen.estimate(spec), rows, on_request=asked).effects)

    cost = used(work)
    out = cost | peaks() | {"passes": n_passes}
    session.stop()
    return out | {"effects": {e.estimator: [e.estimate, e.std_error] for e in effects}}


def with_econml(folder: Path, *, n_rows: int) -> dict[str, Any]:
    """Both estimators of EconML on a frame in memory."""
    from econml.dml import LinearDML
    from econml.dr import LinearDRLearner
    from sklearn.linear_model import LinearRegression, LogisticRegression

    rows = pd.read_parquet(data.confounded(folder, n_rows=n_rows))
    y, d, x = rows["y"].to_numpy(), rows["d"].to_numpy(), rows[list(COVARIATES)].to_numpy()
    del rows
    logistic = LogisticRegression(C=np.inf, max_iter=1000)
    plr = LinearDML(
        model_y=LinearRegression(), model_t=logistic, discrete_treatment=True, cv=_FOLDS,
        random_state=1,
    )  # fmt: skip
    aipw = LinearDRLearner(
        model_propensity=logistic, model_regression=LinearRegression(), cv=_FOLDS,
        min_propensity=1e-9, random_state=1,
    )  # fmt: skip
    costs = {
        "plr": used(lambda: plr.fit(y, d, X=None, W=x)),
        "aipw": used(lambda: aipw.fit(y, d, X=None, W=x)),
    }
    effects = {}
    for name, fitted in (("plr", plr), ("aipw", aipw)):
        found = fitted.ate_inference(X=None, T0=0, T1=1)
        effects[name] = [float(found.mean_point), float(found.stderr_mean)]
    both = {name: sum(cost[name] for cost in costs.values()) for name in costs["plr"]}
    return both | peaks() | {"effects": effects, "each": costs}


def measure(question: Question, bench: Bench) -> Record:
    """CPU seconds of double machine learning over EconML's; memory and `weighting` beside."""
    n_rows = bench.size(10_000_000, small=20_000)
    data.confounded(bench.data, n_rows=n_rows)  # here: writing counts for nobody's memory
    weighting = found_by("bench.aipw", "weighting", bench.data, bench.memory, n_rows)
    ours = found_by("bench.aipw", "dml", bench.data, bench.memory, n_rows)
    peer = found_by("bench.aipw", "econml", bench.data, bench.memory, n_rows)
    check(ours["effects"], peer["effects"])
    costs = ("cpu_seconds", "wall_seconds", "python_mib", "jvm_mib", "passes", "effects")
    return Record(
        question=question.name, work=question.work, peer=question.peer, target=question.target,
        ratio=ours["cpu_seconds"] / peer["cpu_seconds"],
        wall_ratio=ours["wall_seconds"] / peer["wall_seconds"],
        ours=(usage_of(ours),), peer_runs=(usage_of(peer),), rows=n_rows,
        notes={
            "ratio_is": "of one run each, ours with a cold engine",
            "covariates": len(COVARIATES), "folds": _FOLDS,
            "weighting": {name: weighting[name] for name in costs},
            "dml": {name: ours[name] for name in costs},
            "econml": {name: peer[name] for name in ("each", "python_mib", "effects")},
            "is_below_2_gb": max(weighting["python_mib"], ours["python_mib"]) < LIMIT_MIB,
        },
    )  # fmt: skip


def check(ours: dict[str, list[float]], peer: dict[str, list[float]]) -> None:
    """Estimates agree within half a standard error, standard errors within a tenth."""
    for name, (estimate, std_error) in peer.items():
        own, own_error = ours[name]
        if abs(own - estimate) > _APART * std_error or abs(own_error / std_error - 1) > _ERRORS:
            raise DisagreementError(
                f"{name}: {own:.5f} ({own_error:.5f}) against {estimate:.5f} ({std_error:.5f})"
            )


QUESTIONS = (
    Question(
        name="aipw",
        work="AIPW and PLR, five folds, 10 M rows x 20 covariates",
        peer="EconML's LinearDRLearner and LinearDML, data in memory",
        target=2.0,
        measure=measure,
    ),
)

if __name__ == "__main__":
    SIDE, FOLDER, MEMORY, ROWS = sys.argv[1:]
    if SIDE == "econml":
        FOUND = with_econml(Path(FOLDER), n_rows=int(ROWS))
    else:
        FOUND = on_spark(Path(FOLDER), memory=MEMORY, method=SIDE, n_rows=int(ROWS))
    print(json.dumps(FOUND))
