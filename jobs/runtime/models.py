"""Models of uplift in MLflow: stored with their hash, and loaded only if it is still theirs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from causal.core.errors import DataError, SpecError
from causal.uplift.learned_model import UpliftModel
from causal.uplift.learners import dumped, loaded
from jobs.runtime.context import Context
from jobs.runtime.tracking import Run

REFERENCE = re.compile(r"[0-9a-f]{32}|[a-z][a-z0-9_]{0,62}(/[1-9][0-9]*)?")
SHA256 = re.compile(r"[0-9a-f]{64}")
_RUN = re.compile(r"[0-9a-f]{32}")
_HASH = "causalake.model_sha256"
_FOLDER, _FILE = "model", "model/model.pkl"
_PACKAGES = ("econml", "scikit-learn", "lightgbm")
"""What a stored model is only sure to mean the same with."""


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A model and where it was found.

    Attributes:
        model: The model.
        data: Its bytes.
        sha256: Hash of these.
        run_id: MLflow run that holds it.
        version: Version in the registry, if it was asked for there.
    """

    model: UpliftModel
    data: bytes
    sha256: str
    run_id: str
    version: str | None

    def learner(self, name: str | None) -> str:
        """The learner of this name; the first if left out.

        Raises:
            SpecError: The model has none of this name.
        """
        names = list(self.model.learners)
        if name is not None and name not in names:
            raise SpecError(
                "the model has no such learner", given=name, allowed=names, key="learner"
            )
        return names[0] if name is None else name


@dataclass(frozen=True)
class Dumped:
    """A model as it is stored."""

    data: bytes
    sha256: str

    @classmethod
    def of(cls, model: UpliftModel) -> "Dumped":
        """The bytes of a model."""
        return cls(*dumped(model))


def store(context: Context, run: Run, stored: Dumped, *, name: str) -> None:
    """Keep a model in a run and in the registry, its hash in both.

    Args:
        context: The run of the job.
        run: The open MLflow run.
        stored: The model.
        name: Name in the registry.
    """
    run.log_bytes(_FILE, stored.data)
    run.log_tags({_HASH: stored.sha256, **_versions()})
    tags = {_HASH: stored.sha256}
    number = context.tracking.register(name, run, folder=_FOLDER, tags=tags)
    if number is None:
        context.progress.warning(
            f"{name} could not be registered: this store has no model registry; name the run"
        )
    place = f"version {number} of {name}, " if number is not None else ""
    context.progress.line(f"model: {place}run {run.run_id}, sha256 {stored.sha256}")


def check_reference(reference: str, sha256: str | None, *, prefix: str = "") -> None:
    """What can be told of a model's name and hash without looking for them.

    Args:
        reference: The name.
        sha256: The hash, if one was given.
        prefix: What stands before their keys.

    Raises:
        SpecError: They are none.
    """
    if not REFERENCE.fullmatch(reference):
        raise SpecError(
            "this is no model", given=reference,
            allowed="name, name/version, or the id of a run", key=f"{prefix}model",
        )  # fmt: skip
    if sha256 is not None and not SHA256.fullmatch(sha256):
        raise SpecError(
            "this is no SHA-256", given=sha256, allowed="64 digits 0-9 a-f", key=f"{prefix}sha256"
        )


def load(context: Context, reference: str, *, sha256: str | None = None) -> StoredModel:
    """A model whose bytes are those that were recorded; nothing else of it is run.

    Args:
        context: The run of the job.
        reference: `name`, `name/version` or the id of a run.
        sha256: The hash that it must have; the recorded one if left out.

    Raises:
        SpecError: There is no such model, or it was trained with other versions of its packages.
        DataError: The file is not the one that was recorded, or the records differ.
    """
    number: str | None = None
    tags: Mapping[str, str] = {}
    tracking = context.tracking
    if _RUN.fullmatch(reference):
        run_id = reference
    else:
        name, _, wanted = reference.partition("/")
        run_id, number, tags = tracking.model_run(name, wanted or None)
    run_tags, _ = tracking.run_data(run_id)
    records = {text for text in (run_tags.get(_HASH), tags.get(_HASH), sha256) if text}
    if _HASH not in run_tags:
        raise SpecError("this run has stored no model of uplift", given=reference, key="model")
    if len(records) > 1:
        raise DataError(
            "the hashes recorded of the model differ: nothing of it is run",
            given=sorted(records), file=reference,
        )  # fmt: skip
    _check_versions(run_tags, reference)
    data = tracking.artifact(run_id, _FILE)
    try:
        model = loaded(data, sha256=run_tags[_HASH])
    except DataError as error:
        raise error.located(file=reference) from error
    if not isinstance(model, UpliftModel):
        raise SpecError("this is no model of uplift", given=reference, key="model")
    return StoredModel(
        model=model, data=data, sha256=run_tags[_HASH], run_id=run_id, version=number
    )


def finished(context: Context, run_key: str) -> StoredModel | None:
    """The model of the finished run with this key, if the packages are those that made it.

    A model that is trained again may be another one, byte for byte: where there is one of the same
    data, spec and code, it is the one that is meant.

    Args:
        context: The run of the job.
        run_key: Names what the run made.
    """
    run_id = context.tracking.find_finished(run_key)
    if run_id is None:
        return None
    tags, _ = context.tracking.run_data(run_id)
    return None if _HASH not in tags or _other_versions(tags) else load(context, run_id)


def _versions() -> dict[str, str]:
    return {f"causalake.version.{name}": _version(name) for name in _PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _other_versions(tags: Mapping[str, str]) -> list[str]:
    return [f"{key.rpartition('.version.')[2]} {tags.get(key)} (here {value})"
            for key, value in _versions().items() if tags.get(key) != value]  # fmt: skip


def _check_versions(tags: Mapping[str, str], reference: str) -> None:
    """Pickled models mean the same with the packages that made them only."""
    other = _other_versions(tags)
    if other:
        raise SpecError(
            "the model was trained with other versions of its packages: train it again",
            given=other, file=reference, key="model",
        )  # fmt: skip
