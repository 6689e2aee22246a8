"""The options of the method `ab`, and which of them go together."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.checks.certificate import CertificateOptions
from causal.core.frames import Level
from causal.core.spec import Part, Spec
from causal.experiments.bootstrap_intervals import BootstrapOptions, InferenceKind
from causal.experiments.clustering import ClusterCorrection, DegreesOfFreedom
from causal.experiments.comparison import RelativeInterval, Variance
from causal.experiments.families import Multiplicity, families_of
from causal.experiments.levels import Theta
from causal.experiments.metrics import ColumnName, Metric, columns_of, outcome_columns
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
        cluster_correction: `cr2` (Bell and McCaffrey 2002): unbiased arm by arm; `cr3`: the cluster
            jackknife, somewhat larger; `cr1`: `G/(G-1) * (N-1)/(N-2)` of the two arms compared, as
            in a regression on one dummy; `cr0` or `none`: no correction. Left out: `cr2`, and
            `cr1` with two columns or with more clusters than the driver holds.
        degrees_of_freedom: Of a clustered comparison. `satterthwaite`: the fewer of those from
            the arms' estimated variances and those under one variance and one correlation within
            clusters, both from the clusters' sizes; `bell_mccaffrey`: under independent errors of
            one variance; `clusters_minus_one`: G - 1 of the two arms.
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
        time_since_exposure: Column of the day or week since the unit's exposure, where a unit has
            a row in each of them: effects by period, and whether they wear off. Errors are then
            clustered by unit unless `cluster` says otherwise.
        multiplicity: Families of effects that are corrected together.
        interaction: Another experiment on the same units.
        power: Power at which the smallest effect that could be found is stated.
        expected_shares: Planned share of each variant, as shares or weights. Without it the arms
            are compared with equal shares for information (`assumed_sample_ratio`); stated, a
            mismatch stops the decision.
        srm_alpha: The sample-ratio check fails below this p-value.
        certificate: How the estimators are certified on the units of this experiment; not if left
            out.
        inference: How intervals and tests of effects over all units are made: by `formula`, or by
            a Poisson `bootstrap` on aggregates. A metric may say otherwise; a retention has its
            formula.
        bootstrap: How the bootstrap is made.
    """

    unit: ColumnName
    variant: ColumnName
    control: Level
    treatments: tuple[Level, ...] | None = Field(default=None, min_length=1)
    cluster: ColumnName | Annotated[tuple[ColumnName, ...], Field(min_length=1)] | None = None
    metrics: tuple[Metric, ...] = Field(min_length=1)
    variance: Variance = "welch"
    cluster_correction: ClusterCorrection | None = None
    degrees_of_freedom: DegreesOfFreedom = "satterthwaite"
    theta: Theta = "total"
    relative_interval: RelativeInterval = "delta"
    population_sizes: (
        Annotated[dict[Level, Annotated[int, Field(gt=1, strict=True)]], Field(min_length=1)] | None
    ) = None
    strata: tuple[ColumnName, ...] | None = Field(default=None, min_length=1)
    stratification: Stratification = "post_stratified"
    segments: tuple[ColumnName, ...] | None = Field(default=None, min_length=1)
    time_since_exposure: ColumnName | None = None
    multiplicity: Multiplicity | None = None
    interaction: OtherExperiment | None = None
    power: float = Field(default=0.8, gt=0, lt=1)
    expected_shares: dict[Level, float] | None = None
    srm_alpha: float = Field(default=0.0005, gt=0, lt=1)
    certificate: CertificateOptions | None = None
    inference: InferenceKind = "formula"
    bootstrap: BootstrapOptions = BootstrapOptions()

    def is_bootstrapped(self, metric: Metric) -> bool:
        """Whether intervals and tests of a metric come from the bootstrap."""
        default = "formula" if metric.type == "retention" else self.inference
        return (metric.inference or default) == "bootstrap"

    @property
    def moment_metrics(self) -> tuple[Metric, ...]:
        """The metrics that are functions of means."""
        return tuple(metric for metric in self.metrics if metric.is_moment)

    @property
    def quantile_metrics(self) -> tuple[Metric, ...]:
        """The metrics that are quantiles."""
        return tuple(metric for metric in self.metrics if metric.type == "quantile")

    @property
    def retention_metrics(self) -> tuple[Metric, ...]:
        """The metrics that are retentions."""
        return tuple(metric for metric in self.metrics if metric.type == "retention")

    @property
    def clusters(self) -> tuple[str, ...]:
        """The cluster columns."""
        if self.cluster is None:
            return () if self.time_since_exposure is None else (self.unit,)
        return (self.cluster,) if isinstance(self.cluster, str) else self.cluster

    @model_validator(mode="after")
    def _roles_differ(self) -> "AbOptions":
        if len(self.clusters) > MAX_CLUSTER_COLUMNS:
            raise ValueError("cluster is one column or two")
        period = () if self.time_since_exposure is None else (self.time_since_exposure,)
        columns = () if self.cluster is None else self.clusters
        roles = [self.unit, self.variant, *columns, *period]
        if len(set(roles)) < len(roles):
            raise ValueError("unit, variant, cluster and period must be different columns")
        for metric in self.metrics:
            shared = columns_of(metric).intersection(roles)
            if shared:
                raise ValueError(
                    f"metric {metric.name}: {min(shared)} is the unit, variant, cluster or period"
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
        if self.clusters and "variance" in given:
            raise ValueError("variance applies to independent units; with cluster leave it out")
        if self.strata is not None and "variance" in given:
            raise ValueError("variance applies to unstratified arms; with strata leave it out")
        if self.strata is None and "stratification" in given:
            raise ValueError("stratification needs strata")
        return self

    @model_validator(mode="after")
    def _metrics_fit_design(self) -> "AbOptions":
        other = [metric for metric in self.metrics if not metric.is_moment]
        if not other:
            return self
        given = {
            "variance": self.variance == "pooled",
            "strata": self.strata is not None,
            "population_sizes": self.population_sizes is not None,
        }
        wrong = [name for name, is_given in given.items() if is_given]
        if wrong:
            raise ValueError(
                f"metric {other[0].name}: {wrong[0]} is for means, not for a {other[0].type}"
            )
        survival = [metric for metric in other if metric.churn_day is not None]
        if survival and self.clusters:
            raise ValueError(
                f"metric {survival[0].name}: churn_day is for independent units; with cluster give "
                "a 0/1 column"
            )
        has_slices = any((self.segments, self.interaction, self.time_since_exposure))
        if has_slices and not self.moment_metrics:
            raise ValueError(
                "segments, interaction and time_since_exposure need a mean, a proportion, a count "
                "or a ratio"
            )
        return self

    @model_validator(mode="after")
    def _bootstrap_fits_design(self) -> "AbOptions":
        chosen = [metric for metric in self.metrics if self.is_bootstrapped(metric)]
        if not chosen:
            if "bootstrap" in self.model_fields_set:
                raise ValueError("bootstrap needs inference: bootstrap, for all metrics or for one")
            return self
        if any(metric.type == "retention" for metric in chosen):
            raise ValueError("a retention has a formula: inference: bootstrap is for the others")
        given = {
            "certificate": self.certificate is not None,
            "population_sizes": self.population_sizes is not None,
            "variance": self.variance == "pooled",
            "two columns in cluster": len(self.clusters) > 1,
        }
        wrong = [name for name, is_given in given.items() if is_given]
        if wrong:
            raise ValueError(
                f"metric {chosen[0].name}: {wrong[0]} is for formulas; leave it out, or "
                "inference: bootstrap"
            )
        return self

    @model_validator(mode="after")
    def _cluster_options(self) -> "AbOptions":
        for name in ("cluster_correction", "degrees_of_freedom"):
            if not self.clusters and name in self.model_fields_set:
                raise ValueError(f"{name} needs cluster")
        if self.cluster_correction in {"cr2", "cr3"} and len(self.clusters) > 1:
            raise ValueError(
                f"cluster_correction {self.cluster_correction} is for one column of clusters"
            )
        return self

    @model_validator(mode="after")
    def _designs_go_together(self) -> "AbOptions":
        if self.strata is not None and self.clusters:
            raise ValueError("strata are for independent units; with cluster leave them out")
        if self.population_sizes is None:
            return self
        if self.strata is not None or self.clusters:
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
