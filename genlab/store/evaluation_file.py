"""The file of a model's evaluation, for those who do not measure: where it lies, and of which weights it is.

:mod:`genlab.evaluation.measurements` writes it, and reads all of it.
"""

import json
from collections.abc import Mapping
from typing import Any

from upath import UPath

from genlab.core.errors import RunError
from genlab.core.storage import exists, read_bytes
from genlab.store import model_directory

FORMAT = "genlab-evaluation"
VERSION = 1
FILE_NAME = "evaluation.json"
"""Name of the file of an evaluation, unless another is given."""


def evaluation_file(directory: UPath) -> UPath:
    """Return the file in which the evaluation of a run, or of a model directory, is kept.

    It lies in the run directory, also for the run's ``model``, which holds only what was trained; for any other model
    directory it lies in that directory, since many of them may lie in one folder.
    """
    of_run = directory.name == "model" and exists(directory / model_directory.DESCRIPTION)
    return (directory.parent if of_run else directory) / FILE_NAME


def parse_evaluation(file: UPath, content: bytes) -> dict[str, Any]:
    """Return the values in the content of the evaluation ``file``, without its format.

    Raises:
        RunError: it is something else, or of a newer format.
    """
    try:
        values = json.loads(content)
    except ValueError as error:
        raise RunError(f"{file}: not valid JSON ({error})") from None
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise RunError(f"{file}: not an evaluation; `genlab evaluate RUN` writes them")
    if (version := values.pop("version", None)) != VERSION:
        raise RunError(f"{file}: evaluation format {version!r}; this genlab reads format {VERSION}")
    return values


def find_evaluation(directory: UPath, description: Mapping[str, Any]) -> bytes | None:
    """Find the evaluation of the very weights that are in a model directory: the content of its file.

    Args:
        directory: the model directory.
        description: its ``genlab.json``.

    Returns:
        ``None`` if it has none, or if that was made of other weights, such as those before the run went on.

    Raises:
        RunError: what lies in its place is something else, or of a newer format.
        StorageError: the storage cannot be reached.
    """
    file = evaluation_file(directory)
    try:
        content = read_bytes(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    model = parse_evaluation(file, content).get("model")
    weights = model.get("weights") if isinstance(model, dict) else None
    return content if weights == description["weights"]["sha256"] else None
