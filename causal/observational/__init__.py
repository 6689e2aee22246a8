"""Treatments that nobody randomised: propensities, weights, matches, balance and sensitivity."""
