"""What a running command job is given: settings, tables, runs, the terminal and the session."""

from functools import cached_property
from typing import TYPE_CHECKING

from jobs.runtime.progress import Progress
from jobs.runtime.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.runtime.lakehouse import Lakehouse
    from jobs.runtime.tracking import Tracking


class Context:
    """The outside world as a job sees it; Spark and MLflow start when they are first used.

    Attributes:
        settings: The resolved settings of the run.
        progress: The terminal.
        is_debug: Whether tracebacks are wanted.
    """

    def __init__(self, *, settings: Settings, progress: Progress, is_debug: bool = False) -> None:
        self.settings = settings
        self.progress = progress
        self.is_debug = is_debug

    @cached_property
    def session(self) -> "SparkSession":
        """The Spark session, started on first use."""
        from jobs.runtime.session import build_session

        with self.progress.step("start Spark"):
            return build_session(self.settings)

    @cached_property
    def lakehouse(self) -> "Lakehouse":
        """The tables, read and written by name."""
        from jobs.runtime.lakehouse import Lakehouse

        return Lakehouse(session=self.session, settings=self.settings)

    @cached_property
    def tracking(self) -> "Tracking":
        """The runs of MLflow; its store is made on first use."""
        from jobs.runtime.tracking import Tracking

        return Tracking(self.settings)
