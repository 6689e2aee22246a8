"""The spec of learners that are trained on a bounded sample and scored where the rows lie."""

from typing import Literal

from pydantic import Field, model_validator

from causal.core.frames import HashBucket, Level
from causal.core.spec import Part, Spec
from causal.regression.columns import ColumnName
from causal.uplift.inputs import Missing
from causal.uplift.learners import BaseModel, LearnerName, Training
from causal.uplift.uplift_options import Probability

_PARTS = 1000
_LARGEST_SEED = 2**63
_TOLERANCE = 1e-9


class UpliftLearnersOptions(Part):
    """Who is treated how, what is learned, and what is held out.

    Attributes:
        unit: Column of the unit; it must identify a row.
        outcome: Column of the outcome.
        variant: Column of the arm.
        control: The arm that treatments are compared with.
        treatments: The other arms; rows of further ones are left out.
        features: Columns of numbers, known before the treatment.
        categorical: Columns of levels, known before the treatment.
        segments: Columns by whose levels mean effects are reported.
        cluster: Column of what was assigned, where that is not the unit: all its rows are trained
            on or held out together, and errors are clustered.
        learners: Which ones; the first is used where none is asked for.
        base: Models inside the learners.
        propensity: `share`: treatment was randomised, with the shares of the arms as chances; a
            mapping of every arm to its planned share; `learned`: it was not, and a classifier on
            the features gives the chances.
        missing: Whether missing features are refused, or learned from.
        held_out: Share of the units that no model sees.
        max_rows: Rows that are drawn for training, equally many of each arm.
        trees: Trees of a boosted model or of the forest.
        leaves: Leaves of a boosted tree at most.
        min_leaf_rows: Rows of a leaf.
        learning_rate: Share of each tree that is added.
        folds: Folds of the DR- and R-learner and the forest.
        bins: Bins of the scores.
        groups: Groups of the score, such as 10 for deciles.
        draws: Resampled histograms behind intervals.
    """

    unit: ColumnName
    outcome: ColumnName
    variant: ColumnName
    control: Level
    treatments: tuple[Level, ...] = Field(min_length=1, max_length=20)
    features: tuple[ColumnName, ...] = ()
    categorical: tuple[ColumnName, ...] = ()
    segments: tuple[ColumnName, ...] = ()
    cluster: ColumnName | None = None
    learners: tuple[LearnerName, ...] = Field(default=("dr",), min_length=1)
    base: BaseModel = "boosted"
    propensity: Literal["share", "learned"] | dict[str, Probability] = "share"
    missing: Missing = "refuse"
    held_out: float = Field(default=0.4, ge=0.05, le=0.95)
    max_rows: int = Field(default=200_000, ge=100, le=5_000_000, strict=True)
    trees: int = Field(default=100, ge=4, le=5000, multiple_of=4, strict=True)
    leaves: int = Field(default=15, ge=2, le=1024, strict=True)
    min_leaf_rows: int = Field(default=20, ge=1, strict=True)
    learning_rate: float = Field(default=0.1, gt=0, le=1)
    folds: int = Field(default=2, ge=2, le=20, strict=True)
    bins: int = Field(default=100, ge=10, le=2000, strict=True)
    groups: int = Field(default=10, ge=2, le=100, strict=True)
    draws: int = Field(default=1000, ge=50, le=100_000, strict=True)

    @property
    def inputs(self) -> tuple[str, ...]:
        """All features, numbers first."""
        return (*self.features, *self.categorical)

    @property
    def arms(self) -> tuple[Level, ...]:
        """Control first, then the treatments."""
        return (self.control, *self.treatments)

    @property
    def is_randomised(self) -> bool:
        """Whether the chances of the arms are the same for all rows."""
        return self.propensity != "learned"

    @model_validator(mode="after")
    def _columns_differ(self) -> "UpliftLearnersOptions":
        if not self.inputs:
            raise ValueError("features or categorical: at least one column to learn from")
        for names in (self.inputs, self.segments):
            repeated = [name for name in names if names.count(name) > 1]
            if repeated:
                raise ValueError(f"{repeated[0]} is listed twice")
        for role in ("unit", "outcome", "variant"):
            if getattr(self, role) in (*self.inputs, *self.segments):
                raise ValueError(f"{getattr(self, role)} is the {role}, not a feature or segment")
        return self

    @model_validator(mode="after")
    def _arms_differ(self) -> "UpliftLearnersOptions":
        names = [str(arm) for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError("control and treatments: an arm stands twice")
        if isinstance(self.propensity, dict):
            if set(self.propensity) != set(names):
                raise ValueError(f"propensity: one share for each arm ({', '.join(names)})")
            if abs(sum(self.propensity.values()) - 1.0) > _TOLERANCE:
                raise ValueError("propensity: the shares of the arms sum to 1")
        return self

    @model_validator(mode="after")
    def _learners_differ(self) -> "UpliftLearnersOptions":
        if len(set(self.learners)) < len(self.learners):
            raise ValueError("a learner stands twice")
        return self


class UpliftLearnersSpec(Spec):
    """Effects by unit, learned on a sample."""

    method: Literal["uplift_learners"]
    options: UpliftLearnersOptions

    @property
    def split(self) -> HashBucket:
        """How units are parted into those that are trained on and those that are held out."""
        options = self.options
        return HashBucket(options.cluster or options.unit, _PARTS, salt=self.seed)

    @property
    def n_held_out(self) -> int:
        """Buckets of the split that are held out: the first ones."""
        return round(self.options.held_out * _PARTS)

    @property
    def sample_salt(self) -> int:
        """Salt of the hash that training rows are drawn by."""
        return (self.seed + 1) % _LARGEST_SEED

    @property
    def training(self) -> Training:
        """How learners are trained."""
        options = self.options
        return Training(
            base=options.base,
            is_randomised=options.is_randomised,
            n_trees=options.trees,
            max_leaves=options.leaves,
            min_leaf_rows=options.min_leaf_rows,
            learning_rate=options.learning_rate,
            n_folds=options.folds,
            seed=self.seed % 2**32,
        )


SPEC = UpliftLearnersSpec
