"""Whether instruments can be trusted: strength, exclusion as far as it can be tested, exogeneity.

Weak instruments: the effective F of Montiel Olea and Pflueger (2013) against its critical value for
a worst-case bias of a tenth. A rule of thumb such as F > 10 has no basis when errors are robust.
"""

from collections.abc import Sequence

from causal.checks.panel_health import note
from causal.core.result import Diagnostic
from causal.instruments.anderson_rubin import Interval, in_words
from causal.instruments.first_stage import Strength

TOLERATED = 0.10
"""Share of the worst-case bias beyond which instruments count as weak."""


def first_stage_f(f: float, *, q: int, df: float, suffix: str = "") -> Diagnostic:
    """The first-stage F under independent errors of equal variance."""
    return _f_test(f"first_stage_f{suffix}", f, q=q, df=df, kind="classical")


def robust_first_stage_f(f: float, *, q: int, df: float | None, suffix: str = "") -> Diagnostic:
    """The first-stage F with the covariance of the analysis."""
    return _f_test(f"first_stage_f_robust{suffix}", f, q=q, df=df, kind="robust")


def no_robust_f(reason: str, *, suffix: str = "") -> Diagnostic:
    """Why there is no robust first-stage F."""
    return note(f"first_stage_f_robust{suffix}", None, f"no robust first-stage F: {reason}")


def effective_f(found: Strength) -> Diagnostic:
    """The effective F; it fails where a bias beyond what is tolerated cannot be ruled out."""
    critical = found.critical_values[TOLERATED]
    listed = ", ".join(f"{share:.0%}: {v:.4g}" for share, v in found.critical_values.items())
    is_strong = found.effective_f >= critical
    verdict = (
        "the instruments are strong"
        if is_strong
        else "the instruments may be weak: read the Anderson-Rubin set, not the interval"
    )
    return Diagnostic(
        name="effective_f",
        statistic=found.effective_f,
        pvalue=None,
        passed=is_strong,
        detail=f"{verdict}; effective F {found.effective_f:.4g}, critical values at 5% by "
        f"tolerated share of the worst-case bias: {listed}",
    )


def no_effective_f() -> Diagnostic:
    """The effective F where the covariance of the first stage is not positive."""
    return note("effective_f", None, "no effective F: the first stage's covariance is not positive")


def cragg_donald(f: float) -> Diagnostic:
    """The Cragg-Donald F of several treatments, for information."""
    return note(
        "cragg_donald_f", f, f"Cragg-Donald F {f:.4g}, the first stage in its weakest direction"
    )


def underidentification(found: tuple[float, float, float]) -> Diagnostic:
    """Anderson's canonical correlation test; it fails where nothing speaks for identification."""
    statistic, pvalue, df = found
    is_identified = pvalue < 0.05  # noqa: PLR2004
    verdict = "identified" if is_identified else "the data do not rule out that nothing identifies"
    return Diagnostic(
        name="underidentification", statistic=statistic, pvalue=pvalue, passed=is_identified,
        detail=f"{verdict}; Anderson LM chi2({df:g}) = {statistic:.4g}, p = {pvalue:.3g}",
    )  # fmt: skip


def anderson_rubin(
    statistic: float, pvalue: float, *, intervals: tuple[Interval, ...] | None, level: float
) -> Diagnostic:
    """The test of no effect and the set of effects that are not rejected, in words."""
    detail = f"no effect at all: p = {pvalue:.3g}, right however weak the instruments are"
    if intervals is not None:
        detail += f"; {level:.0%} set of the effect: {in_words(intervals)}"
    return Diagnostic(
        name="anderson_rubin", statistic=statistic, pvalue=pvalue, passed=None, detail=detail
    )


def no_anderson_rubin(reason: str) -> Diagnostic:
    """Why there is no Anderson-Rubin test."""
    return note("anderson_rubin", None, f"no Anderson-Rubin test: {reason}")


def wu_hausman(statistic: float, pvalue: float, *, df: tuple[float, float]) -> Diagnostic:
    """Whether least squares would do: the test of Wu and Hausman."""
    return Diagnostic(
        name="wu_hausman", statistic=statistic, pvalue=pvalue, passed=None,
        detail=f"F({df[0]:g}, {df[1]:g}) = {statistic:.4g} that least squares would do, "
        f"p = {pvalue:.3g}",
    )  # fmt: skip


def robust_wu_hausman(statistic: float, pvalue: float) -> Diagnostic:
    """The same with the covariance of the analysis."""
    return Diagnostic(
        name="wu_hausman_robust", statistic=statistic, pvalue=pvalue, passed=None,
        detail=f"{statistic:.4g} with robust errors that least squares would do, p = {pvalue:.3g}",
    )  # fmt: skip


def no_wu_hausman() -> Diagnostic:
    """The test of Wu and Hausman where the first stage leaves nothing to test with."""
    return note("wu_hausman", None, "no Wu-Hausman test: the first stage leaves no residuals")


def sargan(found: tuple[float, float, float], *, alpha: float | None) -> Diagnostic:
    """Sargan's test that the instruments agree.

    Args:
        found: Statistic, p-value, degrees of freedom.
        alpha: It fails below this p-value; `None`: for information.
    """
    return _agreement("sargan", "Sargan", found, alpha=alpha)


def hansen(found: tuple[float, float, float], *, alpha: float) -> Diagnostic:
    """Hansen's J, which allows for the covariance of the analysis."""
    return _agreement("hansen_j", "Hansen J", found, alpha=alpha)


def no_hansen() -> Diagnostic:
    """Hansen's J where the instruments' moments have no inverse covariance."""
    return note(
        "hansen_j", None, "no Hansen J: the covariance of the instruments' moments is singular"
    )


def just_identified() -> Diagnostic:
    """Nothing to test with as many instruments as treatments."""
    return note(
        "overidentification", None,
        "as many instruments as treatments: whether they may be left out of the outcome's equation "
        "cannot be tested",
    )  # fmt: skip


def dropped_instruments(names: Sequence[str]) -> Diagnostic:
    """Instruments that the others explain."""
    return note("dropped_instruments", len(names), f"redundant: {', '.join(names)}")


def complier_share(share: float, *, always: float, never: float, is_reversed: bool) -> Diagnostic:
    """How many units the instrument moves."""
    way = " (it lowers the treatment)" if is_reversed else ""
    return note(
        "complier_share", share,
        f"{share:.1%} of the units are moved by the instrument{way}, {always:.1%} are treated "
        f"and {never:.1%} untreated whatever it says, if it moves nobody the other way",
    )  # fmt: skip


def _f_test(name: str, f: float, *, q: int, df: float | None, kind: str) -> Diagnostic:
    from scipy import stats

    if df is None:
        pvalue = float(stats.chi2.sf(f * q, q))
        text = f"chi2({q}) / {q}"
    else:
        pvalue = float(stats.f.sf(f, q, df))
        text = f"F({q}, {df:g})"
    return Diagnostic(
        name=name, statistic=f, pvalue=pvalue, passed=None,
        detail=f"{kind} {text} = {f:.4g} that the instruments do not move the treatment",
    )  # fmt: skip


def _agreement(
    name: str, title: str, found: tuple[float, float, float], *, alpha: float | None
) -> Diagnostic:
    statistic, pvalue, df = found
    verdict = ""
    if alpha is not None:
        agrees = "the instruments agree" if pvalue >= alpha else "the instruments contradict"
        verdict = f"{agrees} each other; "
        verdict = verdict.replace("agree each", "agree with each")
    return Diagnostic(
        name=name, statistic=statistic, pvalue=pvalue,
        passed=None if alpha is None else pvalue >= alpha,
        detail=f"{verdict}{title} chi2({df:g}) = {statistic:.4g}, p = {pvalue:.3g}",
    )  # fmt: skip
