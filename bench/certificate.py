"""What a certificate adds to a readout: thousands of A/A re-randomisations of its own units."""

import time
from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench import data
from bench.harness import Bench, DisagreementError, Question, Sides, compare
from causal.core import plan
from causal.core.frames import Engine, FrameRequest
from causal.core.result import Result
from causal.core.spec import validate
from causal.core.stored_gram import StoredGramEngine
from causal.experiments import ab
from causal.experiments.ab_options import AbSpec
from transforms.gram import SparkEngine

REPLICATIONS = 5000
_OPTIONS = {
    "unit": "unit_id", "variant": "variant", "control": "control",
    "metrics": [
        {"name": "revenue", "type": "mean", "column": "revenue", "covariates": ["pre_revenue"]}
    ],
}  # fmt: skip


def spec_of(**options: Any) -> AbSpec:
    """The analysis, with or without a certificate."""
    return validate(
        ab.SPEC,
        {"name": "bench", "source": {"table": "units"}, "method": "ab", "seed": 1,
         "options": {**_OPTIONS, **options}},
    )  # fmt: skip


def readout(engine: SparkEngine) -> Result:
    """The readout's own passes: one row per unit, moments by arm."""
    return plan.run(ab.estimate(spec_of()), engine)


class Passes:
    """An engine that remembers its answers and when the last one came.

    Args:
        engine: Where the data are.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.answers: dict[FrameRequest, pd.DataFrame] = {}
        self.ended_at = 0.0

    @property
    def columns(self) -> Mapping[str, str]:
        """Column names and kinds."""
        return self._engine.columns

    def __call__(self, request: FrameRequest) -> pd.DataFrame:
        """The engine's answer."""
        self.answers[request] = self._engine(request)
        self.ended_at = time.process_time()
        return self.answers[request]


def prepare(bench: Bench) -> Sides:
    """Question: what a certificate costs beside the readout that it certifies."""
    n_units = bench.size(1_000_000, small=20_000)
    files = data.experiment_units(bench.data, n_units=n_units)
    units = bench.session().read.parquet(str(files))
    engine = SparkEngine(units)
    known = Passes(engine)
    plan.run(ab.estimate(spec_of()), known)
    asked = spec_of(certificate={"replications": REPLICATIONS})
    notes: dict[str, Any] = {"units": n_units, "replications": REPLICATIONS, "buckets": 10_000}

    def ours() -> Result:
        """The readout's passes are answered from memory: what remains are the certificate's."""
        passes = Passes(engine)
        stored = StoredGramEngine(known.answers.items(), otherwise=passes)
        result = plan.run(ab.estimate(asked), stored)
        notes["passes"] = len(passes.answers)
        notes["driver_cpu_seconds"] = time.process_time() - passes.ended_at
        return result

    return Sides(
        ours=ours,
        peer=lambda: readout(SparkEngine(units)),
        check=_check,
        rows=n_units,
        notes=notes,
        is_peer_on_spark=True,
    )


def _check(ours: Result, peer: Result) -> None:
    """The same effects; with no effect the certified tests reject about one time in twenty."""
    if ours.effects != peer.effects:
        pd.testing.assert_frame_equal(ours.to_frame(), peer.to_frame(), rtol=1e-9)
    table = ours.tables["certificate"]
    rates = table.loc[table["quantity"] == "type_one_error", "rate"]
    if not rates.between(0.03, 0.07).all():
        raise DisagreementError(f"type I errors {rates.tolist()}")


QUESTIONS = (
    Question(
        name="certificate",
        work="certificate: 5,000 re-randomisations of 1 M units, raw and CUPED, with a power curve",
        peer="the readout's own passes",
        target=0.5,
        measure=compare(prepare),
    ),
)
