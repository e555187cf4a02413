"""Reading of a family's options: after a family's name, or after a command's CONFIG, which may also be a run."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from genlab.core.config import from_dict, override, parse
from genlab.core.errors import ConfigError, RunError
from genlab.core.families import families
from genlab.core.storage import exists, locate, read_json
from genlab.recipes.recipe import preset_values, recipe_type

Options = TypeVar("Options")


def read_family_options(
    family: str, arguments: Sequence[str] | None = None, *, default: Any = None, prog: str | None = None
) -> Any:
    """Read the options of a family; ``--preset NAME`` among them sets many at once, which the others then change.

    Args:
        family: the family.
        arguments: the command line; by default that of this process.
        default: values of the options that neither the command line nor the preset gives; by default the family's.
        prog: name of the command in its help.

    Raises:
        ConfigError: for a value out of range, or a preset that there is not.
    """
    recipe = recipe_type(family)
    words = list(sys.argv[1:] if arguments is None else arguments)
    preset, words = _take_preset(words)
    if preset is not None:
        default = override(default or recipe.config_type(), preset_values(family, preset))
    listed = f"Presets of many options, --preset NAME: {', '.join(recipe.presets)}." if recipe.presets else ""
    return parse(recipe.config_type, words, default=default, prog=prog, note=listed)


def _take_preset(words: list[str]) -> tuple[str | None, list[str]]:
    """Take ``--preset NAME`` out of a command line."""
    for place, word in enumerate(words):
        option, equals, name = word.partition("=")
        if option == "--preset":
            taken = 1 if equals else 2
            name = name if equals else "".join(words[place + 1 : place + 2])
            if not name or name.startswith("--"):
                raise ConfigError("--preset: give the name of a preset after it; --help lists them")
            return name, words[:place] + words[place + taken :]
    return None, words


def read_options(
    kind: type[Options], arguments: Sequence[str] | None, prog: str
) -> tuple[Options, Callable[[str], tuple[str, Any]]]:
    """Read a command line that has a CONFIG, options of the command, and options of a family.

    Options with a dot in their name (``--run.batch 8``) and ``--preset`` are the family's; the others the command's.

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
        return family, read_family_options(family, theirs, default=default, prog=f"{prog} {config}")

    return parse(kind, own, prog=prog), load


def split_options(arguments: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Divide a command line, by default that of this process, into the command's own words and the family's options."""
    words = sys.argv[1:] if arguments is None else arguments
    return divide_options(words, lambda option: "." not in option and option != "--preset")


def divide_options(words: Sequence[str], own: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """Divide the words of a command line into those of the options that ``own`` accepts, and those of the others.

    Words before the first option go with the first.
    """
    accepted: list[str] = []
    others: list[str] = []
    target = accepted
    for word in words:
        if word.startswith("--"):
            target = accepted if own(word.partition("=")[0]) else others
        target.append(word)
    return accepted, others


def _saved(config: str) -> tuple[str, Any]:
    place = locate(config)
    file = place if config.endswith(".json") else place / "config.json"
    if file is not place and not exists(file):
        known = ", ".join(families())
        raise RunError(f"{config}: no run and no config.json, and no recipe for family {config!r}; there are: {known}")
    saved = read_json(file)
    if not isinstance(saved, dict) or not {"family", "config"} <= saved.keys():
        raise RunError(f"{file}: not the config.json of a run")
    return saved["family"], from_dict(recipe_type(saved["family"]).config_type, saved["config"])
