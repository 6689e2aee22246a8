"""The report of an experiment as JSON: everything the scorecard shows, unrounded."""

import dataclasses
import json
import math
from typing import Any

import pandas as pd

from causal.core.result import EFFECT_COLUMNS
from causal.experiments.decision import Decision
from causal.scorecard.experiment_readout import ExperimentReadout, return_row
from causal.scorecard.looks import trusted_effects
from causal.scorecard.scorecard_content import Provenance

REPORT_VERSION = 1
"""Changes when a key of the report is renamed or taken away."""


def report(readout: ExperimentReadout, provenance: Provenance) -> dict[str, Any]:
    """The report as plain values: numbers, texts, lists and mappings.

    Infinite ends of intervals are the texts `Infinity` and `-Infinity`, missing numbers null.

    Args:
        readout: The experiment at one look.
        provenance: Where its numbers come from.
    """
    decisions = readout.decisions
    found = {
        "report_version": REPORT_VERSION,
        "experiment": readout.spec.name,
        "description": readout.spec.description,
        "as_of": readout.as_of.isoformat(),
        "look": readout.look,
        "n_looks": readout.look,
        "provenance": dataclasses.asdict(provenance),
        "recommended": decisions.recommended,
        "stops": list(readout.stops),
        "decisions": [_decision(readout, item) for item in decisions.decisions],
        "rule": decisions.rule.model_dump(mode="json"),
        "effects": [_effect(item) for item in trusted_effects(readout.result)],
        "sequential": {
            term: {
                "decision": tested.decision,
                "stopped_at": tested.stopped_at,
                "adjusted": None
                if tested.adjusted is None
                else dataclasses.asdict(tested.adjusted),
                "looks": _records(tested.to_frame()),
            }
            for term, tested in readout.sequential.items()
        },
        "posteriors": _records(readout.result.tables["posteriors"]),
        "roi": [return_row(term, item) for term, item in readout.roi.items()],
        "looks": _records(readout.result.tables["looks"]),
        "arms": _records(readout.result.tables["arms"]),
        "checks": [dataclasses.asdict(item) for item in readout.result.diagnostics],
    }
    plain: dict[str, Any] = _plain(found)
    return plain


def report_json(readout: ExperimentReadout, provenance: Provenance) -> str:
    """The report as JSON."""
    return json.dumps(report(readout, provenance), indent=2, allow_nan=False)


def _decision(readout: ExperimentReadout, decision: Decision) -> dict[str, Any]:
    table = readout.decisions.to_frame()
    row = table[table["term"] == decision.term].to_dict("records")[0]
    reasons = [dataclasses.asdict(reason) for reason in decision.reasons]
    guardrails = [
        {
            "metric": item.guardrail.metric,
            "margin": item.guardrail.margin,
            "prob_breach": item.prob_breach,
            "prob_better": item.gain.prob_positive,
        }
        for item in decision.guardrails
    ]
    return {str(name): value for name, value in row.items()} | {
        "reasons": reasons,
        "guardrails": guardrails,
    }


def _effect(effect: Any) -> dict[str, Any]:
    return {name: getattr(effect, name) for name in EFFECT_COLUMNS}


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    """Values that JSON has."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
    return value


def decision_rows(readout: ExperimentReadout) -> list[dict[str, Any]]:
    """One row per treatment: the decision, what the sequential test says, and the return."""
    rows = []
    for decision in readout.decisions.decisions:
        row = _decision(readout, decision)
        reasons = _plain(row.pop("reasons"))
        del row["guardrails"]
        tested, found = readout.sequential.get(decision.term), readout.roi.get(decision.term)
        rows.append(
            {
                "experiment": readout.spec.name,
                "as_of_on": readout.as_of,
                "look": readout.look,
                **row,
                "reasons": json.dumps(reasons, allow_nan=False),
                "sequential_decision": None if tested is None else tested.decision,
                "sequential_pvalue": None if tested is None else tested.looks[-1].pvalue,
                "profit_per_year": None if found is None else found.profit_per_year.mean,
                "profit_lower": None if found is None else found.profit_per_year.ci_lower,
                "profit_upper": None if found is None else found.profit_per_year.ci_upper,
                "prob_profit": None if found is None else found.prob_positive,
                "cost_per_year": None if found is None else found.cost_per_year,
            }
        )
    return rows
