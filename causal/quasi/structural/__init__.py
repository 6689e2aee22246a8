"""Bayesian structural time series: states, coefficients, draws and what they say of an effect."""
