"""Which covariance a regression has, and the small-sample factors by name."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from causal.core.spec import Part
from causal.regression.columns import ColumnName

Kind = Literal["classical", "HC0", "HC1", "HC2", "HC3", "CR0", "CR1", "CR2", "CR3"]
SmallSample = Literal["stata", "min", "n-k", "none", "jackknife"]

_FACTORS: dict[str, tuple[str, ...]] = {
    "classical": ("stata", "n-k", "none"),
    "CR1": ("stata", "min", "n-k", "none"),
    "CR3": ("none", "jackknife"),
}
_DEFAULT = {"classical": "stata", "CR1": "stata"}


class ErrorOptions(Part):
    """Options about errors that all regressions share.

    Attributes:
        covariance: `classical`, `HC0` to `HC3`, `CR0` to `CR3`, or `cluster`, which is CR1; if left
            out, CR1 where `cluster` is given and HC1 elsewhere.
        cluster: Column of the clusters, or two columns for two-way clustering.
        small_sample: The factor of CR1 (`stata`: G/(G-1) (n-1)/(n-k), in two-way clustering each
            part with its own G; `min`: the smallest G for all parts; `n-k`: n/(n-k) alone; `none`),
            of the classical error variance (`stata` or `n-k`: divisor n-k; `none`: n), and of CR3
            (`none`, or `jackknife`: (G-1)/G). The other covariances have none to choose.
        reference: `t` (n-k degrees of freedom, or the smallest number of clusters less one),
            `normal`, or with CR2 `satterthwaite`: t with the degrees of freedom of Bell and
            McCaffrey, each coefficient its own.
    """

    covariance: Kind | Literal["cluster"] | None = None
    cluster: ColumnName | Annotated[list[ColumnName], Field(min_length=1)] | None = None
    small_sample: SmallSample | None = None
    reference: Literal["t", "normal", "satterthwaite"] = "t"

    @property
    def clusters(self) -> tuple[str, ...]:
        """The columns of the clusters."""
        if self.cluster is None:
            return ()
        return (self.cluster,) if isinstance(self.cluster, str) else tuple(self.cluster)

    @property
    def kind(self) -> str:
        """The covariance with its defaults filled in."""
        if self.covariance in {None, "cluster"}:
            return "CR1" if self.clusters else "HC1"
        return str(self.covariance)

    @property
    def factor(self) -> str:
        """The small-sample factor with its default filled in."""
        return self.small_sample or _DEFAULT.get(self.kind, "none")

    @property
    def is_two_way(self) -> bool:
        """Whether there are two columns of clusters."""
        return len(self.clusters) > 1

    @property
    def needs_rows(self) -> bool:
        """Whether scores are summed over less than whole absorbed groups."""
        return self.kind.startswith("HC") or self.is_two_way

    @field_validator("cluster")
    @classmethod
    def _one_or_two_columns(cls, value: str | list[str] | None) -> str | list[str] | None:
        return at_most_two(value)

    @model_validator(mode="after")
    def _errors_go_together(self) -> "ErrorOptions":
        is_clustered = self.kind.startswith("CR") or self.covariance == "cluster"
        if is_clustered != bool(self.clusters):
            raise ValueError(
                f"covariance {self.covariance} needs cluster"
                if is_clustered
                else "cluster goes with covariance: cluster, CR0, CR1, CR2 or CR3"
            )
        if len(set(self.clusters)) != len(self.clusters):
            raise ValueError("the two columns of cluster must differ")
        if self.is_two_way and self.kind in {"CR2", "CR3"}:
            raise ValueError(f"covariance {self.kind} takes one column of clusters")
        if self.reference == "satterthwaite" and self.kind != "CR2":
            raise ValueError("reference satterthwaite goes with covariance: CR2")
        return self

    @model_validator(mode="after")
    def _factor_of_the_covariance(self) -> "ErrorOptions":
        allowed = _FACTORS.get(self.kind, ())
        if self.small_sample is not None and self.small_sample not in allowed:
            known = f"one of {', '.join(allowed)}" if allowed else "nothing to choose"
            raise ValueError(f"small_sample of covariance {self.kind}: {known}")
        return self


def at_most_two(cluster: str | list[str] | None) -> str | list[str] | None:
    """The columns of the clusters as they are.

    Raises:
        ValueError: There are more than two.
    """
    if isinstance(cluster, list) and len(cluster) > 2:  # noqa: PLR2004
        raise ValueError("cluster takes one column, or two for two-way clustering")
    return cluster
