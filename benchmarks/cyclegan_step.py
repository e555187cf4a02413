"""A training step of CycleGAN with the paper's ResNet-9: genlab beside the reference implementation.

    git clone https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix /tmp/reference     # or a fork of it
    python benchmarks/cyclegan_step.py --reference /tmp/reference                        # seconds a step, memory
    python benchmarks/cyclegan_step.py --reference /tmp/reference --equal                # the same mathematics?

The reference's own ``CycleGANModel.optimize_parameters`` as it is shipped, eager, against genlab's step as its loop
calls it, in exact mode: the same networks (11,378,179 + 2,764,737 parameters, twice), the same drawn pictures, the same
options (least squares, lambda 10, identity 0.5, history of 50, Adam). Each case is a process of its own on the same
cores; they take turns, a step each. Memory is the most that the process held during its last step (its RSS).

``--equal`` starts both from the same weights and compares the eight losses: over 20 steps in float64, and of the first
step in fp32. Beside it stand, for judging what 20 steps make of rounding, genlab with direct convolutions in place of
Winograd's, and the reference itself from weights that were changed by 1e-15 of themselves.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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

CONTENDERS = {
    "reference": ("reference", "fp32"),
    "genlab, fp32": ("genlab", "fp32"),
    "genlab, bf16": ("genlab", "bf16"),
    "genlab, fp32, compiled": ("compiled", "fp32"),
    "genlab, bf16, compiled": ("compiled", "bf16"),
}
UNASKED = [name for name in CONTENDERS if not name.endswith("compiled")]
"""Compiling takes minutes for each size."""
COMPARED = {"genlab": "genlab", "genlab, direct convolutions": "direct", "reference, nudged by 1e-15": "nudged"}
IMAGES = 20
"""Pictures of each domain that steps take in turn."""
LAMBDA, IDENTITY = 10.0, 0.5
Steps = Iterator[dict[str, Any]]
"""Does a step when asked for the next value: seconds and the losses."""


def main() -> None:
    """Measure, or compare the losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="checkout of the reference implementation")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256], help="pixels of the pictures' sides")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--steps", type=int, default=5, help="steps that count, after two that do not")
    parser.add_argument("--threads", type=int, default=2, help="cores to pin contenders to, and threads of each")
    parser.add_argument("--only", nargs="*", choices=CONTENDERS, default=UNASKED)
    parser.add_argument("--equal", action="store_true")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, how, size, batch = options.child
        _child(kind, how, options.reference, int(size), int(batch), options.threads)
        return
    print(f"`{command()}`\n\n{machine(range(options.threads))}. {versions('torch')}.\n")
    if options.equal:
        _compare(options)
        return
    peak = peak_flops(options.threads)
    print(f"A product of 1024x1024 fp32 matrices runs at {peak / 1e9:.0f} GFLOP/s here.\n")
    rows = []
    for size in options.sizes:
        for batch in options.batches:
            rows += _case(size, batch, options, peak)
    head = ["size, batch", "", "seconds a step: median (min–max)", "reference / this", "share of peak", "memory, MiB"]
    print(table(head, rows))


def _case(size: int, batch: int, options: argparse.Namespace, peak: float) -> list[list[str]]:
    with tempfile.TemporaryDirectory(prefix="genlab-step-") as folder:
        processes = {name: _start(name, size, batch, options, Path(folder)) for name in options.only}
        memory = dict.fromkeys(processes, 0.0)

        def turn(name: str) -> Callable[[], float]:
            def step() -> float:
                answer = processes[name].ask()
                memory[name] = answer["memory"]
                return float(answer["seconds"])

            return step

        for name in processes:
            for _ in range(2):
                turn(name)()
        found = alternate({name: turn(name) for name in processes}, options.steps)
        flops = next(iter(processes.values())).facts["flops"]
        for process in processes.values():
            process.close()
    first, *_ = processes
    say(f"{size}x{size}, batch {batch}: {flops / 1e9:.0f} GFLOP")
    return [
        [
            f"{size}, {batch}",
            name,
            spread(seconds),
            ratio(found[first], seconds),
            f"{flops / statistics.median(seconds) / peak:.2f}",
            f"{memory[name]:,.0f}",
        ]
        for name, seconds in found.items()
    ]


def _compare(options: argparse.Namespace) -> None:
    steps = 20
    expected = _losses("reference", "fp64", steps, options)
    rows = []
    for name, kind in COMPARED.items():
        apart = [_apart(*pair) for pair in zip(expected, _losses(kind, "fp64", steps, options), strict=True)]
        rows.append(["fp64", name, *(f"{apart[step - 1]:.1e}" for step in (1, 5, 10, 15, steps))])
    [first], [ours] = (_losses(kind, "fp32", 1, options) for kind in ("reference", "genlab"))
    rows.append(["fp32", "genlab", f"{_apart(first, ours):.1e}", "", "", "", ""])
    say("The largest relative difference of a loss from the reference's.")
    print(table(["", "", "step 1", "5", "10", "15", str(steps)], rows))


def _losses(kind: str, precision: str, steps: int, options: argparse.Namespace) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory(prefix="genlab-step-") as folder:
        words = _words(kind, precision, options.sizes[0], 1, options)
        process = Process(words, range(options.threads), Path(folder) / "log")
        losses = [process.ask()["losses"] for _ in range(steps)]
        process.close()
    return losses


def _apart(theirs: dict[str, float], ours: dict[str, float]) -> float:
    return max(abs(ours[name] - theirs[name]) / abs(theirs[name]) for name in theirs)


def _words(kind: str, how: str, size: int, batch: int, options: argparse.Namespace) -> list[str]:
    words = ["cyclegan_step.py", "--reference", str(options.reference), "--threads", str(options.threads)]
    return [*words, "--child", kind, how, str(size), str(batch)]


def _start(name: str, size: int, batch: int, options: argparse.Namespace, folder: Path) -> Process:
    words = _words(*CONTENDERS[name], size, batch, options)
    return Process(words, range(options.threads), folder / f"{name}.log")


def _child(kind: str, how: str, reference: Path, size: int, batch: int, threads: int) -> None:
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print is not an answer
    import torch

    torch.set_num_threads(threads)
    if how == "fp64":
        torch.set_default_dtype(torch.float64)
    theirs = _reference_model(reference)
    flops = _flops(theirs, size, batch) if how != "fp64" else 0
    if kind == "nudged":
        with torch.no_grad():
            for network in (theirs.netG_A, theirs.netG_B, theirs.netD_A, theirs.netD_B):
                for parameter in network.parameters():
                    parameter.mul_(1 + 1e-15)
    if kind == "direct":
        from genlab.models.cpu import winograd

        winograd.FORMS.clear()
    if kind in ("reference", "nudged"):
        steps = _reference(theirs, size, batch)
    else:
        steps = _genlab(theirs, how, size, batch, threads, kind == "compiled")
    print(json.dumps({"ready": True, "flops": flops}), file=out, flush=True)
    for _ in sys.stdin:
        forget_peak_memory()
        answer = next(steps) | {"memory": peak_memory()}
        print(json.dumps(answer), file=out, flush=True)


def _pictures(size: int, batch: int) -> Iterator[dict[str, Any]]:
    """Batches of drawn scenes by domain, uint8 [N, H, W, 3]."""
    import torch

    scenes = {domain: torch.from_numpy(drawn(domain, size, IMAGES)) for domain in ("a", "b")}
    number = 0
    while True:
        rows = torch.arange(number, number + batch) % IMAGES
        yield {domain: images[rows] for domain, images in scenes.items()}
        number += batch


def _reference_model(reference: Path) -> Any:
    """The reference's model, as its options have it by default."""
    import torch

    sys.path.insert(0, str(reference))
    from models.cycle_gan_model import CycleGANModel

    torch.manual_seed(0)
    options = SimpleNamespace(
        isTrain=True, gpu_ids=[], checkpoints_dir=tempfile.gettempdir(), name="step", preprocess="none", input_nc=3,
        output_nc=3, ngf=64, ndf=64, netG="resnet_9blocks", netD="basic", n_layers_D=3, norm="instance",
        no_dropout=True, init_type="normal", init_gain=0.02, pool_size=50, gan_mode="lsgan", lr=2e-4, beta1=0.5,
        lambda_A=LAMBDA, lambda_B=LAMBDA, lambda_identity=IDENTITY, direction="AtoB",
    )  # fmt: skip
    return CycleGANModel(options)


def _flops(theirs: Any, size: int, batch: int) -> int:
    """Floating-point operations of the convolutions of one of its steps, without taking one."""
    import copy

    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = copy.deepcopy({name: getattr(theirs, f"net{name}") for name in ("G_A", "G_B", "D_A", "D_B")})
    image = torch.empty(batch, 3, size, size, device="meta")
    counts = {}
    for name, network in model.items():
        network.to("meta")
        with FlopCounterMode(display=False) as counter:
            network(image.clone().requires_grad_()).sum().backward()
        counts[name[0]] = counter.get_total_flops()
    # Each generator runs three times, forward and back. Each discriminator is passed through once, without gradients of
    # its weights (two thirds of the cost), and trained on two images, without gradients of these: about two in all.
    return int(2 * 3 * counts["G"] + 2 * (2 / 3 + 2) * counts["D"])


def _reference(theirs: Any, size: int, batch: int) -> Steps:
    for pictures in _pictures(size, batch):
        a, b = ((images.permute(0, 3, 1, 2).to(_dtype()) / 127.5 - 1).contiguous() for images in pictures.values())
        theirs.set_input({"A": a, "B": b, "A_paths": [], "B_paths": []})
        began = time.perf_counter()
        theirs.optimize_parameters()
        seconds = time.perf_counter() - began
        yield {
            "seconds": seconds,
            "losses": {
                "adversarial_ab": theirs.loss_G_A.item(), "adversarial_ba": theirs.loss_G_B.item(),
                "cycle_a": theirs.loss_cycle_A.item() / LAMBDA, "cycle_b": theirs.loss_cycle_B.item() / LAMBDA,
                "identity_a": theirs.loss_idt_B.item() / LAMBDA / IDENTITY,
                "identity_b": theirs.loss_idt_A.item() / LAMBDA / IDENTITY,
                "discriminator_a": theirs.loss_D_B.item(), "discriminator_b": theirs.loss_D_A.item(),
            },
        }  # fmt: skip


def _genlab(theirs: Any, precision: str, size: int, batch: int, threads: int, compiled: bool) -> Steps:
    """genlab's step, from the reference's weights."""
    import torch

    from genlab.core.config import override
    from genlab.data.stream.batches import Batch
    from genlab.recipes.cyclegan import CycleGANConfig, CycleGANRecipe
    from genlab.recipes.recipe import DomainInfo
    from genlab.training.console import RunConsole
    from genlab.training.gradients import Gradients
    from genlab.training.session import LocalSession
    from genlab.training.state import TrainingState
    from genlab.training.step_context import LoopStepContext
    from genlab.training.torch_settings import compile_networks, set_up_torch

    set_up_torch(exact=True, threads=threads)
    changes = {"run.batch": batch, "model.generator": "resnet-9", "model.discriminator": "patch-reference"}
    config = override(CycleGANConfig(), changes)
    recipe = CycleGANRecipe(config, {domain: DomainInfo(IMAGES, (size, size, 3), ()) for domain in ("a", "b")})
    ours = {
        theirs.netG_A: recipe.generators.a_to_b, theirs.netG_B: recipe.generators.b_to_a,
        theirs.netD_A: recipe.discriminators["b"], theirs.netD_B: recipe.discriminators["a"],
    }  # fmt: skip
    with torch.no_grad():
        for source, network in ours.items():
            for left, right in zip(network.parameters(), source.parameters(), strict=True):
                left.copy_(right)
    for name in ("netG_A", "netG_B", "netD_A", "netD_B", "optimizer_G", "optimizer_D"):
        delattr(theirs, name)
    del ours, source
    state = TrainingState(recipe, torch.device("cpu"))
    session = LocalSession(RunConsole())
    recipe.train()
    if compiled:
        compile_networks(recipe)
    phases = recipe.phases()
    gradients = {name: Gradients(list(p.values()), alone=True) for name, p in state.parameters.items()}
    how = "bf16" if precision == "bf16" else "fp32"
    for index, pictures in enumerate(_pictures(size, batch)):
        batches = {domain: Batch(images, None) for domain, images in pictures.items()}
        began = time.perf_counter()
        step = LoopStepContext(
            session, index=index, batch=batch, rows_of=lambda _: slice(0, batch), key=(0, "noise", index), precision=how
        )
        state.set_rates(index * batch, 10**9)
        losses = {}
        for phase in phases:
            with state.only(phase.network):
                loss, values = phase.loss(batches, step)
                gradients[phase.network].backward(loss, first=True, last=True)
            gradients[phase.network].wait()
            state.step_optimizer(phase.network)
            losses |= values
        seconds = time.perf_counter() - began
        yield {"seconds": seconds, "losses": {name: value.item() for name, value in losses.items()}}


def _dtype() -> Any:
    import torch

    return torch.get_default_dtype()


if __name__ == "__main__":
    main()
