"""Causal estimators on aggregated frames: pure numpy and pandas, no Spark."""
