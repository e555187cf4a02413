"""``genlab train FAMILY``: train a model family, in one process or on a Ray cluster."""

import sys
from collections.abc import Sequence

from genlab.cli.family_options import read_family_options
from genlab.core.errors import run_command
from genlab.core.families import families
from genlab.training.launch import launch


def usage() -> str:
    """Return the text that ``genlab train --help`` prints."""
    return f"""\
usage: genlab train FAMILY [OPTIONS]

Train a model: genlab train vae --data.images DATA --run.name digits

FAMILY is one of: {", ".join(families())}
OPTIONS are the family's own: genlab train FAMILY --help lists them. Without data options a family trains on images that
genlab draws itself. Started again under its --run.name, a run goes on where it stopped. RAY_ADDRESS names the Ray
cluster to train on; without it the run starts a Ray of its own.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab train``.

    Args:
        arguments: a family, then its options; by default those of this process.
    """
    family, *options = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if family in ("-h", "--help"):
        print(usage(), end="")
    else:
        train_family(family, options, prog=f"genlab train {family}")


def train_family(family: str, arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Train ``family`` with the options on the command line; exit with status 2 on an error of the user.

    Args:
        family: the family's name.
        arguments: options of the family; by default those of this process.
        prog: name of the command in its help.
    """
    run_command(lambda: launch(family, read_family_options(family, arguments, prog=prog)))
