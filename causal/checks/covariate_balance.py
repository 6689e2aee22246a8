"""Pre-period balance: randomisation cannot have moved what was measured before it."""

from collections.abc import Sequence

from causal.core.errors import InferenceError
from causal.core.gram import Array
from causal.core.inference import hotelling, wald
from causal.core.result import Diagnostic


def check(
    differences: Array,
    covariance: Array,
    *,
    covariates: Sequence[str],
    subject: str,
    alpha: float,
    df: float | None = None,
) -> Diagnostic:
    """Joint Wald test that no covariate differs between two arms.

    Args:
        differences: Treatment less control level of each covariate, shape (q,).
        covariance: Their covariance, shape (q, q).
        covariates: Their names.
        subject: What is compared, for the diagnostic's name.
        alpha: The check fails when the p-value is below it.
        df: Degrees of freedom of the covariance (Hotelling); `None`: a large sample, chi-square.
    """
    listed = ", ".join(covariates)
    name = f"covariate_balance.{subject}"
    try:
        statistic, pvalue = (
            wald(differences, covariance)
            if df is None
            else hotelling(differences, covariance, df=df)
        )
    except InferenceError as error:
        return Diagnostic(
            name=name,
            statistic=None,
            pvalue=None,
            passed=None,
            detail=f"balance of {listed} cannot be tested: {error}",
        )
    passed = pvalue >= alpha
    verdict = "the arms were alike before" if passed else "the arms differed before the experiment"
    return Diagnostic(
        name=name,
        statistic=statistic,
        pvalue=pvalue,
        passed=passed,
        detail=f"{verdict}: {listed}; joint p = {pvalue:.3g}, alpha {alpha:g}",
    )
