"""The sections that the config of every family has: run, data and optimization."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from genlab.core.config import OPERATIONAL
from genlab.recipes.workers import Workers

Positive = Annotated[int, Ge(1)]
"""An integer of at least 1."""


@dataclass(frozen=True)
class Run:
    """The run: its name and place, how long, on how many workers, and what it writes when."""

    name: Annotated[str | None, OPERATIONAL] = None
    """Name of the run directory; the same name goes on where it stopped. By default the family and the time."""
    storage: Annotated[str | None, OPERATIONAL] = None
    """Folder or s3:// URL that holds run directories. By default $GENLAB_RUNS, else genlab-runs in the home folder."""
    epochs: Annotated[Annotated[float, Gt(0)] | None, OPERATIONAL] = None
    """Stop after this many epochs (of the longer domain). By default the family's usual number."""
    steps: Annotated[Annotated[int, Ge(1)] | None, OPERATIONAL] = None
    """Stop after this many steps; when given, it decides instead of epochs."""
    init: str | None = None
    """Begin with the weights of another run (its newest checkpoint) or of a model directory, of the same architecture,
    and with new optimisers. By default with new weights."""
    batch: Positive = 128
    """Rows of a global batch, over all workers together."""
    accumulate: Positive = 1
    """Parts that a worker's share of a global batch is computed in, one after the other, to save memory; the gradient
    is that of the whole."""
    workers: Annotated[Workers, Ge(0), OPERATIONAL] = 1
    """Ray Train workers, one GPU each where the cluster has GPUs. 0 trains in this process, without Ray. 2..8 goes on
    with fewer workers when nodes are lost, and with more when some come."""
    threads: Annotated[Annotated[int, Ge(1)] | None, OPERATIONAL] = None
    """CPU threads (and Ray CPUs) of a worker. By default the cluster's CPUs shared evenly between the workers;
    with 0 workers, as many as PyTorch takes."""
    seed: Annotated[int, Interval(ge=0, lt=2**31)] = 0
    """Seed of the weights, the order of the rows and all noise."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """tf32 lets GPUs round the factors of matrix products and convolutions to 10 bits, which is faster; fp32 does not.
    bf16 runs forward passes under autocast. Losses, weights and optimisers stay in fp32."""
    compile: bool = False
    """Compile the networks with torch.compile, which costs minutes at the start. Results differ by rounding."""
    cuda_graphs: bool = False
    """Compile the networks, as `compile` does, and replay their kernels as CUDA graphs: the CPU's launching of kernels,
    most of a small step, falls away. Needs GPUs."""
    exact: bool = True
    """Deterministic algorithms, so that a resumed run equals an unbroken one bit for bit. Off is faster on a GPU."""
    log_every: Annotated[int, Ge(1), OPERATIONAL] = 10
    """Steps between lines in metrics.jsonl and TensorBoard; a line holds the means over these steps."""
    checkpoint_every: Annotated[Annotated[int, Ge(1)] | None, OPERATIONAL] = None
    """Steps between checkpoints, rounded up to logged steps. By default an epoch, at most 1,000 steps."""
    figures_every: Annotated[Annotated[int, Ge(1)] | None, OPERATIONAL] = None
    """Steps between sample pictures. By default an epoch."""
    evaluate_every: Annotated[Annotated[int, Ge(1)] | None, OPERATIONAL] = None
    """Steps between checkpoints, rounded up to one, that are evaluated beside training, in a process of their own; the
    best becomes the run's model. By default none is, and the last becomes it."""
    keep: Annotated[int, Ge(1), OPERATIONAL] = 2
    """How many of the newest checkpoints are kept."""
    max_failures: Annotated[int, Ge(0), OPERATIONAL] = 3
    """How many failures of workers a run survives before it gives up."""

    def without_gpus(self, found: str) -> str | None:
        """Return why the run cannot go on without GPUs; ``None`` if it can.

        Args:
            found: that there are no GPUs, as the message puts it.
        """
        if self.cuda_graphs:
            return f"run.cuda_graphs: {found}; leave it out, or try run.compile"
        if self.precision == "tf32":
            return f"run.precision = tf32: {found}, which tf32 is for; use fp32"
        return None


@dataclass(frozen=True)
class Data:
    """How rows are chosen, read and changed; a family's data section adds its data sets."""

    split: str = "train"
    """The split trained on."""
    test_split: str = "test"
    """The split held out for test metrics and pictures; without it, pictures show training images. Checkpoints are
    chosen on the split validation; a data set without one gives half of its test split for that."""
    window: Annotated[Annotated[float, Ge(0)] | None, OPERATIONAL] = None
    """MiB of data, over all workers together, across which rows are shuffled block by block, read ahead and held in
    memory; 0 shuffles all rows of the data set. By default 0 for a local data set, which is memory mapped, and for a
    remote one as many as a global batch has rows, from 256 to 1024. A run keeps the window it began with."""
    read_ahead: Annotated[float, Ge(0), OPERATIONAL] = 32.0
    """MiB that each worker begins to fetch before they are due, of remote data or beside a window. Two seconds
    of what it trains on are enough for an object store that answers slowly now and then."""
    cache: Annotated[str | None, OPERATIONAL] = None
    """Local folder of each node that keeps what was read of remote data sets; by default nothing is kept."""
    cache_gib: Annotated[float, Gt(0), OPERATIONAL] = 16.0
    """The most that the cache may hold, in GiB."""
    flip: bool = False
    """Flip every other training image left to right."""
    jitter: Annotated[int, Ge(0)] = 0
    """Pixels by which a training image is enlarged before a piece of its own size is cut out at a random place; 30 is
    that of pix2pix and CycleGAN at 256x256."""

    @property
    def domains(self) -> dict[str, str]:
        """Return the URL of the data set of each domain, by the option's name."""
        raise NotImplementedError


@dataclass(frozen=True)
class ImageData(Data):
    """The images of a family that is trained on one data set."""

    images: Annotated[str, OPERATIONAL] = "synthetic:digits"
    """Data set made by `genlab ingest`: a folder or URL. `synthetic:digits` is drawn on the spot."""

    @property
    def domains(self) -> dict[str, str]:
        """Return the URL of the data set of each domain, by the option's name."""
        return {"images": self.images}


@dataclass(frozen=True)
class Optimization:
    """Adam (Kingma & Ba 2015), its learning rate over time, and what is done to gradients and weights.

    A recipe may have other options for some of its networks, see :meth:`genlab.recipes.recipe.Recipe.optimization`.
    """

    learning_rate: Annotated[float, Gt(0)] = 1e-3
    """Adam's step size, at its highest."""
    beta1: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    """Decay of the mean of gradients."""
    beta2: Annotated[float, Interval(ge=0, lt=1)] = 0.999
    """Decay of the mean of squared gradients."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls to zero between `decay_from` and the end of the run."""
    decay_from: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """The share of the run after which the learning rate begins to fall."""
    warmup_images: Annotated[int, Ge(0)] = 0
    """Images over which the learning rate rises from zero."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """Share of each weight, times the learning rate, that a step takes from it (AdamW, Loshchilov & Hutter 2019)."""
    clip_norm: Annotated[float, Gt(0)] | None = None
    """Scale each network's gradient down to this L2 norm where it is larger."""
    ema_images: Annotated[float, Ge(0)] = 0.0
    """Half-life, in images, of the exponential moving average of weights that is exported; 0 keeps none."""

    def rate(self, images: int, total: int) -> float:
        """Return the learning rate after ``images`` of the ``total`` images of a run."""
        progress = images / total
        factor = min(1.0, (images + 1) / self.warmup_images) if self.warmup_images else 1.0
        if self.schedule != "constant" and progress > self.decay_from:
            fallen = (progress - self.decay_from) / (1 - self.decay_from)
            factor *= 1 - fallen if self.schedule == "linear" else (1 + math.cos(math.pi * fallen)) / 2
        return self.learning_rate * factor
