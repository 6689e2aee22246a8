"""Estimators for designs without unit-level randomisation."""
