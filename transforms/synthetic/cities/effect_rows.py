"""True effects of the experiments on cities, as rows of `truth_driver_effects`."""

from typing import Any

WORLD = "drivers"


def effect_rows(
    names: tuple[str, str, str, str], *, absolute: float, relative: float | None, comment: str
) -> list[tuple[Any, ...]]:
    """One effect on both scales.

    Args:
        names: Design, estimand, metric and term.
        absolute: The effect.
        relative: The same as a share of the comparison; `None`: it is not kept.
        comment: What is averaged.
    """
    values = {"absolute": absolute, "relative": relative}
    return [
        (WORLD, *names, scale, float(value), comment)
        for scale, value in values.items()
        if value is not None
    ]
