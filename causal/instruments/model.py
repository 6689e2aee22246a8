"""An instrumental-variable regression with everything that is computed beside it."""

from collections.abc import Mapping
from dataclasses import dataclass

from causal.core.frames import Term
from causal.instruments.compliers import ComplierMean
from causal.instruments.estimands import Meaning
from causal.instruments.first_stage import Stage
from causal.regression.data import RegressionData
from causal.regression.equation import Equation


@dataclass(frozen=True, kw_only=True)
class Model:
    """The regression of one outcome.

    Attributes:
        metric: The outcome.
        main: The regression asked for; regressors are absorbed effects, covariates, treatments.
        two_stage: Two-stage least squares of the same (the same object where asked for).
        least_squares: The regression without instruments.
        stage: First stage and reduced form.
        data: What it was computed from.
        names: Names of treatments and instruments.
        dropped: Names of redundant instruments that were left out.
        compliers: Means among compliers; empty unless treatment and instrument are 0/1.
        meaning: What the coefficients of the treatments stand for.
    """

    metric: str
    main: Equation
    two_stage: Equation
    least_squares: Equation
    stage: Stage
    data: RegressionData
    names: Mapping[Term, str]
    dropped: tuple[str, ...]
    compliers: tuple[ComplierMean, ...]
    meaning: Meaning

    @property
    def m(self) -> int:
        """Number of treatments."""
        return self.stage.m

    @property
    def q(self) -> int:
        """Number of instruments."""
        return self.stage.q

    @property
    def treatment_positions(self) -> list[int]:
        """Where the treatments stand among the coefficients."""
        return list(range(self.main.k - self.m, self.main.k))

    def positions(self, *, has_intercept: bool) -> list[int]:
        """Reported coefficients: treatments first, then the intercept and the covariates."""
        start = self.main.n_first + len(self.data.effects)
        covariates = list(range(start, self.main.k - self.m))
        first = [0] if self.main.n_first and has_intercept else []
        return [*self.treatment_positions, *first, *covariates]

    def coefficient_names(self, *, has_intercept: bool) -> list[str]:
        """Names of the reported coefficients."""
        first = ["intercept"] if self.main.n_first and has_intercept else []
        treatments = [self.names[term] for term in self.stage.treatments]
        return [*treatments, *first, *(column.name for column in self.data.columns)]
