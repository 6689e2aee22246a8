"""A linear effect as one SQL expression, which scores a table of any size where it lies."""

from causal.core.errors import SpecError
from causal.core.frames import Column, Constant, Indicator, Level, Linear, Product, Term


def sql_expression(term: Term) -> str:
    """A term as SQL of Spark; null where a column of it is null.

    Args:
        term: Columns, constants, indicators, and their products and sums.

    Raises:
        SpecError: It is made of something else, or a name holds a backtick.

    Example:
        >>> from causal.core.frames import linear
        >>> sql_expression(linear([(Constant(), 0.5), (Indicator("tier", "gold"), -2.0)]))
        "0.5 + -2.0 * CASE WHEN `tier` = 'gold' THEN 1.0 WHEN `tier` IS NOT NULL THEN 0.0 END"
    """
    match term:
        case Constant(value):
            return repr(float(value))
        case Column(name):
            return f"CAST({quoted(name)} AS DOUBLE)"
        case Indicator(column, level):
            name = quoted(column)
            return (
                f"CASE WHEN {name} = {_literal(level)} THEN 1.0 WHEN {name} IS NOT NULL "
                "THEN 0.0 END"
            )
        case Product(factors):
            return " * ".join(_factor(factor) for factor in factors)
        case Linear(terms, coefficients):
            pairs = zip(terms, coefficients, strict=True)
            return " + ".join(_scaled(part, coefficient) for part, coefficient in pairs)
        case _:
            raise SpecError("only linear scores have an expression", given=type(term).__name__)


def quoted(name: str) -> str:
    """A column's name in backticks.

    Raises:
        SpecError: It holds a backtick.
    """
    if "`" in name:
        raise SpecError("a column name must not hold a backtick", given=name)
    return f"`{name}`"


def _scaled(term: Term, coefficient: float) -> str:
    if isinstance(term, Constant):
        return repr(float(coefficient) * term.value)
    return f"{float(coefficient)!r} * {_factor(term)}"


def _factor(term: Term) -> str:
    text = sql_expression(term)
    return f"({text})" if isinstance(term, Linear) else text


def _literal(level: Level) -> str:
    if isinstance(level, bool):
        return "TRUE" if level else "FALSE"
    if isinstance(level, str):
        escaped = level.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return repr(level)
