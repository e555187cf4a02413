"""Reading of a command's CONFIG: a family's name, a run or its ``config.json``, and options of the family after it."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from genlab.core.config import from_dict, parse
from genlab.core.errors import RunError
from genlab.core.families import families
from genlab.core.storage import locate, read_json
from genlab.recipes.recipe import recipe_type

Options = TypeVar("Options")


def read_options(
    kind: type[Options], arguments: Sequence[str] | None, prog: str
) -> tuple[Options, Callable[[str], tuple[str, Any]]]:
    """Read a command line that has a CONFIG, options of the command, and options of a family.

    Options with a dot in their name (``--run.batch 8``) are the family's; the others are the command's.

    Args:
        kind: the dataclass of the command's options.
        arguments: the command line; by default that of this process.
        prog: name of the command in its help.

    Returns:
        The command's options, and a function from CONFIG to the family and its config.

    Raises:
        ConfigError: for a value out of range.
        RunError: when CONFIG is not a family, a run or the ``config.json`` of one.
    """
    own, theirs = split_options(arguments)

    def load(config: str) -> tuple[str, Any]:
        family, default = (config, None) if config in families() else _saved(config)
        return family, parse(recipe_type(family).config_type, theirs, default=default, prog=f"{prog} {config}")

    return parse(kind, own, prog=prog), load


def split_options(arguments: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Divide a command line, by default that of this process, into the command's own words and the family's options."""
    own: list[str] = []
    theirs: list[str] = []
    target = own
    for word in sys.argv[1:] if arguments is None else arguments:
        if word.startswith("--"):
            target = theirs if "." in word.partition("=")[0] else own
        target.append(word)
    return own, theirs


def _saved(config: str) -> tuple[str, Any]:
    place = locate(config)
    file = place if config.endswith(".json") else place / "config.json"
    if file is not place and not file.exists():
        known = ", ".join(families())
        raise RunError(f"{config}: no run and no config.json, and no recipe for family {config!r}; there are: {known}")
    saved = read_json(file)
    if not isinstance(saved, dict) or not {"family", "config"} <= saved.keys():
        raise RunError(f"{file}: not the config.json of a run")
    return saved["family"], from_dict(recipe_type(saved["family"]).config_type, saved["config"])
