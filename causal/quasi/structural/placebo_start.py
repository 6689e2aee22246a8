"""Where an earlier start is pretended."""

from causal.core.errors import DataError
from causal.quasi.structural.bsts_options import BstsOptions
from causal.quasi.structural.time_series import TimeSeries
from causal.quasi.time_axis import given_label, n_before, shown

_MAX_SHARE = 3


def placebo_position(options: BstsOptions, series: TimeSeries) -> int | None:
    """Position of the first pretended treated period; `None` where there is no room for it.

    Raises:
        DataError: `placebo_period` leaves too few periods before it, or none after.
    """
    if options.placebo_period is None:
        position = series.n_pre - min(series.n_post, series.n_pre // _MAX_SHARE)
        return position if options.min_pre_periods <= position < series.n_pre else None
    labels = series.labels
    start = given_label(options.placebo_period, like=labels[0], key="placebo_period")
    position = n_before(labels, start)
    if not options.min_pre_periods <= position < series.n_pre:
        raise DataError(
            f"placebo_period must leave {options.min_pre_periods} periods before it and lie before "
            "the treatment",
            given=shown(start),
            allowed=f"{shown(labels[min(options.min_pre_periods, series.n_pre - 1)])} to "
            f"{shown(labels[series.n_pre - 1])}",
        )
    return position
