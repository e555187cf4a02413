"""A training step of StyleGAN2 at 32x32 and 64x64: genlab's loop beside plain PyTorch and two well-known repositories.

    git clone https://github.com/lucidrains/stylegan2-pytorch /tmp/lucidrains
    git clone https://github.com/rosinality/stylegan2-pytorch /tmp/rosinality
    python benchmarks/stylegan_step.py --lucidrains /tmp/lucidrains --rosinality /tmp/rosinality
    python benchmarks/stylegan_step.py --profile            # where the time goes; either checkout may be left out

A turn is 16 whole steps: generator, discriminator, style mixing, noise, Adam, the moving average of weights, and R1 in
one of the 16; no path length anywhere. The networks are those of the presets faces-32 and faces-64: 32 channels at the
highest resolution, 64 at half of it, 128 below, latent size 128, 4 layers of mapping, skip generator, residual
discriminator. Each contender is a process of its own on the same cores; they take turns. Memory is the most that the
process held during its last turn (its RSS).

* plain PyTorch: ``benchmarks/plain_stylegan2.py``, with grouped convolutions, eager; pictures lie in memory.
* genlab: ``genlab.training.loop.train``, with the reading of shards, logging and TensorBoard.
* rosinality: its networks with these channels, and its ``train.py``; its CUDA extensions have counterparts for CPUs.
  Mixing is drawn for a batch instead of for an image.
* lucidrains: its ``Trainer`` with ``network_capacity`` 16 and ``fmap_max`` 128. The generator has the same channels,
  but doubles images before convolving and has one more convolution at 4x4. The discriminator has 64 channels at the
  highest resolution and 128 below, three 3x3 convolutions a resolution, and goes down to 2x2. In place of R1 it has a
  gradient penalty of real and generated images in every fourth step; averages move in every tenth. Its path length
  term, one step in 32 by default, is off, and its noise is one picture for all layers.

Pictures of both repositories lie in memory, too: neither reads files here. Operations are counted as they are done,
those of grouped convolutions by group, so a share of the peak says how well a contender uses the core, not how few
operations it needs. bf16 has its own peak.
"""

import argparse
import json
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from rig import (
    Process,
    alternate,
    command,
    drawn,
    forget_peak_memory,
    machine,
    peak_flops,
    peak_memory,
    ratio,
    say,
    spread,
    table,
    versions,
)

BATCH = 32
STEPS = 16
"""Steps of a turn, one of them with R1."""
IMAGES = 2000
"""Pictures of the data set."""
LATENT, DEPTH, MIXING, RATE, EMA_IMAGES = 128, 4, 0.9, 2.5e-3, 10_000
R1 = {32: 0.02, 64: 0.0256}
"""γ of the presets."""
PLAIN = "plain PyTorch, fp32"
GENLAB = {"genlab, fp32": "fp32", "genlab, bf16": "bf16"}
ROSINALITY, LUCIDRAINS = "rosinality, fp32", "lucidrains, fp32"
CONTENDERS = [PLAIN, *GENLAB, ROSINALITY, LUCIDRAINS]
Turn = Callable[[], None]
"""Called before each 16 steps: answers for those before it, and waits until the next are asked for."""


def main() -> None:
    """Measure, or profile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rosinality", type=Path, help="checkout of rosinality/stylegan2-pytorch")
    parser.add_argument("--lucidrains", type=Path, help="checkout of lucidrains/stylegan2-pytorch")
    parser.add_argument("--sizes", type=int, nargs="+", choices=list(R1), default=list(R1))
    parser.add_argument("--turns", type=int, default=5, help=f"turns of {STEPS} steps that count, after a first")
    parser.add_argument("--threads", type=int, default=1, help="cores to pin contenders to, and threads of each")
    parser.add_argument("--only", nargs="*", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--profile", action="store_true", help="print where the time of one turn goes instead")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, size, folder = options.child
        _child(name, int(size), Path(folder), options)
        return
    checkouts = {ROSINALITY: options.rosinality, LUCIDRAINS: options.lucidrains}
    names = [name for name in options.only if checkouts.get(name, name)]
    print(f"`{command()}`\n\n{machine(range(options.threads))}. {versions('torch')}.\n")
    peaks = {precision: peak_flops(options.threads, precision) for precision in ("fp32", "bf16")}
    found = ", ".join(f"{peak / 1e9:.0f} GFLOP/s in {precision}" for precision, peak in peaks.items())
    print(f"A product of 1024x1024 matrices runs at {found} here.\n", flush=True)
    rows = [row for size in options.sizes for row in _case(size, names, options, peaks)]
    if options.profile:
        head = ["size", "", "convolutions", "matrix products", "other operations", "the largest of these"]
    else:
        head = [
            "size", "", "images/s: median (min–max)", f"× {names[0]}", "GFLOP an image", "share of peak", "memory, MiB"
        ]  # fmt: skip
    print(table(head, rows))


def _case(size: int, names: Sequence[str], options: argparse.Namespace, peaks: dict[str, float]) -> list[list[str]]:
    with tempfile.TemporaryDirectory(prefix="genlab-step-") as name:
        folder = Path(name)
        np.save(folder / "images.npy", drawn("a", size, IMAGES))
        processes, flops = {}, {}
        for contender in names:
            words = ["stylegan_step.py", "--threads", str(options.threads), "--child", contender, str(size), name]
            words += [f"--{which}={path}" for which in ("rosinality", "lucidrains") if (path := vars(options)[which])]
            words += ["--profile"] * options.profile
            processes[contender] = Process(words, range(options.threads), folder / f"{contender}.log")
            flops[contender] = processes[contender].ask()["flops"] / (STEPS * BATCH)
            say(f"{size}x{size}: {contender} is ready")
        if options.profile:
            rows = [[f"{size}", contender, *process.ask()["profile"]] for contender, process in processes.items()]
        else:
            rows = _measured(size, processes, flops, peaks, options.turns)
        for process in processes.values():
            process.close()
    return rows


def _measured(
    size: int, processes: dict[str, Process], flops: dict[str, float], peaks: dict[str, float], turns: int
) -> list[list[str]]:
    memory = dict.fromkeys(processes, 0.0)

    def turn(name: str) -> Callable[[], float]:
        def rate() -> float:
            answer = processes[name].ask()
            memory[name] = answer["memory"]
            return STEPS * BATCH / float(answer["seconds"])

        return rate

    rates = alternate({name: turn(name) for name in processes}, turns)
    first, *_ = processes
    return [
        [
            f"{size}",
            name,
            spread(found),
            ratio(found, rates[first]),
            f"{flops[name] / 1e9:.2f}",
            f"{flops[name] * statistics.median(found) / peaks[name.split(', ')[1]]:.2f}",
            f"{memory[name]:,.0f}",
        ]
        for name, found in rates.items()
    ]


def _child(name: str, size: int, folder: Path, options: argparse.Namespace) -> None:
    turn = _Turns(sys.stdout, options.profile)
    sys.stdout = sys.stderr  # what libraries print is not an answer
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    random.seed(0)
    if name == PLAIN:
        from plain_stylegan2 import train

        train(
            _batches(folder, turn), _channels(size), latent=LATENT, depth=DEPTH, mixing=MIXING, r1=R1[size],
            r1_every=STEPS, rate=RATE, ema_images=EMA_IMAGES,
        )  # fmt: skip
    elif name in GENLAB:
        _genlab(GENLAB[name], size, folder, options.threads, turn)
    elif name == ROSINALITY:
        _rosinality(options.rosinality, size, folder, turn)
    else:
        _lucidrains(options.lucidrains, size, folder, turn)


class _Turns:
    """A child's turns: counts the operations of the first, and times or profiles the others."""

    def __init__(self, out: Any, profile: bool) -> None:
        self._out, self._profile = out, profile
        self._number = 0
        self._watching: Any = None
        self._began = 0.0

    def __call__(self) -> None:
        seconds = time.perf_counter() - self._began
        answer: dict[str, Any] = {"seconds": seconds, "memory": peak_memory()}
        if self._watching is not None:
            self._watching.__exit__(None, None, None)
            answer |= {"profile": _shares(self._watching)} if self._number > 1 else {"flops": self._watching.total}
        print(json.dumps(answer), file=self._out, flush=True)  # the first says that all is ready
        if not sys.stdin.readline():
            raise SystemExit
        self._number += 1
        self._watching = _profiler() if self._profile and self._number > 1 else None
        if self._number == 1:
            from scale_model import Operations

            self._watching = Operations()
        if self._watching is not None:
            self._watching.__enter__()
        forget_peak_memory()
        self._began = time.perf_counter()


def _profiler() -> Any:
    import torch

    return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])


def _shares(profiler: Any) -> list[str]:
    """Shares of the time of all operations: convolutions, matrix products, others, and the largest of these."""
    times = {event.key.removeprefix("aten::"): event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(times.values())
    convolutions = {name: time for name, time in times.items() if "conv" in name.lower()}
    products = {name: time for name, time in times.items() if re.fullmatch(r"(add|b|badd)?mm|linear|matmul", name)}
    others = {name: time for name, time in times.items() if name not in convolutions | products}
    largest = sorted(others, key=lambda name: -others[name])[:6]
    return [
        *(f"{sum(part.values()) / total:.0%}" for part in (convolutions, products, others)),
        ", ".join(f"{name} {others[name] / total:.0%}" for name in largest),
    ]


def _channels(size: int) -> dict[int, int]:
    """Channels of the layers of each resolution."""
    return {2**level: min(128, 32 * size // 2**level) for level in range(2, size.bit_length())}


def _batches(folder: Path, turn: Turn) -> Iterator[Any]:
    """Shuffled batches, every other picture mirrored: float [N, 3, H, W] in [-1, 1]; a turn at each 16th."""
    import torch

    images = torch.from_numpy(np.load(folder / "images.npy")).permute(0, 3, 1, 2)
    number = 0
    while True:
        for rows in torch.randperm(len(images)).split(BATCH)[: len(images) // BATCH]:
            if number % STEPS == 0:
                turn()
            number += 1
            batch = images[rows].float() / 127.5 - 1
            flipped = torch.rand(BATCH, 1, 1, 1) < 0.5
            yield torch.where(flipped, batch.flip(3), batch).contiguous()


def _genlab(precision: str, size: int, folder: Path, threads: int, turn: Turn) -> None:
    from genlab.core.config import override
    from genlab.data.ingest.ingest import IngestConfig, ingest
    from genlab.recipes.stylegan import PRESETS, StyleGANConfig
    from genlab.training.console import ProgressUpdate, RunConsole
    from genlab.training.loop import train
    from genlab.training.plan import make_plan, start_or_resume
    from genlab.training.session import LocalSession

    @dataclass(frozen=True)
    class Session(LocalSession):
        """Shows the progress by taking turns."""

        def progress(self, update: ProgressUpdate) -> None:
            turn()

    data = folder / f"data-{precision}"
    ingest(IngestConfig("synthetic:scenes-a", str(data), size=size, count=IMAGES, test_fraction=0.0))
    never = 10**9
    changes: dict[str, Any] = {
        "run.storage": str(folder), "run.name": precision, "run.workers": 0, "run.steps": never,
        "run.precision": precision, "run.batch": BATCH, "run.log_every": STEPS, "run.figures_every": never,
        "run.checkpoint_every": never, "data.images": str(data),
    }  # fmt: skip
    plan = make_plan("stylegan", override(StyleGANConfig(), {**PRESETS[f"faces-{size}"], **changes}))
    start_or_resume(plan)
    turn()
    train(plan, Session(RunConsole(), threads))


def _rosinality(checkout: Path, size: int, folder: Path, turn: Turn) -> None:
    """Its train.py, which takes a turn when it asks for a batch."""
    import torch
    import torch.utils.cpp_extension

    sys.path.insert(0, str(checkout))
    sys.modules["dataset"] = mock.MagicMock()  # of lmdb files
    with mock.patch.object(torch.utils.cpp_extension, "load"):  # nothing on a CPU calls what it would compile
        import train
    channels = _channels(size)
    # Its tables of channels cannot be given, so its module is run with other numbers in them.
    source = re.sub(
        r"^( +)(\d+): \d+( \* channel_multiplier)?,$",
        lambda found: f"{found[1]}{found[2]}: {channels.get(int(found[2]), 0)},",
        (checkout / "model.py").read_text(),
        flags=re.MULTILINE,
    )
    model = ModuleType("model")
    exec(compile(source, str(checkout / "model.py"), "exec"), vars(model))
    generator, average = (model.Generator(size, LATENT, DEPTH) for _ in range(2))
    discriminator = model.Discriminator(size)
    average.eval()
    train.accumulate(average, generator, 0)
    lazy = STEPS / (STEPS + 1)
    adams = [
        torch.optim.Adam(generator.parameters(), RATE, (0.0, 0.99)),
        torch.optim.Adam(discriminator.parameters(), RATE * lazy, (0.0, 0.99**lazy)),
    ]
    never = 10**9
    arguments = SimpleNamespace(
        iter=never, start_iter=STEPS, batch=BATCH, latent=LATENT, mixing=MIXING, n_sample=1, distributed=False,
        augment=False, augment_p=0, d_reg_every=STEPS, r1=R1[size], g_reg_every=never, wandb=False,
    )  # fmt: skip
    with mock.patch.object(train.utils, "save_image"):  # a sample in every hundredth step
        train.train(arguments, _batches(folder, turn), generator, discriminator, *adams, average, "cpu")


def _lucidrains(checkout: Path, size: int, folder: Path, turn: Turn) -> None:
    """Its Trainer's train(), a step a call."""
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    def filter2d(images: Tensor, kernel: Tensor, normalized: bool) -> Tensor:
        """Filter each channel, with the picture mirrored at its borders, as kornia does."""
        height, width = kernel.shape[-2:]
        kernel = kernel / kernel.abs().sum() if normalized else kernel
        channels = images.shape[1]
        images = F.pad(images, (width // 2, width // 2, height // 2, height // 2), mode="reflect")
        return F.conv2d(images, kernel.expand(channels, 1, -1, -1), groups=channels)

    sys.path.insert(0, str(checkout))
    unused = ("fire", "aim", "einops", "kornia", "vector_quantize_pytorch")
    sys.modules |= {name: mock.MagicMock() for name in unused}
    sys.modules["kornia.filters"] = mock.MagicMock(filter2d=filter2d)
    with ExitStack() as patched:
        with mock.patch.object(torch.cuda, "is_available", return_value=True):
            from stylegan2_pytorch import stylegan2_pytorch as module
        for kind in (Tensor, nn.Module):
            patched.enter_context(mock.patch.object(kind, "cuda", lambda self, *_: self))
        # Its averaged generator is made without fmap_max, and could not take the weights of the other.
        generator = module.Generator
        patched.enter_context(
            mock.patch.object(module, "Generator", lambda *a, **b: generator(*a, **b | {"fmap_max": 128}))
        )
        never = 10**9
        trainer = module.Trainer(
            base_dir=folder, image_size=size, network_capacity=16, fmap_max=128, batch_size=BATCH, save_every=never,
            evaluate_every=never, no_pl_reg=True, latent_dim=LATENT, style_depth=DEPTH,
        )  # fmt: skip
        trainer.loader = (batch * 0.5 + 0.5 for batch in _batches(folder, turn))
        trainer.steps = 25_008  # averages move from step 20,000 on; a multiple of 16
        while True:
            trainer.train()


if __name__ == "__main__":
    main()
