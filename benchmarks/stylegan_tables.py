"""The two tables of StyleGAN's paper, measured on runs of a sweep, beside the paper's own figures.

    genlab sweep tune_spaces/stylegan_configurations.py --data.images FACES
    python benchmarks/stylegan_tables.py ~/genlab-runs/stylegan_configurations        # table 1: configurations A to F
    genlab sweep tune_spaces/stylegan_mixing.py --data.images FACES
    python benchmarks/stylegan_tables.py ~/genlab-runs/stylegan_mixing                # table 2: style mixing

KID in EfficientNet-Lite0's features of held-out images, with the 95% interval of the mean over training seeds. The
paper has FID in Inception's features at 1024x1024, of other data: its numbers say which order it found, no more. What
was measured before is not measured again.
"""

import argparse
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rig import command, machine, say, table, versions
from scipy.stats import t

from genlab.cli.evaluate import EvaluateConfig, run_evaluation
from genlab.core.storage import locate, read_json
from genlab.evaluation.measurements import Evaluation

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


def main() -> None:
    """Measure the runs of a sweep and print the table that they belong to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="folder of the sweep, which holds its sweep.json")
    parser.add_argument("--samples", type=int, default=10_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"`{command()}`\n\n{machine(range(1))}. {versions('torch')}.\n")
    trials = [trial for trial in read_json(locate(str(options.sweep / "sweep.json")))["trials"] if not trial["error"]]
    if any("objective.mixing" in trial["point"] for trial in trials):
        print(_mixing(trials, options.samples))
    else:
        print(_configurations(trials, options.samples))


def _configurations(trials: list[dict[str, Any]], samples: int) -> str:
    rows = []
    for name, (celeba, ffhq) in CONFIGURATIONS.items():
        found = [_kid(trial["run"], samples) for trial in trials if trial["point"]["preset"] == name]
        rows.append([name, _mean(found), str(len(found)), f"{celeba:.2f}", f"{ffhq:.2f}"])
    return table(["configuration", "KID", "seeds", "paper: FID, CelebA-HQ", "paper: FID, FFHQ"], rows)


def _mixing(trials: list[dict[str, Any]], samples: int) -> str:
    rows = []
    for share, published in MIXING.items():
        runs = [trial["run"] for trial in trials if trial["point"]["objective.mixing"] == share]
        for latents, fid in enumerate(published, 1):
            found = [_kid(run, samples, latents) for run in runs]
            rows.append([f"{share:.0%}", str(latents), _mean(found), str(len(found)), f"{fid:.2f}"])
    return table(["mixed in training", "latents in testing", "KID", "seeds", "paper: FID, FFHQ"], rows)


def _kid(run: str, samples: int, latents: int = 1) -> float:
    """Measure the KID of a run's model, or read what was measured before."""
    file = locate(run) / f"evaluation-{samples}-{latents}.json"
    if not file.exists():
        say(f"{run}: {latents} latents")
        config = EvaluateConfig(run, samples=samples, classifier="none", output=str(file))
        run_evaluation(config, {"latents": latents})
    return Evaluation.load(file).measurements["kid"].value


def _mean(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else ""
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.4f} ± {half:.4f}"


if __name__ == "__main__":
    main()
