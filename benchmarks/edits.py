"""What edits of held-out faces do, as a second classifier reads it that took no part in finding or calibrating them.

::

    python benchmarks/edits.py faces WORK --model RUN --encoder RUN --data FACES --judge RUN --steps 100

Takes pictures of people older than 40 from the test split of FACES, which no network was trained on, projects all of
them by the same options (those that it does not know go to ``genlab project``) and edits them by ``genlab edit``; the
directions of RUN must have been found. The judge is a classifier of FACES's columns, trained on rows and from a seed
that the directions' classifier was not. It goes on where it was stopped, in WORK.
"""

import argparse
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from rig import command, machine, say, table, versions
from torch import Tensor

from genlab.data.format.shards import ShardSet
from genlab.data.format.splits import TEST, overlap
from genlab.editing.attributes import AttributeReader
from genlab.evaluation.trained_classifier import load_classifier
from genlab.imaging.images import encode_png, prepare
from genlab.recipes.recipe import DomainInfo
from genlab.store import model_directory
from genlab.store.directions import load_directions


def main() -> None:
    """Run a subcommand, print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    sub = commands.add_parser("faces", help="edits of held-out faces")
    sub.set_defaults(run=faces)
    sub.add_argument("work", type=Path)
    sub.add_argument("--model", required=True, help="a StyleGAN with directions of age and gender")
    sub.add_argument("--encoder", help="an encoder of it")
    sub.add_argument("--data", required=True, type=Path)
    sub.add_argument("--judge", required=True, help="the second classifier")
    sub.add_argument("--faces", type=int, default=200)
    sub.add_argument("--older-than", type=float, default=40.0)
    sub.add_argument("--years", type=float, default=20.0, help="by how many they are made younger")
    options, options.projection = parser.parse_known_args()
    torch.set_num_threads(1)
    print(f"`{command()}`\n\n{machine(range(1))}. {versions('torch')}.\n", flush=True)
    print(options.run(options))


def faces(options: argparse.Namespace) -> str:
    """Project held-out faces, make them younger and change their gender, and read all of it."""
    directory = model_directory.find_one(options.model)
    found = load_directions(directory, model_directory.describe(directory))
    read, errors = second_reader(options.judge, options.data, ("age", "gender"), found.reader.weights)
    originals, projected = options.work / "faces", options.work / "projected"
    written = write_faces(options.data, options.older_than, options.faces, originals)
    encoder = ["--encoder", options.encoder] if options.encoder else []
    genlab("project", options.model, originals, projected, *encoder, *options.projection)
    genlab("edit", options.model, projected, options.work / "younger", "--younger", str(options.years))
    genlab("edit", options.model, projected, options.work / "gender", "--gender")

    stems = [f"{number:05}" for number in range(written)]
    seen = {
        "photo": read_files(read, [projected / f"{stem}-original.png" for stem in stems]),
        "projection": read_files(read, [projected / f"{stem}-projection.png" for stem in stems]),
    }
    edits = {f"{options.years:g} years younger": "younger", "gender": "gender"}
    rows = [compared("projection", "photo", seen["photo"], seen["projection"])]
    for name, folder in edits.items():
        after = read_files(read, [options.work / folder / f"{stem}-edit.png" for stem in stems])
        rows += [compared(name, start, before, after) for start, before in reversed(seen.items())]
    summary = json.loads((projected / "summary.json").read_text())
    alone = f"; the encoder alone {summary['encoded']['psnr']:.1f} dB" if "encoded" in summary else ""
    own = found.reader.errors
    return (
        f"{written} faces older than {options.older_than:g} of the split {TEST}. Projections: PSNR "
        f"{summary['projection']['psnr']:.1f} dB{alone}; {summary['seconds']:.2f} s a picture.\n\nThe second "
        f"classifier errs on all rows of the split by {errors['age']:.1f} years in the mean, and in "
        f"{errors['gender']:.1%} about the gender; the first by {own['age']:.1f} years, and in {own['gender']:.1%}.\n\n"
        + table(["", "from", "age moves", "its size", "gender stays", "gender changes"], rows)
    )


def compared(what: str, start: str, before: Tensor, after: Tensor) -> list[str]:
    """Say how age, the first column of [N, 2], and gender, the second, are read otherwise."""
    moved = after[:, 0] - before[:, 0]
    same = float(((after[:, 1] > 0) == (before[:, 1] > 0)).double().mean())
    years = [f"{float(moved.mean()):+.1f} years", f"{float(moved.abs().mean()):.1f} years"]
    return [what, start, *years, f"{same:.1%}", f"{1 - same:.1%}"]


def second_reader(
    run: str, data: Path, attributes: Sequence[str], first: str
) -> tuple[AttributeReader, Mapping[str, float]]:
    """Load a second classifier, and measure its errors on the test split of a data set.

    Args:
        run: its run or model directory.
        data: the data set.
        attributes: what it shall read.
        first: SHA-256 of the weights of the classifier that found directions.
    """
    shards = ShardSet.open(str(data))
    info = DomainInfo.of(shards.manifest, len(shards))
    trained = load_classifier(model_directory.find_one(run), "cpu", needs_label=False)
    if trained.weights == first:
        raise SystemExit(f"{run}: the directions were found by it; name a second classifier")
    if trained.data == shards.checksum and overlap(trained.split, TEST):
        raise SystemExit(f"{run}: was trained on the split {TEST}")
    read = AttributeReader(trained.model, {name: info.column(name).name for name in attributes}, trained.label_names)
    return read, read.errors(shards.split(TEST))


def write_faces(data: Path, older_than: float, count: int, folder: Path) -> int:
    """Write pictures of the test split whose age is above a number, drawn at random, as 00000.png and so on."""
    shards = ShardSet.open(str(data)).split(TEST)
    rows = shards.read(np.arange(len(shards)))
    [old] = np.nonzero(rows.columns["age"] > older_than)
    chosen = np.sort(np.random.default_rng(0).permutation(old)[:count])
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(chosen):
        (folder / f"{number:05}.png").write_bytes(encode_png(rows.image[row]))
    return len(chosen)


def read_files(read: Callable[[Tensor], Tensor], files: Sequence[Path]) -> Tensor:
    """Read picture files of one size: float64 [N, axes]."""
    pictures = [np.asarray(prepare(file.read_bytes(), channels=3).image) for file in files]
    return read(torch.from_numpy(np.stack(pictures)))


def genlab(*words: object) -> None:
    """Run a command of genlab; end with it where it fails."""
    said = ["genlab", *map(str, words)]
    say(" ".join(said))
    subprocess.run(said, check=True)


if __name__ == "__main__":
    main()
