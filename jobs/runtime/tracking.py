"""The runs of MLflow; no other module opens it.

The store is made once under a lock (processes that open a fresh SQLite file together break it),
MLflow is imported when it is first used (it takes seconds), and a run that is interrupted ends as
KILLED, one that fails as FAILED. Runs whose process is gone are closed on the next start.
"""

import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from causal.core.errors import CausalError, DataError, SpecError
from jobs.runtime.locks import held
from jobs.runtime.logs import redacted
from jobs.runtime.settings import Settings
from jobs.runtime.signals import Interrupted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

if TYPE_CHECKING:
    from mlflow import MlflowClient

_RUN_KEY = "causalake.run_key"
_PROCESS = "causalake.process"
_NOTE = "mlflow.note.content"
_ABANDONED = "**Abandoned:** the process ended without closing the run."
_PARAMS_PER_CALL = 100
_METRICS_PER_CALL = 1000
_PARAM_LENGTH = 6000
_NOT_IN_NAMES = re.compile(r"[^\w\-. /]+")


class Run:
    """One open run; everything is stored as soon as it is logged.

    Attributes:
        run_id: MLflow's id.
        experiment_id: The experiment's id.
    """

    def __init__(self, client: "MlflowClient", *, run_id: str, experiment_id: str) -> None:
        self._client = client
        self.run_id = run_id
        self.experiment_id = experiment_id

    def log_params(self, params: Mapping[str, object]) -> None:
        """Parameters as text; secrets are blotted out."""
        from mlflow.entities import Param

        listed = [
            Param(metric_name(key), redacted(str(value))[:_PARAM_LENGTH])
            for key, value in params.items()
        ]
        for start in range(0, len(listed), _PARAMS_PER_CALL):
            self._client.log_batch(self.run_id, params=listed[start : start + _PARAMS_PER_CALL])

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Numbers, at a step where there is a sequence of looks."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        listed = [
            Metric(metric_name(key), float(value), now, step) for key, value in metrics.items()
        ]
        for start in range(0, len(listed), _METRICS_PER_CALL):
            self._client.log_batch(self.run_id, metrics=listed[start : start + _METRICS_PER_CALL])

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Tags, such as status and decision."""
        for key, value in tags.items():
            self._client.set_tag(self.run_id, key, redacted(value))

    def log_table(self, name: str, frame: pd.DataFrame) -> None:
        """A table that MLflow shows, `<name>.json`."""
        self._client.log_table(self.run_id, data=frame, artifact_file=f"{artifact_name(name)}.json")

    def log_figure(self, name: str, figure: "Figure") -> None:
        """A figure, `<name>.png`."""
        self._client.log_figure(self.run_id, figure, f"{artifact_name(name)}.png")

    def log_text(self, name: str, text: str) -> None:
        """A text file; the name carries its ending."""
        self._client.log_text(self.run_id, redacted(text), artifact_name(name))

    def log_dict(self, name: str, data: Mapping[str, Any]) -> None:
        """A mapping as JSON or YAML, by the name's ending."""
        self._client.log_dict(self.run_id, dict(data), artifact_name(name))

    def log_bytes(self, name: str, data: bytes) -> None:
        """A file of bytes; the name carries its ending."""
        folder, _, file = artifact_name(name).rpartition("/")
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / file
            path.write_bytes(data)
            self._client.log_artifact(self.run_id, str(path), folder or None)

    def note(self, markdown: str) -> None:
        """The text on top of the run's page."""
        self._client.set_tag(self.run_id, _NOTE, redacted(markdown))


class Tracking:
    """Opens runs.

    Args:
        settings: Says which store.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def uri(self) -> str:
        """The tracking URI: set, or `MLFLOW_TRACKING_URI`, or SQLite in the warehouse folder.

        Raises:
            SpecError: None is set and the warehouse is no local folder.
        """
        given = self._settings.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
        return given or f"sqlite:///{self._folder / 'mlflow.db'}"

    def open(self) -> None:
        """Make the store if it is not there yet."""
        _ = self._client

    @contextmanager
    def run(
        self,
        experiment: str,
        *,
        run_name: str,
        run_key: str,
        tags: Mapping[str, str] | None = None,
        parent: Run | None = None,
    ) -> Iterator[Run]:
        """A run that is open for the block.

        Args:
            experiment: The experiment's name: the analysis or the pipeline.
            run_name: Shown in the list of runs.
            run_key: Names what the run makes; found again by `find_finished`.
            tags: More tags.
            parent: The run in which this one is nested.

        Yields:
            The run. It ends FINISHED, FAILED if the block raises, KILLED if a signal stops it.
        """
        client = self._client
        experiment_id = self._experiment_id(experiment)
        own = {_RUN_KEY: run_key, _PROCESS: _process(), "mlflow.source.name": "causalake"}
        if parent is not None:
            own["mlflow.parentRunId"] = parent.run_id
        opened = client.create_run(experiment_id, tags={**(tags or {}), **own}, run_name=run_name)
        run = Run(client, run_id=opened.info.run_id, experiment_id=experiment_id)
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        except (Interrupted, KeyboardInterrupt):
            status = "KILLED"
            raise
        except CausalError as error:
            run.note(f"**Failed:** {error}")
            raise
        finally:
            client.set_terminated(run.run_id, status=status)

    def find_finished(self, run_key: str) -> str | None:
        """Id of the newest finished run with this run key; `None` if there is none."""
        experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
        found = self._client.search_runs(
            experiments,
            filter_string=f"tags.`{_RUN_KEY}` = '{run_key}' and attributes.status = 'FINISHED'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return str(found[0].info.run_id) if found else None

    def register(self, name: str, run: Run, *, folder: str, tags: Mapping[str, str]) -> str | None:
        """A new version of a registered model, which is made if there is none of this name.

        Args:
            name: The model.
            run: The run that holds it.
            folder: Folder of the run's files that holds it.
            tags: Tags of the version.

        Returns:
            The version; `None`: the store has no registry.
        """
        from mlflow.exceptions import MlflowException

        client = self._client
        source = f"{client.get_run(run.run_id).info.artifact_uri}/{folder}"
        try:
            if not client.search_registered_models(filter_string=f"name = '{name}'"):
                client.create_registered_model(name)
            made = client.create_model_version(name, source, run.run_id, tags=dict(tags))
        except MlflowException:
            return None
        return str(made.version)

    def model_run(self, name: str, version: str | None) -> tuple[str, str, Mapping[str, str]]:
        """Run id, version and tags of a version of a registered model; the newest if left out.

        Raises:
            SpecError: There is no such model or version.
        """
        found = self._client.search_model_versions(f"name = '{name}'")
        versions = {str(item.version): item for item in found}
        if not versions:
            raise SpecError("no model of this name is registered", given=name, key="model")
        chosen = version if version is not None else max(versions, key=int)
        if chosen not in versions:
            raise SpecError(
                f"the model {name} has no such version",
                given=chosen, allowed=sorted(versions, key=int), key="model",
            )  # fmt: skip
        item = versions[chosen]
        return str(item.run_id), chosen, dict(item.tags)

    def run_data(self, run_id: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Tags and parameters of a run.

        Raises:
            SpecError: There is no such run.
        """
        from mlflow.exceptions import MlflowException

        try:
            data = self._client.get_run(run_id).data
        except MlflowException as error:
            raise SpecError("there is no such run", given=run_id, key="model") from error
        return dict(data.tags), dict(data.params)

    def artifact(self, run_id: str, name: str) -> bytes:
        """A file of a run.

        Raises:
            DataError: It is not there.
        """
        from mlflow.exceptions import MlflowException

        with tempfile.TemporaryDirectory() as place:
            try:
                path = self._client.download_artifacts(run_id, name, place)
                return Path(path).read_bytes()
            except (MlflowException, OSError) as error:
                raise DataError("the run has no such file", given=name, file=run_id) from error

    @cached_property
    def _client(self) -> "MlflowClient":
        """MLflow's client on a store that exists; closes runs whose process is gone."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        from mlflow import MlflowClient

        if not self.uri.startswith("sqlite:"):
            return MlflowClient(tracking_uri=self.uri)
        file = Path(self.uri.removeprefix("sqlite:///"))
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.with_name(f".{file.name}.lock")
        with held(
            lock, timeout=self._settings.limits.lock_seconds, purpose="open the store of runs"
        ):
            client = MlflowClient(tracking_uri=self.uri)
            client.search_experiments(max_results=1)  # makes the tables
            _close_abandoned(client)
        return client

    @property
    def _folder(self) -> Path:
        folder = self._settings.local_warehouse
        if folder is None:
            raise SpecError(
                "no local warehouse folder holds the runs: set tracking.uri or MLFLOW_TRACKING_URI",
                given=f"tables: {self._settings.tables}, warehouse: {self._settings.warehouse}",
                key="tracking.uri",
            )
        return folder.resolve() / "mlflow"

    def _experiment_id(self, name: str) -> str:
        """The experiment, made under the lock if it is not there yet."""
        full = f"{self._settings.tracking.prefix}{name}"
        found = self._client.get_experiment_by_name(full)
        if found is not None:
            return str(found.experiment_id)
        folder = self._settings.local_warehouse
        if not self.uri.startswith("sqlite:") or folder is None:
            return str(self._client.create_experiment(full, self._settings.tracking.artifacts))
        with held(
            folder.resolve() / "mlflow" / ".mlflow.db.lock",
            timeout=self._settings.limits.lock_seconds,
            purpose=f"make the experiment {full}",
        ):
            found = self._client.get_experiment_by_name(full)
            if found is not None:
                return str(found.experiment_id)
            location = self._settings.tracking.artifacts or (self._folder / "artifacts").as_uri()
            return str(self._client.create_experiment(full, f"{location}/{artifact_name(name)}"))


def metric_name(name: str) -> str:
    """The name with what MLflow does not take replaced by `_`."""
    return _NOT_IN_NAMES.sub("_", name).strip()[:250]


def artifact_name(name: str) -> str:
    """A file name that stays below the run's folder."""
    parts = [_NOT_IN_NAMES.sub("_", part).strip(" .") for part in name.split("/")]
    return "/".join(part for part in parts if part) or "unnamed"


def _process() -> str:
    """Host, process id and the process's start: a reused id is not the same process."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def _started(pid: int) -> str:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return fields[19]


def _close_abandoned(client: "MlflowClient") -> None:
    """Runs of this host whose process is gone (kill -9, power) become FAILED with a note."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    if not experiments:
        return
    for run in client.search_runs(experiments, filter_string="attributes.status = 'RUNNING'"):
        host, _, rest = run.data.tags.get(_PROCESS, "").partition(":")
        pid, _, started = rest.partition(":")
        if host == socket.gethostname() and pid.isdigit() and _is_gone(int(pid), started):
            client.set_tag(run.info.run_id, _NOTE, _ABANDONED)
            client.set_terminated(run.info.run_id, status="FAILED")


def _is_gone(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return bool(started) and _started(pid) != started
