"""``genlab sweep SPACE``: train every point of a search space and compare the results."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import fill, indent
from typing import Annotated

from annotated_types import Ge

from genlab.cli.family_options import divide_options, read_family_options
from genlab.core.config import override, parse
from genlab.core.errors import ConfigError, run_command
from genlab.core.option_text import field_texts
from genlab.recipes.recipe import recipe_type
from genlab.sweeps.space import Budget, Space, load_space
from genlab.sweeps.sweep import sweep

EXAMPLE = """\
from genlab.sweeps.space import Space

SPACE = Space(family="vae", vary={"model.latent_dim": [2, 8, 16]}, metric="val/neg_elbo", mode="min")
"""
"""A search space, shown in the help."""


@dataclass(frozen=True)
class SweepOptions(Budget):
    """How much a sweep trains. What is not given is as the space's file declares it."""

    seeds: Annotated[int, Ge(1)] | None = None
    """Trials of each point, with as many values of `run.seed`, from the one of the config on. The table then has means
    with intervals, and says which differences are none."""
    keep: Annotated[int, Ge(0)] | None = None
    """How many of the best trials keep their checkpoints, from which they can be trained on; 3 unless the space says
    otherwise. All keep their models, metrics and pictures."""
    per_gpu: Annotated[int, Ge(1)] | None = None
    """How many trials, of one worker each, share a GPU and its memory, on clusters that have GPUs; 1 unless the space
    says otherwise. For networks that leave most of a GPU idle."""


@dataclass(frozen=True)
class SweepConfig:
    """Train the points of a search space side by side, and compare them.

    These options change what the space's file declares. All options of its model family are options of the sweep too,
    for all trials.
    """

    sweep: SweepOptions = field(default_factory=SweepOptions)


def own_options_help() -> str:
    """Return the help of the options of a sweep itself."""
    lines = [f"--sweep.{name}  {text}" for name, text in field_texts(SweepOptions).items()]
    return "\n".join(fill(line, 116, initial_indent="    ", subsequent_indent="        ") for line in lines)


USAGE = f"""\
usage: genlab sweep SPACE [OPTIONS]

Train the points of a search space side by side, write a report for each, and print how they compare.

SPACE is a Python file that declares what varies and what is measured, such as:

{indent(EXAMPLE, "    ")}
OPTIONS are those of the space's model family, for all trials, which genlab sweep SPACE --help lists; and those of the
sweep itself:

{own_options_help()}

The trials are runs in the folder STORAGE/NAME: --run.storage, and --run.name or else the file's name. The same command
goes on where they stopped.
"""


def _refuse_varied(space: Space, words: Sequence[str]) -> None:
    """Refuse an option that would have no effect, as the space varies it."""
    given = [word.partition("=")[0].removeprefix("--") for word in words if word.startswith("--")]
    for option in given:
        name = option.replace("-", "_").replace(".no_", ".")  # --run.no-exact is run.exact
        if name in space.vary:
            raise ConfigError(f"--{option}: the space varies {name}; leave the option out, or take it out of vary")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab sweep``.

    Args:
        arguments: the file of a space, then options of its family; by default those of this process.
    """
    path, *words = list(sys.argv[1:] if arguments is None else arguments) or [""]

    def command() -> None:
        if path in ("-h", "--help"):
            print(USAGE, end="")
            return
        if not path or path.startswith("-"):
            raise ConfigError("give the file of a search space first: genlab sweep SPACE [OPTIONS]; --help shows one")
        own, options = divide_options(words, lambda option: option.startswith("--sweep."))
        space = load_space(path)
        _refuse_varied(space, options)
        given = parse(SweepConfig, own, prog=f"genlab sweep {path}").sweep
        keep = space.keep if given.keep is None else given.keep
        seeds, per_gpu = given.seeds or space.seeds, given.per_gpu or space.per_gpu
        space = replace(space, budget=space.budget.limited_by(given), seeds=seeds, keep=keep, per_gpu=per_gpu)
        defaults = override(recipe_type(space.family).config_type(), space.options(space.base))
        config = read_family_options(space.family, options, default=defaults, prog=f"genlab sweep {path}")
        sweep(space, config, name=config.run.name or Path(path).stem)

    run_command(command)
