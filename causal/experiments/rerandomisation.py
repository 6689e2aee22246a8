"""Thousands of re-randomised experiments at once: the formulas of `levels`, over a first axis.

Random buckets of units are given to the arms anew. A replicate's arm moments are sums over its
buckets, so that `r` replicates of `B` buckets are one matrix product, `(r, B) @ (B, moments)`, and
the estimator of `levels` is applied to all of them together. Shapes: `r` replicates, `p` terms,
`q` covariates, `S` strata; arms come control first.

The number of buckets that are treated is fixed. Since buckets hold a random number of units, the
arms' sizes vary as if each unit were assigned on its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causal.core.cross_products import COLLINEAR
from causal.core.gram import Array
from causal.experiments.bucket_moments import Pool, shift_matrix
from causal.experiments.cluster_moments import (
    ClusterSums,
    Pieces,
    clustered_pieces,
    quadratic_forms,
)
from causal.experiments.comparison import Inference
from causal.experiments.levels import CONTROL, TREATMENT, Quotient

CHUNK_BYTES = 2**22
"""Largest matrix of assignments or weights; one that leaves the processor's cache costs more."""


@dataclass(frozen=True)
class Sample:
    """One arm in one stratum, or a whole arm, in every replicate.

    Attributes:
        n: Rows, shape (r,).
        mean: Shape (r, p).
        cross: Centred cross-products, shape (r, p, p).
    """

    n: Array
    mean: Array
    cross: Array

    @property
    def covariance(self) -> Array:
        """Sample covariance, shape (r, p, p)."""
        return self.cross / _column(self.n - 1.0, self.cross)

    def moved(self, effect: float, quotient: Quotient) -> "Sample":
        """The same units with an effect on a mean or a ratio."""
        shift = shift_matrix(effect, quotient, size=self.mean.shape[1])
        mean = self.mean @ shift.T
        if quotient.denominator is None:
            mean[:, quotient.numerator] += effect
        return Sample(self.n, mean, shift @ self.cross @ shift.T)

    def merge(self, other: "Sample") -> "Sample":
        """Both together (Chan, Golub and LeVeque 1983)."""
        total = self.n + other.n
        share = other.n / np.where(total > 0, total, 1.0)
        step = other.mean - self.mean
        between = np.einsum("r,ri,rj->rij", self.n * share, step, step)
        return Sample(total, self.mean + share[:, None] * step, self.cross + other.cross + between)


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """Re-randomised experiments.

    Attributes:
        control: One sample per stratum.
        treatment: One sample per stratum.
        clusters: For clustered errors.
        is_sampled: Whether the strata's shares are a sample (post-stratification).
    """

    control: tuple[Sample, ...]
    treatment: tuple[Sample, ...]
    clusters: ClusterSums | None = None
    is_sampled: bool = False

    @property
    def arms(self) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
        """Control's and treatment's samples by stratum."""
        return self.control, self.treatment

    @property
    def plain(self) -> "Replicates":
        """Without strata."""
        if len(self.control) == 1:
            return self
        whole = [_merged(samples) for samples in self.arms]
        return Replicates(control=(whole[CONTROL],), treatment=(whole[TREATMENT],))

    def moved(self, effect: float, quotient: Quotient) -> "Replicates":
        """The same replicates with an effect in the treatment arm."""
        clusters = self.clusters
        if clusters is not None:
            shift = shift_matrix(effect, quotient, size=self.control[0].mean.shape[1])
            clusters = clusters.moved(shift)
        return Replicates(
            control=self.control,
            treatment=tuple(sample.moved(effect, quotient) for sample in self.treatment),
            clusters=clusters,
            is_sampled=self.is_sampled,
        )


@dataclass(frozen=True)
class Estimates:
    """What the estimator says in every replicate; each of shape (r,).

    Attributes:
        difference: Treatment level less control level.
        variance: Of the difference.
        df: Degrees of freedom, of both scales.
        control: Control level.
        treatment: Treatment level.
    """

    difference: Array
    variance: Array
    df: Array
    control: Array
    treatment: Array
    _variance_of: Callable[[Array], Array]

    @property
    def std_error(self) -> Array:
        """Standard error of the difference."""
        return np.sqrt(np.maximum(self.variance, 0.0))

    @property
    def is_usable(self) -> NDArray[np.bool_]:
        """Where there is a standard error."""
        return np.isfinite(self.std_error) & (self.std_error > 0) & (self.df > 0)

    @property
    def lift(self) -> Array:
        """Treatment over control level, less one; not finite where the control level is zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (self.treatment - self.control) / self.control

    @property
    def lift_error(self) -> Array:
        """Standard error of the lift by the delta method."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return self._error(np.array([-self.treatment / self.control**2, 1.0 / self.control]))

    @property
    def control_error(self) -> Array:
        """Standard error of the control level."""
        return self._error(np.array([np.ones_like(self.control), np.zeros_like(self.control)]))

    def error_at(self, lift: float) -> Array:
        """Standard error of `treatment - (1 + lift) control`, which Fieller's interval inverts."""
        one = np.ones_like(self.control)
        return self._error(np.array([-(1.0 + lift) * one, one]))

    def _error(self, contrast: Array) -> Array:
        return np.sqrt(np.maximum(self._variance_of(contrast), 0.0))


def weighed(pool: Pool, weights: Array) -> Sample:
    """The units of one stratum with the weights of their buckets, (r, B)."""
    return _sample(weights @ pool.moments, pool.center)


def samples(pool: Pool, assigned: Array) -> tuple[Sample, Sample]:
    """Control and treatment of one stratum when the buckets of `assigned`, (r, B), are treated."""
    treated = assigned @ pool.moments
    return _sample(pool.total - treated, pool.center), _sample(treated, pool.center)


def estimates(
    replicates: Replicates, quotients: Sequence[Quotient], how: Inference, *, is_adjusted: bool
) -> Estimates:
    """The estimator in every replicate; NaN where it has no result.

    Args:
        replicates: The re-randomised experiments.
        quotients: The outcome, then q covariates.
        how: How effects are estimated.
        is_adjusted: Whether the covariates are used.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        levels = _levels(replicates, quotients, how, is_adjusted=is_adjusted)
        return _estimates(replicates, levels, how)


@dataclass(frozen=True)
class _Levels:
    """As `levels.Levels`, over replicates: own (2, r, p), shared (r, p), shares (2, r)."""

    value: Array
    own: Array
    shared: Array
    shares: Array

    def slope(self, arm: int, contrast: Array) -> Array:
        """Derivative of `contrast' levels` in one arm's mean, (r, p); contrast (2, r)."""
        both = self.shares[arm] * contrast.sum(axis=0)
        slope = contrast[arm][:, None] * self.own[arm] + both[:, None] * self.shared
        return np.asarray(slope, dtype=np.float64)


def _levels(
    replicates: Replicates, quotients: Sequence[Quotient], how: Inference, *, is_adjusted: bool
) -> _Levels:
    control, treatment = _weighed(replicates, CONTROL), _weighed(replicates, TREATMENT)
    whole = (control, treatment)
    outcome = quotients[0]
    covariates = quotients[1:] if is_adjusted else ()
    used = (outcome, *covariates)
    thetas = _thetas(control, treatment, used, how) if covariates else np.zeros((len(control.n), 0))
    total = control.n + treatment.n
    shares = np.array([control.n / total, treatment.n / total])
    pooled = shares[CONTROL][:, None] * control.mean + shares[TREATMENT][:, None] * treatment.mean
    values, own = [], []
    for arm in whole:
        value, slope = _value(outcome, arm.mean), _gradient(outcome, arm.mean)
        for j, x in enumerate(covariates):
            value = value - thetas[:, j] * (_value(x, arm.mean) - _value(x, pooled))
            slope = slope - thetas[:, j, None] * _gradient(x, arm.mean)
        values.append(value)
        own.append(slope)
    shared = np.zeros_like(control.mean)
    for j, x in enumerate(covariates):
        shared = shared + thetas[:, j, None] * _gradient(x, pooled)
    return _Levels(np.array(values), np.array(own), shared, shares)


def _thetas(
    control: Sample, treatment: Sample, quotients: Sequence[Quotient], how: Inference
) -> Array:
    """CUPED coefficients, shape (r, q); NaN where the covariates do not identify them."""
    groups = (control.merge(treatment),) if how.theta == "total" else (control, treatment)
    cross = np.sum([_linearised(group, quotients) for group in groups], axis=0)
    inner, right = cross[:, 1:, 1:], cross[:, 1:, 0]
    scale = 1.0 / np.sqrt(np.diagonal(inner, axis1=1, axis2=2))
    scaled = inner * scale[:, :, None] * scale[:, None, :]
    is_known = np.isfinite(scaled).all(axis=(1, 2))
    is_known[is_known] = np.linalg.det(scaled[is_known]) > COLLINEAR
    safe = np.where(is_known[:, None, None], scaled, np.eye(inner.shape[1]))
    solved = np.linalg.solve(safe, (right * scale)[:, :, None])[:, :, 0] * scale
    return np.asarray(np.where(is_known[:, None], solved, np.nan), dtype=np.float64)


def _linearised(sample: Sample, quotients: Sequence[Quotient]) -> Array:
    gradients = np.stack([_gradient(item, sample.mean) for item in quotients], axis=1)
    return np.asarray(gradients @ sample.cross @ gradients.transpose(0, 2, 1), dtype=np.float64)


def _estimates(replicates: Replicates, levels: _Levels, how: Inference) -> Estimates:
    control, treatment = levels.value
    one = np.ones_like(control)
    found = _pieces(replicates, levels, np.array([-one, one]), how)
    df = _satterthwaite(found.variances, found.dfs)
    return Estimates(
        difference=treatment - control,
        variance=np.sum(found.variances, axis=0),
        df=df if found.ceiling is None else np.minimum(df, found.ceiling),
        control=control,
        treatment=treatment,
        _variance_of=lambda contrast: np.sum(
            _pieces(replicates, levels, contrast, how).variances, axis=0
        ),
    )


def _pieces(replicates: Replicates, levels: _Levels, contrast: Array, how: Inference) -> Pieces:
    """Independent parts of the variance of `contrast' levels`."""
    slopes = [levels.slope(arm, contrast) for arm in (CONTROL, TREATMENT)]
    if replicates.clusters is not None:
        whole = [arm[0] for arm in replicates.arms]
        return clustered_pieces(
            replicates.clusters, slopes, [arm.n for arm in whole], [arm.cross for arm in whole]
        )
    if len(replicates.control) > 1 or replicates.is_sampled:
        return _stratified_pieces(replicates, slopes)
    if how.variance == "pooled":
        return _pooled_pieces(replicates, levels, contrast)
    parts = [
        quadratic_forms(slope, arm[0].covariance) / arm[0].n
        for slope, arm in zip(slopes, replicates.arms, strict=True)
    ]
    return Pieces(parts, [arm[0].n - 1.0 for arm in replicates.arms])


def _stratified_pieces(replicates: Replicates, slopes: Sequence[Array]) -> Pieces:
    shares = _shares(replicates)
    parts, dfs = [], []
    for slope, arm in zip(slopes, replicates.arms, strict=True):
        for share, sample in zip(shares, arm, strict=True):
            parts.append(share**2 * quadratic_forms(slope, sample.covariance) / sample.n)
            dfs.append(sample.n - 1.0)
    if replicates.is_sampled and len(shares) > 1:
        control, treatment = (np.array([sample.mean for sample in arm]) for arm in replicates.arms)
        effects = (slopes[CONTROL] * control + slopes[TREATMENT] * treatment).sum(axis=2)
        total = _total(replicates)
        off = effects - (shares * effects).sum(axis=0)
        parts.append((shares * off**2).sum(axis=0) / total)
        dfs.append(total - 1.0)
    return Pieces(parts, dfs)


def _pooled_pieces(replicates: Replicates, levels: _Levels, contrast: Array) -> Pieces:
    samples_ = [arm[0] for arm in replicates.arms]
    df = np.sum([sample.n for sample in samples_], axis=0) - 2.0
    influence = np.zeros((len(df), 2, 2))
    for own, sample in zip(levels.own, samples_, strict=True):
        rows = np.stack([own, levels.shared], axis=1)
        influence += rows @ sample.cross @ rows.transpose(0, 2, 1)
    influence /= df[:, None, None]
    both = contrast.sum(axis=0)
    part = np.zeros(len(df))
    for arm, sample in enumerate(samples_):
        mixed = np.stack([contrast[arm], levels.shares[arm] * both], axis=1)
        part = part + quadratic_forms(mixed, influence) / sample.n
    return Pieces([part], [df])


def _satterthwaite(parts: Sequence[Array], dfs: Sequence[Array]) -> Array:
    if len(dfs) == 1:
        return dfs[0]
    largest = np.max(parts, axis=0)
    scaled = np.array(parts) / largest
    found = scaled.sum(axis=0) ** 2 / np.sum(scaled**2 / np.array(dfs), axis=0)
    return np.asarray(np.where(largest > 0, found, np.min(dfs, axis=0)), dtype=np.float64)


def _weighed(replicates: Replicates, arm: int) -> Sample:
    """A whole arm with the strata's shares in both arms together."""
    parts = replicates.arms[arm]
    if len(parts) == 1:
        return parts[0]
    shares = _shares(replicates)
    return Sample(
        np.sum([part.n for part in parts], axis=0),
        np.sum([s[:, None] * part.mean for s, part in zip(shares, parts, strict=True)], axis=0),
        np.sum([part.cross for part in parts], axis=0),
    )


def _shares(replicates: Replicates) -> Array:
    """Share of each stratum in both arms together, shape (S, r)."""
    counts = np.array([c.n + t.n for c, t in zip(*replicates.arms, strict=True)])
    return np.asarray(counts / counts.sum(axis=0), dtype=np.float64)


def _total(replicates: Replicates) -> Array:
    counts = [sample.n for arm in replicates.arms for sample in arm]
    return np.asarray(np.sum(counts, axis=0), dtype=np.float64)


def _merged(parts: Sequence[Sample]) -> Sample:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merge(part)
    return whole


def _sample(moments: Array, center: Array) -> Sample:
    """From sums (r, 1 + p + p(p+1)/2) around the centre."""
    size = len(center)
    rows, columns = np.triu_indices(size)
    n, first = moments[:, 0], moments[:, 1 : 1 + size]
    cross = np.zeros((len(moments), size, size))
    cross[:, rows, columns] = moments[:, 1 + size :]
    cross[:, columns, rows] = moments[:, 1 + size :]
    step = first / np.where(n > 0, n, 1.0)[:, None]
    return Sample(n, center + step, cross - np.einsum("ri,rj->rij", first, step))


def _value(quotient: Quotient, mean: Array) -> Array:
    top = mean[:, quotient.numerator]
    return top if quotient.denominator is None else top / mean[:, quotient.denominator]


def _gradient(quotient: Quotient, mean: Array) -> Array:
    out = np.zeros_like(mean)
    if quotient.denominator is None:
        out[:, quotient.numerator] = 1.0
        return out
    below = mean[:, quotient.denominator]
    out[:, quotient.numerator] = 1.0 / below
    out[:, quotient.denominator] = -_value(quotient, mean) / below
    return out


def _column(values: Array, like: Array) -> Array:
    return values.reshape((-1, *[1] * (like.ndim - 1)))
