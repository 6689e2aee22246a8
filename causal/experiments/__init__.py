"""Estimators for randomised experiments."""
