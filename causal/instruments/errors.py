"""The one pass of scores behind all robust statistics of an instrumental-variable regression."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from causal.core.errors import InferenceError
from causal.core.frames import FrameRequest
from causal.core.gram import Array
from causal.instruments.first_stage import stage_scores
from causal.instruments.model import Model
from causal.instruments.options import IvOptions
from causal.instruments.specification_tests import (
    Augmented,
    Statistic,
    augmented,
    hansen,
    instrument_scores,
)
from causal.regression.sandwich import Errors, middle, reference_df, row_factor


@dataclass(frozen=True, kw_only=True)
class IvErrors:
    """Covariances of a model and the tests that come from the same pass.

    Attributes:
        coefficients: Of the reported coefficients, treatments first.
        stage: Covariance of (Z'v_y, Z'v_x).
        stage_df: Degrees of freedom of tests of the instruments; `None`: normal, chi-square.
        first_divisor: Rows less the coefficients of a first-stage equation.
        augmented: The regression of Wu and Hausman; `None` where it does not exist.
        exogeneity: Covariance of its first-stage residuals' coefficients.
        compliers: Of each mean among compliers.
        hansen: Hansen's J; `None`: classical errors, just identified or not available.
    """

    coefficients: Errors
    stage: Array
    stage_df: float | None
    first_divisor: int
    augmented: Augmented | None
    exogeneity: Errors | None
    compliers: tuple[Errors, ...]
    hansen: Statistic | None


def observe_errors(
    options: IvOptions, model: Model
) -> Generator[FrameRequest, pd.DataFrame, IvErrors]:
    """All covariances, with no pass for classical ones and one (or three) for the others."""
    shown = model.positions(has_intercept=options.absorb is None)
    wu_hausman = _augmented(model)
    n, n_units = model.main.n, model.main.n_absorbed
    first_divisor = n - model.stage.k - n_units
    if options.kind == "classical":
        return _classical(options, model, shown, wu_hausman)
    instruments, spread = instrument_scores(model.main)
    parts = [
        instruments,
        stage_scores(
            model.data.moments, model.stage, outcome=model.main.outcome,
            controls=model.data.controls,
        ),
        wu_hausman.scores if wu_hausman is not None else (),
        tuple(item.score() for item in model.compliers),
        instrument_scores(model.two_stage)[0] if model.two_stage is not model.main else (),
    ]  # fmt: skip
    found = yield from middle(
        [score for part in parts for score in part], errors=options, rows=model.data.rows
    )
    ends = np.cumsum([len(part) for part in parts])
    slices = [slice(end - len(part), end) for end, part in zip(ends, parts, strict=True)]

    def errors(covariance: Array, *, k: int, df_resid: float) -> Errors:
        factor = row_factor(options, n=n, k=model.data.n_counted(k))
        df = reference_df(options, n_clusters=found.n_clusters, df_resid=df_resid)
        return Errors(covariance=factor * covariance, df=df, n_clusters=found.n_clusters)

    influence = model.main.influence[shown] * spread
    total = influence @ found.matrix[slices[0], slices[0]] @ influence.T
    stage = errors(found.matrix[slices[1], slices[1]], k=model.stage.k, df_resid=first_divisor)
    compliers = found.matrix[slices[3], slices[3]]
    first_step = slices[4] if parts[4] else slices[0]
    return IvErrors(
        coefficients=errors(total, k=model.main.k, df_resid=model.main.df_resid),
        stage=stage.covariance,
        stage_df=stage.df,
        first_divisor=first_divisor,
        augmented=wu_hausman,
        exogeneity=None
        if wu_hausman is None
        else errors(
            found.matrix[slices[2], slices[2]],
            k=model.main.k + model.m, df_resid=wu_hausman.df_resid,
        ),
        compliers=tuple(
            errors(compliers[j : j + 1, j : j + 1], k=item.fit.k, df_resid=item.fit.df_resid)
            for j, item in enumerate(model.compliers)
        ),
        hansen=_hansen(model, found.plain[first_step, first_step], spread),
    )  # fmt: skip


def _classical(
    options: IvOptions, model: Model, shown: list[int], wu_hausman: Augmented | None
) -> IvErrors:
    n, n_units = model.main.n, model.main.n_absorbed

    def divisor(k: int) -> int:
        return n if options.factor == "none" else n - k - n_units

    def reference(df_resid: float) -> float | None:
        return reference_df(options, n_clusters=None, df_resid=df_resid)

    first_divisor = n - model.stage.k - n_units
    total = model.main.classical(divisor=divisor(model.main.k))[np.ix_(shown, shown)]
    return IvErrors(
        coefficients=Errors(
            covariance=total, df=reference(model.main.df_resid), n_clusters=None
        ),
        stage=model.stage.classical(divisor=divisor(model.stage.k)),
        stage_df=reference(first_divisor),
        first_divisor=first_divisor,
        augmented=wu_hausman,
        exogeneity=None
        if wu_hausman is None
        else Errors(
            covariance=wu_hausman.bread * (wu_hausman.rss / wu_hausman.df_resid),
            df=reference(wu_hausman.df_resid), n_clusters=None,
        ),
        compliers=tuple(
            Errors(
                covariance=item.fit.classical(divisor=divisor(item.fit.k))[
                    item.position : item.position + 1, item.position : item.position + 1
                ],
                df=reference(item.fit.df_resid), n_clusters=None,
            )
            for item in model.compliers
        ),
        hansen=None,
    )  # fmt: skip


def _augmented(model: Model) -> Augmented | None:
    """The regression of Wu and Hausman, unless the first stage fits exactly or rows run out."""
    try:
        found = augmented(
            model.data.moments, outcome=model.main.outcome, treatments=model.stage.treatments,
            controls=model.data.controls, instruments=model.stage.instruments,
        )  # fmt: skip
    except InferenceError:
        return None
    return found if found.df_resid > 0 else None


def _hansen(model: Model, plain: Array, spread: Array) -> Statistic | None:
    if model.q == model.m:
        return None
    try:
        return hansen(model.two_stage, plain, spread, n_treatments=model.m)
    except InferenceError:
        return None
