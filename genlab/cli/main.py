"""``genlab COMMAND ...``: the command line, which imports a command only when it is called."""

import difflib
import importlib
import sys

from genlab import __version__
from genlab.core.errors import run_command

COMMANDS = {
    "ingest": ("genlab.cli.ingest", "turn images into a data set of Arrow shards"),
    "inspect": ("genlab.cli.inspect", "print what is in a data set, check it, draw samples"),
    "export": ("genlab.cli.export", "write a data set back as files, or a model as ONNX or for torch.export"),
    "train": ("genlab.cli.train", "train a model family"),
    "sweep": ("genlab.cli.sweep", "train every point of a search space and compare"),
    "report": ("genlab.cli.report", "write a run's report.html"),
    "ledger": ("genlab.cli.ledger", "print what a run used of cores or GPUs, and what it lost, by cause"),
    "plan-checkpoints": ("genlab.cli.plan_checkpoints", "say how often a run should write a checkpoint"),
    "describe": ("genlab.cli.describe", "print the layers of a model, their output shapes and parameters"),
    "evaluate": ("genlab.cli.evaluate", "measure a trained model on held-out images, with intervals"),
    "compare": ("genlab.cli.compare", "put evaluations side by side, ranked only where they can be"),
    "sample": ("genlab.cli.sample", "draw pictures from a trained model"),
    "reconstruct": ("genlab.cli.reconstruct", "send a picture or a folder through a trained model and back"),
    "encode": ("genlab.cli.encode", "write the latent vectors of a picture or a folder"),
    "decode": ("genlab.cli.decode", "draw the pictures of latent vectors"),
    "interpolate": ("genlab.cli.interpolate", "go from one picture or draw to another through a trained model"),
    "mix": ("genlab.cli.mix", "give pictures that a StyleGAN draws some styles of others"),
    "translate": (
        "genlab.cli.translate",
        "translate a picture, a folder or a data set with a trained model",
    ),
    "project": ("genlab.cli.project", "find the styles by which a StyleGAN draws a picture again"),
    "edit": ("genlab.cli.edit", "change an attribute of a picture that a StyleGAN draws"),
    "directions": ("genlab.cli.directions", "find how attributes of a StyleGAN's pictures can be changed"),
    "import-weights": (
        "genlab.cli.import_weights",
        "make a model of files of StyleGAN2's or CycleGAN's published code",
    ),
    "verify-resume": ("genlab.cli.verify_resume", "prove that a killed run resumes bit for bit"),
    "verify-ddp": ("genlab.cli.verify_ddp", "prove that results do not depend on the number of workers"),
    "promote": ("genlab.cli.promote", "put a model under an alias of a folder of models, or roll it back"),
    "serve": ("genlab.cli.serve", "serve trained models over HTTP"),
    "haproxy": ("genlab.cli.haproxy", "print the settings by which Ray Serve answers through HAProxy"),
    "token": ("genlab.cli.token", "make a bearer token for a server, or take one out"),
}
"""For each command the module whose ``main(arguments)`` runs it, and a summary."""


def main() -> None:
    """Run the command that the first argument names."""
    run_command(_main)


def _main() -> None:
    match sys.argv[1:]:
        case [command, *arguments] if command in COMMANDS:
            importlib.import_module(COMMANDS[command][0]).main(arguments)
        case ["--version"]:
            print(f"genlab {__version__}")
        case [] | ["-h" | "--help"]:
            print(usage())
        case [unknown, *_]:
            near = difflib.get_close_matches(unknown, COMMANDS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            print(f"error: {unknown}: no such command{hint}\n\n{usage()}", file=sys.stderr)
            sys.exit(2)


def usage() -> str:
    """Return the text that ``genlab --help`` prints."""
    lines = [f"  {command:<16} {summary}" for command, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: genlab COMMAND [OPTIONS]     genlab COMMAND --help explains a command",
            "",
            *lines,
            "",
            "Training on a Ray cluster:",
            "  ray job submit --address http://127.0.0.1:8265 -- genlab train cyclegan ...",
        ]
    )
