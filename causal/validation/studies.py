"""The studies by name, the quick ones first."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from causal.validation import estimators, planned_power, sample_ratios, stopping_rules
from causal.validation.replication import Findings, Size, Workers

Study = Callable[[Size, Workers], Findings]

STUDIES: Mapping[str, Study] = MappingProxyType(
    {
        sample_ratios.STUDY: sample_ratios.study,
        stopping_rules.STUDY: stopping_rules.study,
        planned_power.STUDY: planned_power.study,
        estimators.STUDY: estimators.study,
    }
)
