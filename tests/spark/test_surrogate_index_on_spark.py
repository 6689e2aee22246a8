"""An experiment and the history that judges it are two tables of one analysis."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from causal.core.errors import CausalError, DataError, SpecError
from jobs.analyze import run_all
from jobs.runtime import analyses
from jobs.runtime.context import Context
from jobs.runtime.progress import Progress
from jobs.runtime.settings import Settings
from tests.unit.test_surrogate_index import EXPERIMENT, HISTORY, analysed

SPEC = """
name: vouchers
source: {path: trial.csv}
method: surrogate_index
options:
  unit: id
  variant: arm
  control: control
  cluster: home
  outcome: year
  surrogates: [visits, spend]
  covariates: [before]
  history: {path: history.csv}
"""


class Shared(Context):
    """A run on the session of the tests."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        super().__init__(settings=settings, progress=Progress())
        self.__dict__["session"] = spark


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    EXPERIMENT.drop(columns="year").to_csv(tmp_path / "trial.csv", index=False)
    HISTORY.drop(columns="arm").to_csv(tmp_path / "history.csv", index=False)
    (tmp_path / "vouchers.yaml").write_text(SPEC, encoding="utf-8")
    return tmp_path / "vouchers.yaml"


def test_two_tables_give_what_they_give_on_pandas(
    spark: SparkSession, settings: Settings, spec: Path
) -> None:
    context = Shared(spark, settings)
    (found,) = run_all(context, [spec])
    expected = analysed(cluster="home", covariates=["before"])

    for own, other in zip(found.result.effects, expected.effects, strict=True):
        assert own.estimator == other.estimator
        assert own.estimate == pytest.approx(other.estimate, rel=1e-8)
        assert own.std_error == pytest.approx(other.std_error, rel=1e-8)
        assert own.df == pytest.approx(other.df, rel=1e-8)
    assert set(found.bound.inputs) == {"trial.csv", "history.csv"}
    more = HISTORY.head(1400).drop(columns="arm")
    more.to_csv(spec.parent / "history.csv", index=False)
    assert analyses.bind(context, analyses.load(spec)).run_key != found.run_key


@pytest.mark.parametrize(
    ("history", "kind", "text"),
    [
        (HISTORY.drop(columns="spend"), SpecError, "surrogates.1: history: the source has no such"),
        (HISTORY.assign(year="long"), SpecError, "outcome: history: this column must hold numbers"),
        (HISTORY.head(1), DataError, "too few historical units with all values; given: 1"),
        (HISTORY.head(0), DataError, "history: the source has no rows"),
    ],
)
def test_a_history_that_will_not_do_is_one_line(
    spark: SparkSession,
    settings: Settings,
    spec: Path,
    history: object,
    kind: type[CausalError],
    text: str,
) -> None:
    history.to_csv(spec.parent / "history.csv", index=False)  # type: ignore[attr-defined]
    with pytest.raises(kind, match=text) as caught:
        run_all(Shared(spark, settings), [spec])
    assert "vouchers.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
