"""What edits do, as a second classifier reads it that took no part in finding or calibrating them.

::

    python benchmarks/edits.py faces WORK --model RUN --encoder RUN --data FACES --judge RUN --steps 100
    python benchmarks/edits.py scenes WORK

``faces`` takes pictures of people older than 40 from the test split of FACES, which no network was trained on, projects
all of them by the same options (those that it does not know go to ``genlab project``) and edits them by ``genlab
edit``; the directions of RUN must have been found. The judge is a classifier of FACES's columns, trained on rows and
from a seed that the directions' classifier was not.

``scenes`` draws scenes, whose attributes are known, trains a StyleGAN and two classifiers on them, finds directions by
the first classifier and edits samples along them; what the second reads has its error on held-out scenes beside it.

Both go on where they were stopped, in WORK.
"""

import argparse
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from rig import command, machine, say, table, versions
from torch import Tensor

from genlab.data.format.shards import ShardSet
from genlab.data.format.splits import TEST, overlap
from genlab.editing.attributes import AttributeReader
from genlab.editing.edits import edit, start_of_seed
from genlab.editing.identity import identity_scale
from genlab.evaluation.trained_classifier import load_classifier
from genlab.imaging.images import encode_png, prepare
from genlab.metrics.identity import FaceNetwork, identity_distance
from genlab.models.stylegan import StyleGAN
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
    sub.add_argument("--skip", type=int, default=0, help="how many of the faces drawn before them are left out")
    sub.add_argument("--older-than", type=float, default=40.0)
    sub.add_argument("--years", type=float, default=20.0, help="by how many they are made younger")
    sub.add_argument("--identity", action="store_true", help="measure identity distances, too")
    sub = commands.add_parser("scenes", help="edits of drawn scenes, from the data to the figures")
    sub.set_defaults(run=scenes)
    sub.add_argument("work", type=Path)
    sub.add_argument("--scenes", type=int, default=20_000, help="how many are drawn; a tenth is held out")
    sub.add_argument("--steps", type=int, default=2400, help="of the StyleGAN, 32 images each")
    sub.add_argument("--samples", type=int, default=400, help="how many are edited")
    options, options.projection = parser.parse_known_args()
    if options.projection and options.run is not faces:
        parser.error(f"unknown: {' '.join(options.projection)}")
    torch.set_num_threads(1)
    print(f"`{command()}`\n\n{machine(range(1))}. {versions('torch')}.\n", flush=True)
    print(options.run(options))


def faces(options: argparse.Namespace) -> str:
    """Project held-out faces, make them younger and change their gender, and read all of it."""
    directory = model_directory.find_one(options.model)
    found = load_directions(directory, model_directory.describe(directory))
    read, errors = second_reader(options.judge, options.data, ("age", "gender"), found.reader.weights)
    originals, projected = options.work / "faces", options.work / "projected"
    written = write_faces(options.data, options.older_than, options.skip, options.faces, originals)
    encoder = ["--encoder", options.encoder] if options.encoder else []
    genlab("project", options.model, originals, projected, *encoder, *options.projection)
    genlab("edit", options.model, projected, options.work / "younger", "--younger", str(options.years))
    genlab("edit", options.model, projected, options.work / "gender", "--gender")

    stems = [f"{number:05}" for number in range(written)]
    starts = {kind: pictures(projected / f"{stem}-{kind}.png" for stem in stems) for kind in ("original", "projection")}
    edits = {f"{options.years:g} years younger": "younger", "gender": "gender"}
    after = {
        name: pictures(options.work / folder / f"{stem}-edit.png" for stem in stems) for name, folder in edits.items()
    }
    pairs = [("projection", "original", starts["projection"])]
    pairs += [(name, start, edited) for name, edited in after.items() for start in reversed(starts)]
    rows = [[what, start, *compared(read(starts[start]), read(shown))] for what, start, shown in pairs]
    heads = ["", "from", "age moves", "its size", "gender stays", "gender changes"]
    if options.identity:
        network = FaceNetwork("--identity")
        heads.append("identity distance")
        places = {start: network.embed(shown) for start, shown in starts.items()}
        for row, (_, start, shown) in zip(rows, pairs, strict=True):
            row.append(f"{float(identity_distance(places[start], network.embed(shown)).mean()):.2f}")
        scale = identity_scale(network, starts["original"])
        rows.append(["its mirror image", "original", *[""] * 4, f"{scale.mirrored:.2f}"])
        rows.append(["another face", "original", *[""] * 4, f"{scale.others:.2f}"])
    summary = json.loads((projected / "summary.json").read_text())
    alone = f"; the encoder alone {summary['encoded']['psnr']:.1f} dB" if "encoded" in summary else ""
    own = found.reader.errors
    return (
        f"{written} faces older than {options.older_than:g} of the split {TEST}. Projections: PSNR "
        f"{summary['projection']['psnr']:.1f} dB{alone}; {summary['seconds']:.2f} s a picture.\n\nThe second "
        f"classifier errs on all rows of the split by {errors['age']:.1f} years in the mean, and in "
        f"{errors['gender']:.1%} about the gender; the first by {own['age']:.1f} years, and in {own['gender']:.1%}.\n\n"
        + table(heads, rows)
    )


SCENE_ATTRIBUTES = ("season", "horizon", "sun_x", "lake", "houses")
SCENE_EDITS = ("season", "horizon")
"""The attributes that are edited; how far the others move is read, too."""


def scenes(options: argparse.Namespace) -> str:
    """Train on drawn scenes, find directions, edit samples, and read all of it."""
    work = options.work
    data, model = work / "data", work / "scenes"
    if not data.exists():
        halves = ["--test-fraction", 0.1, "--validation-fraction", 0.45]
        genlab("ingest", "synthetic:scenes-a", data, "--count", options.scenes, "--size", 32, *halves)
    here = ["--data.images", data, "--run.storage", work, "--run.workers", 0, "--run.threads", 1]
    fast = ["--run.precision", "bf16"]
    genlab("train", "stylegan", "--preset", "faces-32", *here, "--run.name", "scenes", "--run.steps", options.steps)
    for name, split, seed in (("reader", "train", 0), ("judge", "validation", 1)):
        targets = ["--objective.targets", *SCENE_ATTRIBUTES, "--data.split", split, "--run.seed", seed]
        genlab("train", "classifier", *here, "--run.name", name, *targets, *fast, "--run.batch", 64, "--run.epochs", 12)
    classifier = ["--classifier", work / "reader"]
    genlab("directions", model, "--data", data, "--attributes", ",".join(SCENE_ATTRIBUTES), *classifier)

    directory = model_directory.find_one(str(model))
    generator = model_directory.load(directory, "cpu")
    assert isinstance(generator, StyleGAN)
    found = load_directions(directory, model_directory.describe(directory))
    read, errors = second_reader(str(work / "judge"), data, SCENE_ATTRIBUTES, found.reader.weights)
    starts = [start_of_seed(generator, 1_000_000 + number, None) for number in range(options.samples)]
    before = read(torch.cat([edit(generator, start, found.directions[0], [0.0]) for start in starts]))
    axes = [axis.name for axis in read.axes]
    rows = []
    for direction in found.directions:
        if direction.axis.attribute in SCENE_EDITS:
            own = before[:, axes.index(direction.axis.name)]
            for effect in direction.effects:
                # As where directions are calibrated: only what is not yet as it shall be can change.
                middle = 0.0 if direction.axis.towards else float(own.median())
                chosen = [place for place, value in enumerate(own.tolist()) if (value <= middle) == (effect.amount > 0)]
                moved = torch.cat([edit(generator, starts[place], direction, [effect.amount]) for place in chosen])
                cells = [direction.axis.name, direction.method, f"{effect.amount:+.2g}"]
                rows.append([*cells, *moves(read, before[chosen], read(moved))])
    wrong = [f"{error:.1%}" if read.classes[name] else f"{error:.2g}" for name, error in errors.items()]
    return (
        f"{options.samples} samples, edited; each line is the mean over those that are not yet as asked.\n\n"
        + table(["direction", "method", "asked for", *SCENE_ATTRIBUTES], [*rows, ["errors", "", "", *wrong]])
    )


def moves(read: AttributeReader, before: Tensor, after: Tensor) -> list[str]:
    """Say how each attribute is read otherwise: mean change and size, or in what share another class is read."""
    cells, place = [], 0
    for classes in read.classes.values():
        width = 1 if len(classes) <= 2 else len(classes)
        first, then = before[:, place : place + width], after[:, place : place + width]
        place += width
        if not classes:
            change = (then - first)[:, 0]
            cells.append(f"{float(change.mean()):+.2g} ({float(change.abs().mean()):.2g})")
        else:
            one, other = (values[:, 0] > 0 if width == 1 else values.argmax(1) for values in (first, then))
            cells.append(f"{float((one != other).double().mean()):.0%} change")
    return cells


def compared(before: Tensor, after: Tensor) -> list[str]:
    """Say how age, the first column of [N, 2], and gender, the second, are read otherwise."""
    moved = after[:, 0] - before[:, 0]
    same = float(((after[:, 1] > 0) == (before[:, 1] > 0)).double().mean())
    years = [f"{float(moved.mean()):+.1f} years", f"{float(moved.abs().mean()):.1f} years"]
    return [*years, f"{same:.1%}", f"{1 - same:.1%}"]


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


def write_faces(data: Path, older_than: float, skip: int, count: int, folder: Path) -> int:
    """Write pictures of the test split whose age is above a number, drawn at random, as 00000.png and so on."""
    shards = ShardSet.open(str(data)).split(TEST)
    rows = shards.read(np.arange(len(shards)))
    [old] = np.nonzero(rows.columns["age"] > older_than)
    chosen = np.sort(np.random.default_rng(0).permutation(old)[skip : skip + count])
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(chosen):
        (folder / f"{number:05}.png").write_bytes(encode_png(rows.image[row]))
    return len(chosen)


def pictures(files: Iterable[Path]) -> Tensor:
    """Load picture files of one size: uint8 [N, H, W, 3]."""
    return torch.from_numpy(np.stack([np.asarray(prepare(file.read_bytes(), channels=3).image) for file in files]))


def genlab(*words: object) -> None:
    """Run a command of genlab; end with it where it fails."""
    said = ["genlab", *map(str, words)]
    say(" ".join(said))
    subprocess.run(said, check=True)


if __name__ == "__main__":
    main()
