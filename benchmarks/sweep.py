"""What a sweep costs beside its training, and what stopping trials early saves.

``python benchmarks/sweep.py cost --data DIGITS``: twelve short trials of a VAE (six latent sizes, two seeds) are
trained in turn

* as ``genlab sweep`` trains them;
* as twelve ``genlab train``, one after another, each with all cores;
* as Ray Tune's own guide has it: a function that runs a TorchTrainer of one worker, side by side (``sweep_ray.py``).
  What its workers train is the same, by the same code, so the difference is what leads from trial to trial.

Printed are seconds from start to end; of the trials of one place, the seconds from the last step of one to the first
of the next; and how fast a trial trains under Ray Tune beside the same run outside, one at a time, with one thread.

``python benchmarks/sweep.py asha --data DIGITS``: a grid of 27 points, nine latent sizes and three learning rates, is
trained to its end; then as often as ``--orders`` says with ASHA, in another order of its points each time. A trial is
the same run in all of them, as far as it goes. Printed are the images seen by each, and how far the point that ASHA
chose is from the best of the grid, by the −ELBO of validation rows.
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rig import command, machine, versions

from genlab.core.storage import locate
from genlab.data.format.shards import ShardSet
from genlab.training.tracking import read_metrics

REPOSITORY = Path(__file__).resolve().parents[1]
LATENTS, SEEDS = (2, 4, 8, 16, 32, 64), (0, 1)
GENLAB = [sys.executable, "-c", "from genlab.cli.main import main; main()"]
SPACE = """\
from genlab.sweeps.space import Space
SPACE = Space(
    family="vae", vary={"model.latent_dim": LATENTS}, metric="val/neg_elbo", mode="min", seeds=SEEDS
)
"""

ASHA = """\
from genlab.sweeps.space import Asha, Space
SPACE = Space(
    family="vae",
    vary={{"model.latent_dim": {latents}, "optimization.learning_rate": {rates}}},
    metric="val/neg_elbo",
    mode="min",
    scheduler={scheduler},
)
"""
METRIC = "val/neg_elbo"
REDUCTION = 4
"""At a rung one trial in four goes on, to four times as many images."""


def options(data: Path, steps: int, threads: int | None) -> list[str]:
    """The options that all trials share."""
    words = ["--data.images", str(data), "--run.steps", str(steps), "--run.log-every", "5"]
    return words if threads is None else [*words, "--run.threads", str(threads)]


def sweep(
    data: Path, steps: int, folder: Path, latents: Sequence[int], seeds: Sequence[int], threads: int | None = None
) -> None:
    """Train by ``genlab sweep``."""
    space = folder / "space.py"
    space.write_text(SPACE.replace("LATENTS", str(list(latents))).replace("SEEDS", str(len(seeds))))
    words = ["--run.storage", str(folder), "--run.name", "runs", *options(data, steps, threads)]
    call([*GENLAB, "sweep", str(space), *words])


def jobs(
    data: Path, steps: int, folder: Path, latents: Sequence[int], seeds: Sequence[int], threads: int | None = None
) -> None:
    """Train by one ``genlab train`` after another."""
    for latent in latents:
        for seed in seeds:
            words = ["--model.latent-dim", str(latent), "--run.seed", str(seed), "--run.name", f"{latent}-{seed}"]
            call(
                [*GENLAB, "train", "vae", "--run.storage", str(folder / "runs"), *words, *options(data, steps, threads)]
            )


def ray_guide(data: Path, steps: int, folder: Path, latents: Sequence[int], seeds: Sequence[int]) -> None:
    """Train as Ray Tune's guide does."""
    words = ["--data", str(data), "--steps", str(steps), "--storage", str(folder / "runs")]
    words += ["--latents", *map(str, latents), "--seeds", *map(str, seeds)]
    call([sys.executable, str(REPOSITORY / "benchmarks" / "sweep_ray.py"), *words])


def call(words: Sequence[str]) -> None:
    """Run a command; if it fails, show what it said."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout}")


def steps_of(folder: Path) -> list[tuple[float, float]]:
    """Seconds since 1970 of the first and last logged step of each run in ``folder``, in the order of their starts."""
    found = []
    for file in folder.glob("**/metrics.jsonl"):
        times = [line["time"] for line in read_metrics(locate(file)) if line["kind"] == "train"]
        found.append((times[0], times[-1]))
    return sorted(found)


def gaps(spans: Sequence[tuple[float, float]], places: int) -> list[float]:
    """Seconds from the end of the steps of each run to the first logged step of the one that took its place."""
    ends: list[float] = []
    found = []
    for first, last in spans:
        if len(ends) == places:
            found.append(first - ends.pop(0))
        ends.append(last)
        ends.sort()
    return found


def speed(folder: Path) -> float:
    """Median images per second of the runs in ``folder``, without the first lines of each."""
    rates = [
        line["images_per_second"]
        for file in folder.glob("**/metrics.jsonl")
        for line in read_metrics(locate(file))[2:]
        if line["kind"] == "train"
    ]
    return statistics.median(rates)


def cost(given: argparse.Namespace, root: Path) -> None:
    """Compare the ways to train twelve trials, and print the figures."""
    ways: dict[str, Callable[[Path, int, Path, Sequence[int], Sequence[int]], None]] = {
        "genlab sweep": sweep,
        "genlab train, one after another": jobs,
        "TorchTrainer in a function, Ray Tune's guide": ray_guide,
    }
    places = {"genlab sweep": 2, "genlab train, one after another": 1}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    between: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(given.rounds):
        for name, way in ways.items():
            folder = root / f"{number}-{len(seconds[name])}-{list(ways).index(name)}"
            folder.mkdir()
            began = time.monotonic()
            way(given.data, given.steps, folder, LATENTS, SEEDS)
            seconds[name].append(time.monotonic() - began)
            between[name] += gaps(steps_of(folder), places.get(name, 2))
            print(f"{name}: {seconds[name][-1]:.0f} s, {between[name][-1]:.1f} s between trials", flush=True)
    rates: dict[str, list[float]] = {"inside": [], "outside": []}
    for number in range(given.rounds):
        for where, way_alone in {"inside": sweep, "outside": jobs}.items():
            folder = root / f"alone-{number}-{where}"
            folder.mkdir()
            way_alone(given.data, given.alone_steps, folder, (16,), (0,), threads=1)
            rates[where].append(speed(folder))
    print(f"\n| {len(LATENTS) * len(SEEDS)} trials of {given.steps} steps | s | in that of genlab sweep | s between |")
    print("| --- | --- | --- | --- |")
    best = statistics.median(seconds["genlab sweep"])
    for name, taken in seconds.items():
        took = statistics.median(taken)
        print(f"| {name} | {took:.0f} | {took / best:.2f} | {statistics.median(between[name]):.1f} |")
    ratios = [a / b for a, b in zip(rates["inside"], rates["outside"], strict=True)]
    print(
        f"\none trial of one thread: {statistics.median(rates['inside']):,.0f} images/s under Ray Tune, "
        f"{statistics.median(rates['outside']):,.0f} outside: {statistics.median(ratios):.3f} "
        f"({', '.join(f'{ratio:.3f}' for ratio in ratios)})"
    )


def asha(given: argparse.Namespace, root: Path) -> None:
    """Compare ASHA with the whole grid, and print the figures."""
    images = given.epochs * len(ShardSet.open(given.data).split("train"))
    latents, rates = [2, 3, 4, 6, 8, 12, 16, 32, 64], [3e-4, 1e-3, 3e-3]
    results: dict[str, dict[str, list[Any]]] = {}
    for number in range(given.orders + 1):
        name, scheduler = "whole grid", "None"
        if number:
            name, scheduler = f"ASHA, order {number}", f"Asha(grace={images // REDUCTION**2}, reduction={REDUCTION})"
            random.Random(number).shuffle(latents)
            random.Random(number).shuffle(rates)
        space = root / f"order{number}.py"
        space.write_text(ASHA.format(latents=latents, rates=rates, scheduler=scheduler))
        words = ["--run.epochs", str(given.epochs), "--run.precision", "bf16", "--data.images", str(given.data)]
        call([*GENLAB, "sweep", str(space), "--run.storage", str(root), *words])
        results[name] = pq.read_table(root / space.stem / "results.parquet").to_pydict()
        print(f"{name}: {sum(results[name]['images']):,} images", flush=True)
    grid = results["whole grid"]
    figures, of_all = sorted(grid[METRIC]), sum(grid["images"])
    print(f"\nthe grid's {METRIC}: {', '.join(f'{figure:.2f}' for figure in figures)}")
    print("\n| | images | of the grid's | chosen | −ELBO | of the grid's best |\n| --- | --- | --- | --- | --- | --- |")
    for name, found in results.items():
        ended = [row for row, images in enumerate(found["images"]) if images == max(found["images"])]  # to the end
        best = min(ended, key=lambda row: found[METRIC][row])
        seen, figure = sum(found["images"]), found[METRIC][best]
        point = (
            f"latent size {found['model.latent_dim'][best]}, learning rate {found['optimization.learning_rate'][best]}"
        )
        print(f"| {name} | {seen:,} | {seen / of_all:.2f} | {point} | {figure:.2f} | {figure / figures[0] - 1:+.2%} |")


def main() -> None:
    """Measure, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    of_cost, of_asha = commands.add_parser("cost"), commands.add_parser("asha")
    of_cost.set_defaults(run=cost)
    of_asha.set_defaults(run=asha)
    for one in (of_cost, of_asha):
        one.add_argument("--data", type=Path, required=True, help="a data set of digits")
    of_cost.add_argument("--steps", type=int, default=150, help="steps of each of the twelve trials")
    of_cost.add_argument("--rounds", type=int, default=2)
    of_cost.add_argument("--alone-steps", type=int, default=1500, help="steps of the trial that is measured alone")
    of_asha.add_argument("--epochs", type=int, default=3, help="epochs of a trial that is not stopped")
    of_asha.add_argument("--orders", type=int, default=3)
    given = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0"}
    print(f"$ {command()}\n{machine(sorted(os.sched_getaffinity(0)))}\n{versions('torch', 'ray')}\n", flush=True)
    root = Path(tempfile.mkdtemp(prefix="gl-sweep-"))
    try:
        given.run(given, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
