"""The two tables of StyleGAN's paper, measured on runs of sweeps, beside the paper's own figures.

    genlab sweep tune_spaces/stylegan_configurations.py --data.images FACES    # table 1: configurations A to F
    genlab sweep tune_spaces/stylegan_mixing.py --data.images FACES            # table 2: style mixing
    python benchmarks/stylegan_tables.py ~/genlab-runs/stylegan_configurations ~/genlab-runs/stylegan_mixing

KID in EfficientNet-Lite0's features of held-out images, with the 95% interval of the mean over training seeds. The
paper has FID in Inception's features at 1024x1024, of other data: its numbers say which order it found, no more. Each
measurement becomes a row of a CSV file, from which the tables are made; what it holds is not measured again, so runs
may come from several machines, one after the other. After table 1 comes what each configuration changes in the one
before it, by the differences of runs with the same seed; runs that saw other numbers of images have their own tables.
"""

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rig import HERE, command, machine, read_rows, say, table, versions, write_rows
from scipy.stats import t

from genlab.cli.evaluate import EvaluateConfig, run_evaluation
from genlab.core.storage import locate, read_json
from genlab.recipes.recipe import preset_values

CONFIGURATIONS: Mapping[str, tuple[float, float]] = {
    "A": (7.79, 8.04),
    "B": (6.11, 5.25),
    "C": (5.34, 4.85),
    "D": (5.07, 4.88),
    "E": (5.06, 4.42),
    "F": (5.17, 4.40),
}
"""Table 1 of Karras et al. 2019: FID of CelebA-HQ, FFHQ."""
MIXING: Mapping[float, tuple[float, float, float, float]] = {
    0.0: (4.42, 8.22, 12.88, 17.41),
    0.5: (4.41, 6.10, 8.71, 11.61),
    0.9: (4.40, 5.11, 6.88, 9.03),
    1.0: (4.83, 5.17, 6.63, 8.40),
}
"""Table 2: FID of FFHQ by the share of mixed images in training, for 1 to 4 latents in testing."""


RESULTS = HERE.parent / "docs" / "benchmarks" / "stylegan-tables.csv"


class Row(NamedTuple):
    """A measurement of a run, as the CSV file has it."""

    configuration: str
    """A to F."""
    loss: str
    mixing: str
    """Share of images that two latents styled in training."""
    seed: str
    images: str
    """Images seen in training."""
    latents: str
    """How many latents style a sample."""
    samples: str
    kid: str


def main() -> None:
    """Measure runs, and print the tables of all that were measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", help="run directories, or folders of sweeps")
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the CSV file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [Row(**row) for row in read_rows(options.results)]
    for folder in options.runs:
        for run in _runs(folder):
            rows = _measured(run, options.samples, rows)
            write_rows(options.results, Row._fields, sorted(rows))
    print(f"`{command()}`\n\n{machine(range(1))}. {versions('torch')}.\n")
    print("The paper's figures are FID of other data, at 1024x1024.\n")
    for images, samples in dict.fromkeys((row.images, row.samples) for row in rows):
        alike = [row for row in rows if (row.images, row.samples) == (images, samples)]
        print(f"After {int(images):,} images, of {int(samples):,} samples:\n")
        print(_configurations(alike), _verdicts(alike), _mixing(alike), sep="\n\n", end="\n\n")


def _runs(folder: Path) -> list[str]:
    """List the runs of a sweep that ended well, or the run itself."""
    sweep = locate(str(folder / "sweep.json"))
    if not sweep.exists():
        return [str(folder)]
    return [trial["run"] for trial in read_json(sweep)["trials"] if not trial["error"]]


def _measured(run: str, samples: int, rows: list[Row]) -> list[Row]:
    """Return the rows and those of a run: of configurations E and F one for each number of latents."""
    about = read_json(locate(run) / "model" / "genlab.json")["provenance"]
    config = read_json(locate(run) / "config.json")["config"]
    name = _configuration(config)
    for latents in range(1, 5 if name in "EF" else 2):
        start = Row(
            name,
            config["objective"]["loss"],
            f"{config['objective']['mixing']:g}",
            str(config["run"]["seed"]),
            str(about["images"]),
            str(latents),
            str(samples),
            "",
        )
        if not any(row[:-1] == start[:-1] for row in rows):
            say(f"{run}: {name}, {latents} latents")
            file = str(locate(run) / f"evaluation-{latents}.json")
            asked = EvaluateConfig(run, samples=samples, classifier="none", path_lengths=2, output=file)
            evaluation, _ = run_evaluation(asked, {"latents": latents})
            rows = [*rows, start._replace(kid=f"{evaluation.measurements['kid'].value:.5f}")]
    return rows


def _configuration(config: Mapping[str, Any]) -> str:
    """Tell which preset a run's config has, whatever its loss and the share of its mixed images."""
    for name in reversed(CONFIGURATIONS):
        fits = True
        for option, value in preset_values("stylegan", name).items():
            section, _, field = option.partition(".")
            if option not in ("objective.loss", "objective.mixing", "optimization.learning_rate"):
                fits = fits and config[section][field] == value
        if fits and (name != "F" or config["objective"]["mixing"] > 0):
            return name
    raise SystemExit("a run of none of the presets A to F")


def _configurations(rows: Sequence[Row]) -> str:
    """Table 1, for each loss that was measured."""
    losses = sorted({row.loss for row in rows if row.configuration != "A"})
    lines = []
    for name, published in CONFIGURATIONS.items():
        cells = [name]
        for loss in losses:
            own = "wgan-gp" if name == "A" else loss
            mixing = "0.9" if name == "F" else "0"
            found = [row for row in rows if row[:3] == (name, own, mixing) and row.latents == "1"]
            cells += [_mean([float(row.kid) for row in found]), str(len(found))]
        lines.append([*cells, *(f"{fid:.2f}" for fid in published)])
    heads = [head for loss in losses for head in (f"KID, A wgan-gp, others {loss}", "seeds")]
    return table(["configuration", *heads, "paper: FID, CelebA-HQ", "paper: FID, FFHQ"], lines)


def _verdicts(rows: Sequence[Row]) -> str:
    """What each row of table 1 changes in KID, by the differences of runs with the same seed: mean and 95% interval."""
    lines = []
    for loss in sorted({row.loss for row in rows if row.configuration != "A"}):
        kids: dict[str, dict[str, float]] = {}
        for row in rows:
            plain = row.mixing == ("0.9" if row.configuration == "F" else "0")
            if row.latents == "1" and plain and row.loss == ("wgan-gp" if row.configuration == "A" else loss):
                kids.setdefault(row.configuration, {})[row.seed] = float(row.kid)
        for before, after in pairwise(CONFIGURATIONS):
            one, other = kids.get(before, {}), kids.get(after, {})
            changes = [other[seed] - one[seed] for seed in sorted(one.keys() & other.keys())]
            published = [CONFIGURATIONS[after][column] - CONFIGURATIONS[before][column] for column in range(2)]
            lines.append(
                [
                    *(f"{before} to {after}", loss if before != "A" else f"wgan-gp, then {loss}"),
                    *(_mean(changes, "+"), str(len(changes)), _verdict(changes)),
                    *(f"{change:+.2f}" for change in published),
                ]
            )
    heads = ["step", "loss", "change of KID", "seeds", "", "paper: FID, CelebA-HQ", "paper: FID, FFHQ"]
    return table(heads, lines)


def _verdict(changes: Sequence[float]) -> str:
    """Tell whether the mean of changes differs from 0, by Student's test at 5%."""
    if len(changes) < 2:
        return "one seed: cannot be told"
    if abs(statistics.mean(changes)) <= _half_interval(changes):
        return "cannot be told"
    return "better" if statistics.mean(changes) < 0 else "worse"


def _mixing(rows: Sequence[Row]) -> str:
    """Table 2."""
    lines = []
    for share, published in MIXING.items():
        for latents, fid in enumerate(published, 1):
            key = ("F" if share else "E", "nonsaturating", f"{share:g}")
            one, kids = (
                {row.seed: float(row.kid) for row in rows if row[:3] == key and row.latents == str(number)}
                for number in (1, latents)
            )
            more = _mean([kids[seed] - one[seed] for seed in kids], "+") if latents > 1 else ""
            lines.append(
                [
                    *(f"{share:.0%}", str(latents), _mean([*kids.values()]), more, str(len(kids))),
                    *(f"{fid:.2f}", f"{fid - published[0]:+.2f}" if latents > 1 else ""),
                ]
            )
    heads = ["mixed in training", "latents in testing", "KID", "more than with one", "seeds"]
    return table([*heads, "paper: FID, FFHQ", "more than with one"], lines)


def _mean(values: Sequence[float], sign: str = "") -> str:
    if len(values) < 2:
        return f"{values[0]:{sign}.4f}" if values else ""
    return f"{statistics.mean(values):{sign}.4f} ± {_half_interval(values):.4f}"


def _half_interval(values: Sequence[float]) -> float:
    """Return half of Student's 95% interval of the mean."""
    return float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))


if __name__ == "__main__":
    main()
