"""Estimates that are no means, in the form that means have.

A quantile or a survival share is, up to a remainder that vanishes, its true value plus the mean of
its influence over the rows. Moments with the estimate for a mean and the influence's variance carry
it through everything that is made of means: differences, lifts, families, guardrails.
"""

import dataclasses

import numpy as np

from causal.core.gram import Gram
from causal.experiments.comparison import Comparison, Joint
from causal.experiments.metrics import Metric


def moments_of(metric: Metric, value: float, *, variance: float, n: int, n_missing: int) -> Gram:
    """Moments of one arm.

    Args:
        metric: The metric.
        value: The estimate.
        variance: Its variance.
        n: Rows behind it, at least two.
        n_missing: Rows left out.
    """
    cross = np.array([[variance * n * (n - 1.0)]])
    return Gram(metric.terms, n, n_missing, 0, float(n), np.array([value]), cross)


def named(comparison: Comparison, estimator: str) -> Comparison:
    """The same comparison under the estimator's own name.

    Args:
        comparison: Of moments as `moments_of` makes them.
        estimator: What its effects are called.
    """
    joint = comparison.joint
    if joint is None:
        parts = []
        for arm, gram in enumerate(comparison.moments):
            part = np.zeros((2, 2))
            part[arm, arm] = gram.covariance[0, 0] / gram.n
            parts.append(part)
        dfs = tuple(gram.n - 1.0 for gram in comparison.moments)
        joint = Joint(estimator=estimator, parts=tuple(parts), dfs=dfs)
    return dataclasses.replace(comparison, joint=dataclasses.replace(joint, estimator=estimator))
