"""``genlab sweep SPACE``: train every point of a search space and compare what came of it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from genlab.core.config import override, parse
from genlab.core.errors import ConfigError, run_command
from genlab.recipes.recipe import recipe_type
from genlab.sweeps.space import load_space
from genlab.sweeps.sweep import sweep

USAGE = """\
usage: genlab sweep SPACE [OPTIONS]

Train every point of a search space side by side, write a report for each, and print how they compare.

SPACE is a Python file that declares what varies and what is measured; those that come with genlab are in tune_spaces/.
OPTIONS are those of the space's model family, for all trials: genlab sweep SPACE --help lists them.
The trials are runs in the folder STORAGE/NAME: --run.storage, and --run.name or else the file's name. The same command
goes on where they stopped.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab sweep``: the first argument is a space's file, the others are options of its family."""
    path, *options = list(sys.argv[2:] if arguments is None else arguments) or [""]

    def command() -> None:
        if path in ("-h", "--help"):
            print(USAGE, end="")
            return
        if not path or path.startswith("-"):
            raise ConfigError("give the file of a space first: genlab sweep tune_spaces/vae_latent.py [OPTIONS]")
        space = load_space(path)
        defaults = override(recipe_type(space.family).config_type(), space.base)
        config = parse(recipe_type(space.family).config_type, options, default=defaults, prog=f"genlab sweep {path}")
        sweep(space, config, name=config.run.name or Path(path).stem)

    run_command(command)
