"""The CONFIG of a command: a family's name, a run or its ``config.json``, with options of the family after it."""

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
    """The command's own options, and a function from its CONFIG to the family and its config.

    Options with a dot in their name (``--run.batch 8``) are the family's, as its jobs take them; the others are the
    command's.

    Raises:
        ConfigError: for a value out of range.
        RunError: when CONFIG is neither a family nor a run or its ``config.json``.
    """
    own, theirs = split_options(arguments)

    def load(config: str) -> tuple[str, Any]:
        family, default = (config, None) if config in families() else _saved(config)
        return family, parse(recipe_type(family).config_type, theirs, default=default, prog=f"{prog} {config}")

    return parse(kind, own, prog=prog), load


def split_options(arguments: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The words of the command itself, by default of this process's, and those of the family's options."""
    own: list[str] = []
    theirs: list[str] = []
    target = own
    for word in sys.argv[2:] if arguments is None else arguments:
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
