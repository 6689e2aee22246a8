"""Numbers as people read them: changes, levels, chances and amounts."""

import math

from causal.core.result import Effect, Scale
from causal.experiments.metrics import Direction

_LARGE = 1000.0
_MINUS = "\N{MINUS SIGN}"
_SURE = 0.001


def change(value: float, scale: Scale) -> str:
    """A change with its sign: in per cent where it is relative."""
    if math.isinf(value):
        return f"{_MINUS if value < 0 else '+'}\N{INFINITY}"
    return f"{_signed(100 * value, 2)} %" if scale == "relative" else number(value, is_signed=True)


def interval(effect: Effect) -> str:
    """Both ends of an effect's interval."""
    return f"{change(effect.ci_lower, effect.scale)} to {change(effect.ci_upper, effect.scale)}"


def number(value: float, *, is_signed: bool = False) -> str:
    """Four digits, thousands set apart."""
    sign = "+" if is_signed and value > 0 else ""
    text = f"{value:,.0f}" if abs(value) >= _LARGE else f"{value:.4g}"
    return f"{sign}{text}".replace("-", _MINUS) if "e" not in text else f"{sign}{text}"


def chance(probability: float) -> str:
    """A probability in per cent that never claims certainty."""
    if probability < _SURE:
        return "< 0.1 %"
    if probability > 1 - _SURE:
        return "> 99.9 %"
    return f"{100 * probability:.1f} %"


def pvalue(value: float) -> str:
    """A p-value; very small ones as a bound."""
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"  # noqa: PLR2004 - what is still told apart


def direction_of(effect: Effect, direction: Direction) -> str:
    """`better`, `worse` or `no clear change`, by the interval and the direction that is good."""
    if effect.ci_lower <= 0 <= effect.ci_upper:
        return "no clear change"
    rises = effect.ci_lower > 0
    return "better" if rises == (direction == "increase") else "worse"


def count(n: int, what: str) -> str:
    """A number of things: `1 look`, `2 looks`."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", _MINUS)
