"""The same analysis where its answer is known: what a procedure says that should say nothing.

All of it by hashes of the unit, so that it costs passes but no rows leave the engine, and gives the
same numbers every time (Sharma and Kiciman 2020, "DoWhy").
"""

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from causal.core.frames import Between, FrameRequest, GramRequest, HashBucket, Linear, Product, Term
from causal.core.gram import gram
from causal.core.inference import two_sided_pvalue
from causal.core.result import Diagnostic
from causal.observational.cross_fitting import Sample
from causal.observational.orthogonal_moments import RatioEstimate
from causal.observational.study import CONTROL, TREATED, Arms, Study
from causal.regression.columns import DesignColumn

N_BUCKETS = 1_000_000
SUBSET_SHARE = 0.8
ALPHA = 0.01
"""A procedure that is right fails the placebo and the subset once in a hundred analyses."""
CHANGE = 0.5
"""Standard errors by which a random common cause may move the estimate."""
_SALTS = {"placebo": 7_919, "random_common_cause": 15_485_863, "subset": 32_452_843}


@dataclass(frozen=True, kw_only=True)
class Refutation:
    """An analysis whose answer is known.

    Attributes:
        name: Of the refuter.
        estimator: The estimator.
        found: Its answer.
        base: The answer of the analysis that was asked for.
    """

    name: str
    estimator: str
    found: RatioEstimate
    base: RatioEstimate

    @property
    def expected(self) -> float:
        """What the answer should be near."""
        return 0.0 if self.name == "placebo" else self.base.estimate

    def note(self) -> Diagnostic:
        """Whether it is."""
        gap = self.found.estimate - self.expected
        name = f"refute_{self.name}.{self.estimator}"
        if self.name == "random_common_cause":
            statistic, pvalue = gap / self.base.std_error, None
            passed = abs(statistic) <= CHANGE
            text = f"moves it by {abs(statistic):.3f} standard errors; {CHANGE:g} are allowed"
        else:
            statistic = gap / self._error()
            n_clusters = self.found.n_clusters
            df = None if n_clusters is None else n_clusters - 1
            pvalue = two_sided_pvalue(statistic, df=df)
            passed = pvalue >= ALPHA
            text = f"should be near {self.expected:.4g}: p = {pvalue:.3g}, alpha {ALPHA:g}"
        return Diagnostic(
            name=name,
            statistic=float(statistic),
            pvalue=pvalue,
            passed=passed,
            detail=f"{_WORDS[self.name]} gives {self.found.estimate:.4g} and {text}",
        )

    def _error(self) -> float:
        """The standard error of the gap; an estimate from a part of the rows shares them."""
        if self.name == "placebo":
            return self.found.std_error
        rest = self.found.std_error**2 - self.base.std_error**2
        return float(np.sqrt(rest)) if rest > 0 else self.found.std_error


_WORDS = {
    "placebo": "a treatment drawn by hash",
    "random_common_cause": "one more column, drawn by hash,",
    "subset": f"a random part of the rows ({SUBSET_SHARE:.0%})",
}


def refuting_sample(
    sample: Sample, name: str, *, unit: str, probability: float
) -> Generator[FrameRequest, pd.DataFrame, Sample]:
    """The sample of a refuter.

    Args:
        sample: That of the analysis.
        name: `placebo`, `random_common_cause` or `subset`.
        unit: Column of the unit.
        probability: Of the placebo's treatment.
    """
    salt = (sample.folds.salt + _SALTS[name]) % 2**62
    study = sample.study
    if name == "subset":
        part = HashBucket(sample.folds.column, N_BUCKETS, salt)
        keep = Between(part, high=SUBSET_SHARE * N_BUCKETS, is_closed=False)
        return replace(sample, keep=Product((*sample.kept, keep)))
    drawn = HashBucket(unit, N_BUCKETS, salt)
    if name == "placebo":
        edge = round(probability * N_BUCKETS)
        treated = Between(drawn, high=float(edge), is_closed=False)
        arms: tuple[Term, Term] = (Between(drawn, low=float(edge)), treated)
        return replace(sample, study=replace(study, is_arm=arms))
    column = DesignColumn(f"random {unit}", Linear((drawn,), (1.0 / N_BUCKETS,)), f"random {unit}")
    wider = replace(study, columns=(*study.columns, column))
    moments = yield from _arms(wider)
    return replace(sample, study=replace(wider, arms=moments))


def _arms(study: Study) -> Generator[FrameRequest, pd.DataFrame, Arms]:
    found = []
    for arm in (CONTROL, TREATED):
        request = GramRequest(terms=study.terms, weight=study.is_arm[arm], where=study.where)
        own = gram((yield request), request)
        found.append(replace(own, n=round(own.sum_weights)))
    return found[CONTROL], found[TREATED]


def refutation_table(found: list[Refutation]) -> pd.DataFrame:
    """One row per refuter and estimator."""
    return pd.DataFrame(
        [
            {
                "refuter": item.name, "estimator": item.estimator,
                "estimate": item.found.estimate, "std_error": item.found.std_error,
                "expected": item.expected,
            }
            for item in found
        ],
        columns=["refuter", "estimator", "estimate", "std_error", "expected"],
    )  # fmt: skip
