"""What a running command job is given: settings, tables, runs, the terminal and the session."""

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from jobs.runtime.progress import Progress
from jobs.runtime.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.runtime.lakehouse import Lakehouse
    from jobs.runtime.tracking import Tracking


T = TypeVar("T")


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

    def start(self) -> None:
        """Start Spark and open the store of runs beside each other: each takes seconds."""
        with ThreadPoolExecutor(max_workers=1) as beside:
            opened = beside.submit(self.tracking.open)
            _ = self.session
            opened.result()

    def side_by_side(self, tasks: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        """Run independent pieces of Spark work, a few at a time; what each returned, by name.

        Planning and committing keep one core busy while the others wait, so a second job beside
        the first fills them. When one piece fails, or the run is stopped, the others are stopped.

        Args:
            tasks: The pieces of work by name, in the order in which they start.

        Raises:
            CausalError: The first failure, in that order.
        """
        workers = ThreadPoolExecutor(max_workers=self.settings.limits.parallel_jobs)
        futures = {name: workers.submit(copy_context().run, task) for name, task in tasks.items()}
        is_done = False
        try:
            finished, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
            for future in futures.values():
                if future in finished:
                    future.result()
            is_done = True
        finally:
            if not is_done:
                workers.shutdown(wait=False, cancel_futures=True)
                self.session.interruptAll()
            workers.shutdown(wait=True)
        return {name: future.result() for name, future in futures.items()}

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
