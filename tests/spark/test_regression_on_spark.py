"""Regressions on Spark that other tests do not reach, against statsmodels on the rows."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from pyspark.sql import SparkSession

from causal.core import registry
from causal.core.plan import run
from causal.core.spec import validate
from transforms.gram import SparkEngine


@pytest.mark.parametrize("covariance", ["HC2", "HC3"])
def test_leverage_of_many_columns(spark: SparkSession, covariance: str) -> None:
    """Squared residuals over a power of 1 - leverage: a function of a quadratic form of 14."""
    rng = np.random.default_rng(31)
    names = [f"x{at}" for at in range(14)]
    rows = pd.DataFrame(rng.gamma(1.0, size=(400, len(names))), columns=names)
    rows["y"] = rows.sum(axis=1) + rng.normal(size=len(rows)) * rows["x0"]
    method = registry.method("ols")
    spec = validate(
        method.SPEC,
        {
            "name": "wide", "source": {"table": "rows"}, "method": "ols",
            "options": {"outcome": "y", "numeric": names, "covariance": covariance},
        },
    )  # fmt: skip
    expected = sm.OLS(rows["y"], sm.add_constant(rows[names])).fit(cov_type=covariance)

    found = run(method.estimate(spec), SparkEngine(spark.createDataFrame(rows).repartition(3)))

    effects = {effect.term: effect for effect in found.effects}
    estimates = [effects[name].estimate for name in names]
    errors = [effects[name].std_error for name in names]
    np.testing.assert_allclose(estimates, expected.params[names], rtol=1e-9)
    np.testing.assert_allclose(errors, expected.bse[names], rtol=1e-9)
