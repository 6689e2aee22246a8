"""Experiments on regions: their design on the history, switchbacks, and what they return."""
