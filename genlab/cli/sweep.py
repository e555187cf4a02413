"""``genlab sweep SPACE``: train every point of a search space and compare the results."""

import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent

from genlab.cli.family_options import read_family_options
from genlab.core.config import override
from genlab.core.errors import ConfigError, run_command
from genlab.recipes.recipe import recipe_type
from genlab.sweeps.space import load_space
from genlab.sweeps.sweep import sweep

EXAMPLE = """\
from genlab.sweeps.space import Space

SPACE = Space(family="vae", vary={"model.latent_dim": [2, 8, 16]}, metric="test/neg_elbo", mode="min")
"""
"""A search space, shown in the help."""

USAGE = f"""\
usage: genlab sweep SPACE [OPTIONS]

Train every point of a search space side by side, write a report for each, and print how they compare.

SPACE is a Python file that declares what varies and what is measured, such as:

{indent(EXAMPLE, "    ")}
OPTIONS are those of the space's model family, for all trials: genlab sweep SPACE --help lists them.
The trials are runs in the folder STORAGE/NAME: --run.storage, and --run.name or else the file's name. The same command
goes on where they stopped.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab sweep``.

    Args:
        arguments: the file of a space, then options of its family; by default those of this process.
    """
    path, *options = list(sys.argv[1:] if arguments is None else arguments) or [""]

    def command() -> None:
        if path in ("-h", "--help"):
            print(USAGE, end="")
            return
        if not path or path.startswith("-"):
            raise ConfigError("give the file of a search space first: genlab sweep SPACE [OPTIONS]; --help shows one")
        space = load_space(path)
        defaults = override(recipe_type(space.family).config_type(), space.options(space.base))
        config = read_family_options(space.family, options, default=defaults, prog=f"genlab sweep {path}")
        sweep(space, config, name=config.run.name or Path(path).stem)

    run_command(command)
