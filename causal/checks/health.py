"""Which failed checks stop a decision, and which only ask for attention.

A sample-ratio mismatch means that the arms are not what was randomised, so no difference between
them can be read (Fabijan et al. 2019, "Diagnosing sample ratio mismatch"); a guardrail that may
have got worse than its margin says by definition that the change must not ship. A plan of looks
that changed after the first look has no known error rate; a failed certificate means that interval
and test do not hold on these units what they promise. Other failed checks are shown beside the
estimate.
"""

from causal.checks import certificate, srm
from causal.core.result import Diagnostic, Result

_STOPPING = (srm.NAME, "sequential_sample_ratio", "look_plan", "guardrail", certificate.NAME)


def stops(result: Result) -> tuple[Diagnostic, ...]:
    """The failed checks that stop a decision."""
    return tuple(
        item for item in result.failed_checks if item.name.split(".")[0].split(":")[0] in _STOPPING
    )
