"""The options of the method `ab`, and which of them go together."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.checks.certificate import CertificateOptions
from causal.core.frames import Level
from causal.core.spec import Part, Spec
from causal.experiments.arms import ClusterCorrection
from causal.experiments.comparison import RelativeInterval, Variance
from causal.experiments.families import Multiplicity, families_of
from causal.experiments.levels import Theta
from causal.experiments.metrics import ColumnName, Metric, columns_of, outcome_columns
from causal.experiments.segments import Clusters
from causal.experiments.strata import Stratification

MAX_CLUSTER_COLUMNS = 2


class OtherExperiment(Part):
    """Another experiment that runs on the same units.

    Attributes:
        variant: Column of its arm; null: the unit is not in it.
        control: Its control arm.
    """

    variant: ColumnName
    control: Level


class AbOptions(Part):
    """Options of the method `ab`.

    Attributes:
        unit: Column of the unit; it must identify a row.
        variant: Column of the arm.
        control: The arm that the others are compared with.
        treatments: The arms to compare; all others if left out.
        cluster: Column of the clusters that were randomised, such as a household, or two columns
            of clusters that cross.
        metrics: The outcomes.
        variance: `welch`: each arm its own; `pooled`: one for all (not with `cluster` or `strata`).
        cluster_correction: `cr1`: `G/(G-1) * (N-1)/(N-k)` with k arms; `cr0` or `none`: 1; `cr3`:
            the cluster jackknife, for few clusters or unequal ones.
        theta: CUPED coefficients from the covariance over both arms together (`total`, as Deng et
            al. 2013 and tea-tasting) or around each arm's mean (`within`, as the regression on
            treatment and covariates). They differ by a term that randomisation makes small.
        relative_interval: How the interval of a lift is made: `delta` expands the quotient,
            `fieller` inverts the test of the difference and needs no expansion.
        population_sizes: Size of the finite population behind each arm, where the arms are samples
            without replacement whose populations are the target; variances are multiplied by the
            share that is not observed.
        strata: Columns of strata that weigh the arms alike.
        stratification: Whether the strata's shares are a sample (`post_stratified`) or given by
            the design (`blocked`).
        segments: Columns by which effects are shown one by one, known before the treatment.
        multiplicity: Families of effects that are corrected together.
        interaction: Another experiment on the same units.
        power: Power at which the smallest effect that could be found is stated.
        expected_shares: Planned share of each variant, as shares or weights. Without it the arms
            are compared with equal shares for information (`assumed_sample_ratio`); stated, a
            mismatch stops the decision.
        srm_alpha: The sample-ratio check fails below this p-value.
        certificate: How the estimators are certified on the units of this experiment; not if left
            out.
    """

    unit: ColumnName
    variant: ColumnName
    control: Level
    treatments: tuple[Level, ...] | None = Field(default=None, min_length=1)
    cluster: ColumnName | Annotated[tuple[ColumnName, ...], Field(min_length=1)] | None = None
    metrics: tuple[Metric, ...] = Field(min_length=1)
    variance: Variance = "welch"
    cluster_correction: ClusterCorrection = "cr1"
    theta: Theta = "total"
    relative_interval: RelativeInterval = "delta"
    population_sizes: (
        Annotated[dict[Level, Annotated[int, Field(gt=1, strict=True)]], Field(min_length=1)] | None
    ) = None
    strata: tuple[ColumnName, ...] | None = Field(default=None, min_length=1)
    stratification: Stratification = "post_stratified"
    segments: tuple[ColumnName, ...] | None = Field(default=None, min_length=1)
    multiplicity: Multiplicity | None = None
    interaction: OtherExperiment | None = None
    power: float = Field(default=0.8, gt=0, lt=1)
    expected_shares: dict[Level, float] | None = None
    srm_alpha: float = Field(default=0.0005, gt=0, lt=1)
    certificate: CertificateOptions | None = None

    @property
    def clusters(self) -> tuple[str, ...]:
        """The cluster columns."""
        if self.cluster is None:
            return ()
        return (self.cluster,) if isinstance(self.cluster, str) else self.cluster

    @property
    def inference_clusters(self) -> Clusters | None:
        """The cluster columns with their correction; `None` for independent units."""
        if not self.clusters:
            return None
        return Clusters(columns=self.clusters, correction=self.cluster_correction)

    @model_validator(mode="after")
    def _roles_differ(self) -> "AbOptions":
        if len(self.clusters) > MAX_CLUSTER_COLUMNS:
            raise ValueError("cluster is one column or two")
        roles = [self.unit, self.variant, *self.clusters]
        if len(set(roles)) < len(roles):
            raise ValueError("unit, variant and cluster must be different columns")
        for metric in self.metrics:
            shared = columns_of(metric).intersection(roles)
            if shared:
                raise ValueError(
                    f"metric {metric.name}: {min(shared)} is the unit, variant or cluster"
                )
        return self

    @model_validator(mode="after")
    def _slices_are_other_columns(self) -> "AbOptions":
        other = () if self.interaction is None else (self.interaction.variant,)
        taken = {self.unit, self.variant}
        for key, columns in (
            ("strata", self.strata or ()),
            ("segments", self.segments or ()),
            ("interaction", other),
        ):
            repeated = [name for name in columns if columns.count(name) > 1]
            if repeated:
                raise ValueError(f"{key}: {repeated[0]} is listed twice")
            outcomes = {name for metric in self.metrics for name in outcome_columns(metric)}
            wrong = [name for name in columns if name in taken | outcomes]
            if wrong:
                raise ValueError(f"{key}: {wrong[0]} is the unit, the variant or an outcome")
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> "AbOptions":
        names = [metric.name for metric in self.metrics]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"two metrics are called {repeated[0]}")
        treatments = self.treatments or ()
        if len(set(treatments)) < len(treatments):
            raise ValueError("a treatment is listed twice")
        if self.control in treatments:
            raise ValueError(f"control {self.control} is listed as a treatment")
        return self

    @model_validator(mode="after")
    def _shares_fit_arms(self) -> "AbOptions":
        if self.expected_shares is None:
            return self
        bad = [level for level, share in self.expected_shares.items() if not share > 0]
        if bad:
            raise ValueError(f"the expected share of {bad[0]} must be positive")
        arms = (self.control, *(self.treatments or ()))
        named = {str(level) for level in self.expected_shares}
        without = [level for level in arms if str(level) not in named]
        if without:
            raise ValueError(f"variant {without[0]} has no expected share")
        return self

    @model_validator(mode="after")
    def _variance_fits_design(self) -> "AbOptions":
        given = self.model_fields_set
        if self.cluster is not None and "variance" in given:
            raise ValueError("variance applies to independent units; with cluster leave it out")
        if self.strata is not None and "variance" in given:
            raise ValueError("variance applies to unstratified arms; with strata leave it out")
        if self.cluster is None and "cluster_correction" in given:
            raise ValueError("cluster_correction needs cluster")
        if self.cluster_correction == "cr3" and len(self.clusters) > 1:
            raise ValueError("cluster_correction cr3 is for one column of clusters")
        if self.strata is None and "stratification" in given:
            raise ValueError("stratification needs strata")
        return self

    @model_validator(mode="after")
    def _designs_go_together(self) -> "AbOptions":
        if self.strata is not None and self.cluster is not None:
            raise ValueError("strata are for independent units; with cluster leave them out")
        if self.population_sizes is None:
            return self
        if self.strata is not None or self.cluster is not None:
            raise ValueError("population_sizes are for independent units without strata")
        if self.segments is not None or self.interaction is not None:
            raise ValueError("population_sizes are those of whole arms: leave segments out")
        return self

    @model_validator(mode="after")
    def _families_hold_metrics(self) -> "AbOptions":
        if self.multiplicity is None:
            return self
        known = [metric.name for metric in self.metrics]
        families = self.multiplicity.families or {}
        unknown = [name for names in families.values() for name in names if name not in known]
        if unknown:
            raise ValueError(f"multiplicity: no metric is called {unknown[0]}")
        if not families_of(self.metrics, self.multiplicity):
            raise ValueError(
                "multiplicity: guardrails only; name a family to correct their effects"
            )
        return self


class AbSpec(Spec):
    """An analysis by the method `ab`."""

    method: Literal["ab"]
    options: AbOptions
