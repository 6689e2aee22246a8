"""The spec of a policy: a model of uplift, costs, and what may be spent."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from causal.core.frames import HashBucket
from causal.core.spec import Part, Source, Spec
from causal.uplift.learners import LearnerName

Money = Annotated[float, Field(ge=0)]
_LARGEST_SEED = 2**63
_TIE_SALT, _TIES = 3, 2**40


class PolicyOptions(Part):
    """What treatments cost and bring, and who is to get them.

    Attributes:
        model: `name`, `name/version` or the MLflow run of a model that `uplift` has trained.
        sha256: Hash that it must have; the recorded one if left out.
        learner: Which of its learners; the first if left out.
        costs: Cost of each treatment, in money a unit.
        outcome_value: Money that one unit of the outcome is worth.
        budget: Money that may be spent on all targets.
        budget_per_unit: Money that may be spent, a target.
        targets: Who is given treatments; the rows of `source` if left out.
        unseen: Targets that cannot be scored, for an unseen category or a missing value: `refuse`
            stops, `control` gives them nothing.
    """

    model: str
    sha256: str | None = None
    learner: LearnerName | None = None
    costs: dict[str, Money] = Field(min_length=1)
    outcome_value: float = Field(default=1.0)
    budget: Money | None = None
    budget_per_unit: Money | None = None
    targets: Source | None = None
    unseen: Literal["refuse", "control"] = "refuse"

    @model_validator(mode="after")
    def _one_budget(self) -> "PolicyOptions":
        if self.budget is not None and self.budget_per_unit is not None:
            raise ValueError("give budget or budget_per_unit, not both")
        if self.outcome_value == 0:
            raise ValueError("outcome_value: an outcome that is worth nothing needs no policy")
        return self

    def limit(self, n_targets: int) -> float | None:
        """Money that may be spent on so many targets; `None`: there is no limit."""
        if self.budget_per_unit is not None:
            return self.budget_per_unit * n_targets
        return self.budget


class PolicySpec(Spec):
    """Who gets which treatment; `source` holds rows with outcomes, which value the policy."""

    method: Literal["policy"]
    options: PolicyOptions

    def ties(self, unit: str) -> HashBucket:
        """The order in which units that are alike are given the last of the budget."""
        return HashBucket(unit, _TIES, salt=(self.seed + _TIE_SALT) % _LARGEST_SEED)


SPEC = PolicySpec
