"""Experiments on whole cities, and within cities whose drivers affect each other."""
