"""The one error tree of the suite and the exit code of each branch."""

from collections.abc import Iterable
from typing import ClassVar

from causal.core.texts import listed

_MAX_SHOWN = 12


class CausalError(Exception):
    """Something the caller can mend; its text is one line: what, where and what is allowed.

    Args:
        message: What is wrong, in one sentence without a final stop.
        given: The value that was found.
        allowed: What may stand there instead: a sentence or a collection of values.
        file: The file in which it was found.
        key: The dotted path of the offending key in that file.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        given: object = None,
        allowed: object = None,
        file: object = None,
        key: str | None = None,
    ) -> None:
        self.message = message
        self.given = given
        self.allowed = allowed
        self.file = file
        self.key = key
        super().__init__(message)

    def __str__(self) -> str:
        """One line: place, message, what was given, what is allowed."""
        place = ": ".join(str(part) for part in (self.file, self.key) if part is not None)
        text = f"{place}: {self.message}" if place else self.message
        if self.given is not None:
            text += f"; given: {_shown(self.given)}"
        if self.allowed is not None:
            text += f"; allowed: {_shown(self.allowed)}"
        return " ".join(text.split())

    def located(self, *, file: object = None, key: str | None = None) -> "CausalError":
        """The same error with the place filled in where it was not known yet."""
        return type(self)(
            self.message,
            given=self.given,
            allowed=self.allowed,
            file=self.file if self.file is not None else file,
            key=self.key if self.key is not None else key,
        )


class SpecError(CausalError):
    """A spec, setting or command-line argument is wrong."""

    exit_code: ClassVar[int] = 2


class DataError(CausalError):
    """The data failed a quality gate or cannot carry the analysis that was asked for."""

    exit_code: ClassVar[int] = 3


class HealthError(CausalError):
    """A health check or a guardrail says stop; results have been written."""

    exit_code: ClassVar[int] = 4


class ConcurrencyError(CausalError):
    """Gave up on a table that another process keeps changing."""

    exit_code: ClassVar[int] = 5


class InferenceError(CausalError):
    """The numbers do not identify what was asked for (singular design, no degrees of freedom)."""

    exit_code: ClassVar[int] = 1


def _shown(value: object) -> str:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return str(value)
    return listed(value, most=_MAX_SHOWN)
