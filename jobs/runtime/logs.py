"""Logging: one line per record on standard error, secrets blotted out."""

import logging
import os
import re

_SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY)", re.IGNORECASE)
_ASSIGNMENT = re.compile(
    r"(?i)\b([\w.-]*(?:token|secret|password|passwd|api_?key|access_?key)[\w.-]*)(\s*[=:]\s*)([^\s,;'\"]+)"
)
_URL_PASSWORD = re.compile(r"(?<=://)([^/\s:@]+):([^/\s@]+)@")
_BLOT = "***"
_MIN_SECRET = 6


def redacted(text: str) -> str:
    """The text without passwords in URLs, `token=...` values and secrets of the environment."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= _MIN_SECRET:
            text = text.replace(value, _BLOT)
    text = _URL_PASSWORD.sub(rf"\1:{_BLOT}@", text)
    return _ASSIGNMENT.sub(rf"\1\2{_BLOT}", text)


class _RedactingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def configure_logging(*, is_debug: bool = False) -> None:
    """Send warnings (everything of ours with `is_debug`) to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_RedactingFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in ("jobs", "transforms", "causal"):
        logging.getLogger(package).setLevel(logging.DEBUG if is_debug else logging.WARNING)
    # Spark Connect and Py4J log each failed call with its JVM trace; the error says it once.
    for name in (
        "py4j",
        "pyspark",
        "alembic",
        "mlflow",
        "SQLQueryContextLogger",
        "DataFrameQueryContextLogger",
    ):
        logging.getLogger(name).setLevel(logging.DEBUG if is_debug else logging.CRITICAL)
