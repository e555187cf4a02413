"""An epoch of the course report's VAE, and what it learns: genlab beside the Keras example and a plain PyTorch loop.

    python benchmarks/vae.py --data /data/mnist      # idx files, all 60,000 digits

All train the same network (69,076 + 65,089 parameters, Glorot uniform) on the same digits with Adam at 1e-3, batch
128, Bernoulli likelihood on grey levels. Each is a process of its own on the same cores; they take turns, an epoch
each. Only training is timed: start-up, compilation (a first epoch that is not counted) and the test are not. The test
is −ELBO of the 10,000 test digits with one draw of z for each.

* genlab: its loop, in one process, from shards; in fp32 and in bf16 (run.precision).
* Keras: keras.io's VAE example with the given backend, its epoch as `fit` runs it, compiled.
* PyTorch: what one would write: torchvision's MNIST, ToTensor, a DataLoader with the best number of workers, fp32.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rig import Process, alternate, command, machine, ratio, say, spread, table, versions

BATCH = 128
LATENT = 2
CONTENDERS = {
    "genlab, bf16": ("genlab", "bf16"),
    "genlab, fp32": ("genlab", "fp32"),
    "Keras, jax": ("keras", "jax"),
    "Keras, torch": ("keras", "torch"),
    "PyTorch, plain loop": ("plain", ""),
}
Epochs = Iterator[dict[str, float]]
"""Trains an epoch when asked for the next value: seconds, and −ELBO of the test digits."""


def main() -> None:
    """Let the contenders take turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of MNIST's four idx files, plain or .gz")
    parser.add_argument("--epochs", type=int, default=10, help="epochs that count, after a first that does not")
    parser.add_argument("--threads", type=int, default=2, help="cores to pin contenders to, and threads of each")
    parser.add_argument("--only", nargs="*", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(*options.child, options.data, options.threads, options.seed)
        return
    print(f"`{command()}`\n\n{machine(range(options.threads))}. {versions('torch', 'torchvision', 'keras', 'jax')}.\n")
    with tempfile.TemporaryDirectory(prefix="genlab-vae-") as folder:
        processes, losses = {}, dict[str, list[float]]()
        for name in options.only:
            words = ["vae.py", "--data", str(options.data), "--threads", str(options.threads)]
            words += ["--seed", str(options.seed), "--child", *CONTENDERS[name]]
            processes[name] = Process(words, range(options.threads), Path(folder) / f"{name}.log")
            processes[name].ask()
            losses[name] = []

        def turn(name: str) -> Callable[[], float]:
            def epoch() -> float:
                answer = processes[name].ask()
                losses[name].append(answer["neg_elbo"])
                say(f"{name}: {answer['seconds']:.2f} s, test -ELBO {answer['neg_elbo']:.2f}")
                return float(answer["seconds"])

            return epoch

        found = alternate({name: turn(name) for name in options.only}, options.epochs)
        for process in processes.values():
            process.close()
    first, *_ = options.only
    rows = [
        [name, spread(seconds), ratio(seconds, found[first]), f"{losses[name][-1]:.2f}"]
        for name, seconds in found.items()
    ]
    loss = f"test −ELBO, epoch {options.epochs + 1}"
    print(table(["", "seconds an epoch: median (min–max)", f"{first} is × as fast", loss], rows))


def _child(kind: str, how: str, data: Path, threads: int, seed: int) -> None:
    answers = {"genlab": _genlab, "keras": _keras, "plain": _plain}[kind](how, data, threads, seed)
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is not an answer
    print(json.dumps({"ready": True}), file=out, flush=True)
    for _ in sys.stdin:
        print(json.dumps(next(answers)), file=out, flush=True)


def _genlab(precision: str, data: Path, threads: int, seed: int) -> Epochs:
    """The loop runs in a thread that waits, at the end of each epoch, until it is asked for the next one."""
    import queue
    import threading

    from genlab.core.config import override
    from genlab.recipes.vae import VAEConfig
    from genlab.training.console import ProgressUpdate, RunConsole
    from genlab.training.loop import train
    from genlab.training.plan import make_plan, start_or_resume
    from genlab.training.session import LocalSession

    folder = tempfile.mkdtemp(prefix="genlab-vae-")
    ingest = [str(Path(sys.executable).with_name("genlab")), "ingest", f"mnist:{data}", f"{folder}/mnist"]
    subprocess.run(ingest, check=True, stdout=sys.stderr)
    changes: dict[str, Any] = {
        "run.storage": folder, "run.name": "run", "run.workers": 0, "run.precision": precision, "run.epochs": 1000,
        "run.seed": seed, "run.batch": BATCH, "run.figures_every": 10**6, "data.images": f"{folder}/mnist",
    }  # fmt: skip
    plan = make_plan("vae", override(VAEConfig(), changes))
    start_or_resume(plan)
    wanted, done = queue.Queue[None](), queue.Queue[dict[str, float]]()

    class Turns(LocalSession):
        """Keeps the times at which steps were logged; what lies between the last and the first is not training."""

        marks: list[tuple[float, int]] = []  # noqa: RUF012

        def progress(self, update: ProgressUpdate) -> None:
            self.marks.append((time.perf_counter(), update.step))

        def report(self, metrics: Mapping[str, float]) -> None:
            (began, first), (ended, last) = self.marks[0], self.marks[-1]
            steps = plan.rows / BATCH
            done.put({"seconds": (ended - began) / (last - first) * steps, "neg_elbo": metrics["test/neg_elbo"]})
            self.marks.clear()
            wanted.get()

    def run() -> None:
        wanted.get()
        train(plan, Turns(RunConsole(), threads))

    threading.Thread(target=run, daemon=True).start()
    while True:
        wanted.put(None)
        yield done.get()


def _keras(backend: str, data: Path, threads: int, seed: int) -> Epochs:
    """https://keras.io/examples/generative/vae, with its train_step written so that every backend can run it."""
    os.environ["KERAS_BACKEND"] = backend
    if backend == "torch":
        import torch

        torch.set_num_threads(threads)
    import keras
    from keras import layers, ops

    keras.utils.set_random_seed(seed)

    class Sampling(layers.Layer):  # type: ignore[misc, unused-ignore]
        """Draws z, and adds the KL term to the loss."""

        def __init__(self) -> None:
            super().__init__()
            self.seeds = keras.random.SeedGenerator(seed)

        def call(self, inputs: Any) -> Any:
            mean, log_variance = inputs
            kl = -0.5 * (1 + log_variance - ops.square(mean) - ops.exp(log_variance))
            self.add_loss(ops.mean(ops.sum(kl, axis=1)))
            return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.seeds)

    images = keras.Input(shape=(28, 28, 1))
    x = layers.Conv2D(32, 3, activation="relu", strides=2, padding="same")(images)
    x = layers.Conv2D(64, 3, activation="relu", strides=2, padding="same")(x)
    x = layers.Dense(16, activation="relu")(layers.Flatten()(x))
    z = Sampling()([layers.Dense(LATENT)(x), layers.Dense(LATENT)(x)])
    x = layers.Reshape((7, 7, 64))(layers.Dense(7 * 7 * 64, activation="relu")(z))
    x = layers.Conv2DTranspose(64, 3, activation="relu", strides=2, padding="same")(x)
    x = layers.Conv2DTranspose(32, 3, activation="relu", strides=2, padding="same")(x)
    model = keras.Model(images, layers.Conv2DTranspose(1, 3, activation="sigmoid", padding="same")(x))

    def reconstruction(truth: Any, drawn: Any) -> Any:
        return ops.sum(keras.losses.binary_crossentropy(truth, drawn), axis=(1, 2))

    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=reconstruction)
    train, test = (_digits(data, name)[..., None].astype("float32") / 255 for name in ("train", "t10k"))
    while True:
        began = time.perf_counter()
        model.fit(train, train, epochs=1, batch_size=BATCH, verbose=0)
        seconds = time.perf_counter() - began
        yield {"seconds": seconds, "neg_elbo": float(model.evaluate(test, test, batch_size=BATCH, verbose=0))}


def _plain(_: str, data: Path, threads: int, seed: int) -> Epochs:
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision.datasets import MNIST
    from torchvision.transforms import ToTensor

    class VAE(nn.Module):
        """The report's."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(
                nn.Conv2d(1, 32, 3, stride=2, padding=1), nn.ReLU(),
                nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
                nn.Flatten(), nn.Linear(64 * 7 * 7, 16), nn.ReLU(),
            )  # fmt: skip
            self.mean, self.log_variance = nn.Linear(16, LATENT), nn.Linear(16, LATENT)
            self.decoder = nn.Sequential(
                nn.Linear(LATENT, 64 * 7 * 7), nn.ReLU(), nn.Unflatten(1, (64, 7, 7)),
                nn.ConvTranspose2d(64, 64, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),
                nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),
                nn.ConvTranspose2d(32, 1, 3, padding=1),
            )  # fmt: skip

        def forward(self, images: Any) -> Any:
            """−ELBO of the batch."""
            features = self.encoder(images)
            mean, log_variance = self.mean(features), self.log_variance(features)
            logits = self.decoder(mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean))
            errors = F.binary_cross_entropy_with_logits(logits, images, reduction="sum")
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
            return (errors + kl) / len(images)

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    folder = Path(tempfile.mkdtemp(prefix="genlab-vae-")) / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for file in data.glob("*ubyte*"):
        (folder / file.name).symlink_to(file.resolve())
        if file.suffix == ".gz":
            (folder / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    train = MNIST(folder.parent.parent, train=True, transform=ToTensor())
    test = MNIST(folder.parent.parent, train=False, transform=ToTensor())
    model = VAE()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def epoch(workers: int) -> float:
        began = time.perf_counter()
        for images, _ in DataLoader(train, BATCH, shuffle=True, num_workers=workers):
            optimizer.zero_grad()
            model(images).backward()
            optimizer.step()
        return time.perf_counter() - began

    initial = {name: value.clone() for name, value in model.state_dict().items()}
    best = min((0, 1, 2), key=epoch)
    say(f"PyTorch: {best} workers")
    model.load_state_dict(initial)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    while True:
        seconds = epoch(best)
        with torch.no_grad():
            losses = [model(images).item() * len(images) for images, _ in DataLoader(test, BATCH)]
        yield {"seconds": seconds, "neg_elbo": sum(losses) / len(test)}


def _digits(data: Path, split: str) -> NDArray[np.uint8]:
    (file,) = (path for path in sorted(data.glob(f"{split}-images*")))
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)


if __name__ == "__main__":
    main()
