"""What the options of the preset faces-32 do: KID over images seen, with one option changed at a time.

    python benchmarks/stylegan_choices.py WORK --data FACES
    python benchmarks/stylegan_choices.py WORK --data FACES --few FEW

The second form trains on FEW, about a thousand of the training images of FACES, with and without adaptive discriminator
augmentation; measured is on the held-out images of FACES, of which FEW was made by ingesting some of the same files by
the same rule. KID is that of 2,000 samples in EfficientNet-Lite0's features, one seed, one CPU thread. Measurements
become rows of a CSV file, from which table and chart are made; what it holds is not trained again, and a run that was
stopped goes on.
"""

import argparse
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib import colormaps
from matplotlib.ticker import LogLocator, NullFormatter
from rig import HERE, command, machine, read_rows, say, table, versions, write_rows

from genlab.cli.evaluate import EvaluateConfig, run_evaluation
from genlab.core.storage import locate
from genlab.imaging.charts import INK, new_chart, render, style_axes
from genlab.imaging.images import Pixels, encode_png
from genlab.training.tracking import read_metrics

DOCS = HERE.parent / "docs"
CHOICES: Mapping[str, Sequence[str]] = {
    "faces-32": (),
    "R1 γ 0.08": ("--objective.r1", "0.08"),
    "R1 γ 0.005": ("--objective.r1", "0.005"),
    "batch 16": ("--run.batch", "16"),
    "batch 64": ("--run.batch", "64"),
    "learning rate 0.001": ("--optimization.learning-rate", "0.001"),
    "half the channels": ("--model.channel-base", "256", "--model.channel-max", "64"),
    "skip discriminator": ("--model.discriminator", "skip"),
    "residual generator": ("--model.form", "residual"),
    "grown progressively": (
        *("--model.form", "progressive", "--growth.stable-images", "12500", "--growth.fade-images", "12500"),
    ),
    "without mixing": ("--objective.mixing", "0"),
    "path length": ("--objective.path-length", "2"),
    "adaptive augmentation": ("--augmentation.adaptive",),
}
FEW: Mapping[str, Sequence[str]] = {
    "about 1,000 images": (),
    "about 1,000 images, adaptive augmentation": (
        "--augmentation.adaptive",
        "--augmentation.adjustment-images",
        "100000",
    ),
}
SAMPLES = 2000


class Row(NamedTuple):
    """A measurement, as the CSV file has it."""

    choice: str
    images: str
    """Images seen in training."""
    kid: str
    real_sign: str
    """Mean sign of the discriminator's outputs for training images, over the last logged steps."""


def main() -> None:
    """Train what was not measured before, print the table and draw the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", required=True, help="faces of 32x32 pixels, with a test split")
    parser.add_argument("--few", help="about a thousand of them")
    parser.add_argument("--images", type=int, default=100_000, help="each run is trained on")
    parser.add_argument("--points", type=int, default=4, help="of each curve")
    parser.add_argument("--only", nargs="+", metavar="CHOICE", help="some of them")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the CSV file and the chart")
    options = parser.parse_args()
    torch.set_num_threads(1)
    name = "stylegan-few" if options.few else "stylegan-choices"
    choices = FEW if options.few else CHOICES
    file = options.docs / "benchmarks" / f"{name}.csv"
    rows = [Row(**row) for row in read_rows(file)]
    for choice in options.only or choices:
        for point in range(1, options.points + 1):
            images = options.images * point // options.points
            if not any(row.choice == choice and row.images == str(images) for row in rows):
                rows.append(_measure(options, choice, choices[choice], images))
                write_rows(file, Row._fields, rows)
    print(f"`{command()}`\n\n{machine(range(1))}. {versions('torch')}.\n")
    print(_table(rows))
    picture = options.docs / "images" / f"{name}.png"
    picture.write_bytes(encode_png(_chart(rows, signs=bool(options.few))))
    print(f"\n{picture}")


def _measure(options: argparse.Namespace, choice: str, words: Sequence[str], images: int) -> Row:
    """Train the run of a choice until it has seen some images, and measure it."""
    name = "".join(letter if letter.isalnum() else "-" for letter in choice)
    run = options.work / name
    batch = int(words[words.index("--run.batch") + 1]) if "--run.batch" in words else 32
    said = ["genlab", "train", "stylegan", "--preset", "faces-32", "--data.images", options.few or options.data]
    said += ["--run.storage", str(options.work), "--run.name", name, "--run.workers", "0", "--run.threads", "1"]
    said += ["--run.steps", str(images // batch), "--run.figures-every", str(options.images // batch), *words]
    say(" ".join(said))
    subprocess.run(said, check=True, stdout=subprocess.DEVNULL)
    lines = [line for line in read_metrics(locate(run) / "metrics.jsonl") if line["kind"] == "train"]
    file = str(options.work / f"{name}-{images}.json")
    asked = EvaluateConfig(str(run), data=options.data, samples=SAMPLES, classifier="none", path_lengths=2, output=file)
    evaluation, _ = run_evaluation(asked)
    kid = evaluation.measurements["kid"].value
    sign = sum(line["real_sign"] for line in lines[-10:]) / len(lines[-10:])
    return Row(choice, str(images), f"{kid:.5f}", f"{sign:.3f}")


def _table(rows: Sequence[Row]) -> str:
    """A line for each choice: KID at each point."""
    points = sorted({int(row.images) for row in rows})
    lines = []
    for choice in dict.fromkeys(row.choice for row in rows):
        by_images = {int(row.images): row for row in rows if row.choice == choice}
        found = [by_images.get(images) for images in points]
        last = by_images[max(by_images)]
        lines.append([choice, *(f"{float(one.kid):.4f}" if one else "" for one in found), last.real_sign])
    heads = [f"KID, {images:,} images" for images in points]
    return table(["", *heads, "r_t at the end"], lines)


def _chart(rows: Sequence[Row], *, signs: bool) -> Pixels:
    """Draw KID, and if asked for the sign of the discriminator's outputs, over images seen."""
    drawing = new_chart(1000 if signs else 700, 420)
    axes = drawing.subplots(1, 2 if signs else 1, squeeze=False)[0]
    for axis, field, title in zip(axes, ("kid", "real_sign"), ("KID", "r_t"), strict=False):
        for place, choice in enumerate(dict.fromkeys(row.choice for row in rows)):
            mine = sorted((int(row.images), float(getattr(row, field))) for row in rows if row.choice == choice)
            style = {"color": colormaps["tab20"](place), "linewidth": 1.2} if place else {"color": INK, "linewidth": 2}
            axis.plot(*zip(*mine, strict=True), **style, marker="o", markersize=3, label=choice)
        style_axes(axis, "images seen", title)
        if field == "kid":
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
    axes[0].legend(frameon=False, fontsize=7, labelcolor=INK)
    drawing.tight_layout()
    return render(drawing, opaque=True)


if __name__ == "__main__":
    main()
