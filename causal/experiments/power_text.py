"""A plan in plain words."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from causal.core.result import Result


def sentences(result: Result) -> list[str]:
    """One sentence per row of the table `plan`."""
    return [_sentence(row) for row in result.tables["plan"].to_dict("records")]


def _sentence(row: Mapping[Any, Any]) -> str:
    parts = [_needed(row), _with_units(row)]
    said = "; ".join(part for part in parts if part) or "see the table by duration"
    return f"{row['metric']}, {row['term']} ({row['estimator']}): {said}"


def _needed(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["n_total"]):
        return ""
    power = f"{row['power']:.0%} power"
    if row["question"] == "non_inferiority":
        aim = f"to show that it is no worse than {_size(row, row['margin'])} with {power}"
    else:
        aim = f"to find {_size(row, row['mde'])} with {power}"
    clusters = "" if pd.isna(row["n_clusters"]) else f" in {row['n_clusters']:,} clusters"
    days = "" if pd.isna(row["total_days"]) else f", {row['total_days']} days"
    return f"{aim} it takes {row['n_total']:,} units{clusters}{days}"


def _with_units(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["units"]):
        return ""
    what = "margin" if row["question"] == "non_inferiority" else "effect"
    units = f"with {row['units']:,} units"
    if pd.isna(row["detectable_with_units"]):
        return f"{units} no {what} can be shown with {row['power']:.0%} power"
    found = f"{units} the smallest {what} is {_size(row, abs(row['detectable_with_units']))}"
    if pd.isna(row["power_with_units"]):
        return found
    return f"{found}, the power {row['power_with_units']:.0%}"


def _size(row: Mapping[Any, Any], value: float) -> str:
    return f"{value:.2%} of control" if row["scale"] == "relative" else f"{value:.3g}"
