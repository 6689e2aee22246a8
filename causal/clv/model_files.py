"""Models of spend as text files, read by their recorded hash alone."""

import base64
import binascii
import json
from typing import Any, cast

from causal.clv.early_spend import SpendModel
from causal.core.errors import DataError
from causal.uplift.learners import dumped, loaded


def model_text(model: SpendModel) -> tuple[str, str]:
    """A model as the text of a file, and the SHA-256 to be recorded elsewhere."""
    data, sha256 = dumped(cast("Any", model))
    text = {
        "what": model.candidate.name,
        "inputs": list(model.inputs),
        "sha256": sha256,
        "model": base64.b64encode(data).decode("ascii"),
    }
    return json.dumps(text), sha256


def read_model(text: str, *, sha256: str) -> SpendModel:
    """The model of a file, if it is the one that was recorded.

    Args:
        text: What `model_text` gave.
        sha256: The recorded hash, which is not taken from the file.

    Raises:
        DataError: The file is damaged, or another one; nothing of it is run.
    """
    try:
        data = base64.b64decode(json.loads(text)["model"], validate=True)
    except (json.JSONDecodeError, binascii.Error, KeyError, TypeError, ValueError) as error:
        raise DataError("this is no file of a model, or it is damaged") from error
    model: object = loaded(data, sha256=sha256)
    if not isinstance(model, SpendModel):
        raise DataError("this is a model of something else", given=type(model).__name__)
    return model
