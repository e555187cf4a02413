"""Reading of command lines that begin with MODEL: the command's options, and those that the model's operation has."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from genlab.core.config import parse, to_dict
from genlab.core.storage import require_absolute
from genlab.inference.operations import ModelInfo
from genlab.models.model import OPERATIONS
from genlab.store import model_directory

Config = TypeVar("Config")


def parse_for_model(
    config: type[Config], operation: str, arguments: Sequence[str] | None, prog: str
) -> tuple[Config, dict[str, Any]]:
    """Read a command line that runs an operation of a model.

    The options of the model's own are known once MODEL is: it is the first word, else there are none but those that
    every such model has.

    Args:
        config: the dataclass of the command's options; the first of them is MODEL.
        operation: name of the operation.
        arguments: the command line; by default that of this process.
        prog: name of the command in its help.

    Returns:
        The command's options, and those of the operation by name, none for a model that does not have it.

    Raises:
        ConfigError: for a value out of range. An unknown option ends the process with status 2 and the nearest names.
        RunError: MODEL is not a model.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = OPERATIONS[operation].options
    if words and not words[0].startswith("-"):
        require_absolute("model", words[0])
        options = ModelInfo.read(model_directory.find_one(words[0])).operations.get(operation, options)
    names = [field.name for field in dataclasses.fields(cast("Any", options))]
    if not names:
        return parse(config, words, prog=prog), {}
    # Both kinds of options are of one dataclass, so that they are one list in help, and unknown names meet all of them.
    both: type[Any] = dataclasses.make_dataclass(
        config.__name__, (), bases=(options, config), namespace={"__doc__": config.__doc__}, frozen=True
    )
    found = parse(both, words, prog=prog)
    values = to_dict(found)
    return cast("Config", found), {name: values[name] for name in names}
