"""``genlab verify-ddp CONFIG``: does it matter on how many workers a run trains?

The same global batches go through 1, 2, ... workers. In float64, with what cannot be sliced (dropout) off, parameters
and metrics must agree to 1e-9: a wrong weighting, a norm over the local batch or a forgotten reduction shows at once,
while rounding does not. In the run's own precision the same difference is only shown. And in the run's real setting,
dropout and all, the workers must end with the same bits.
"""

import datetime
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook

from genlab.core.config import override
from genlab.core.errors import ConfigError, GenlabError
from genlab.core.storage import locate
from genlab.proofs.compare_runs import Helper, digest, spread_of_metrics, spread_of_tensors, storage_for
from genlab.training.console import Update
from genlab.training.loop import train
from genlab.training.plan import Plan, claim, make_plan
from genlab.training.session import T, gather, in_child

ALLOWED = 1e-9
"""How far float64 results may be apart, relative to their size where that is above 1."""
TIMEOUT = datetime.timedelta(minutes=5)
"""How long a worker waits for another before it gives up."""


@dataclass(frozen=True)
class Trial:
    """One of the runs."""

    plan: Plan
    world_size: int
    dtype: torch.dtype
    dropout: bool

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.plan.run.name)


@dataclass(frozen=True)
class GlooSession:
    """A worker's place in a run of processes of this machine."""

    rank: int
    world_size: int
    threads: int | None = 1

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def report(self, metrics: Mapping[str, float]) -> None:
        """Nobody watches."""

    def progress(self, update: Update) -> None:
        """Nobody watches."""

    def say(self, message: str) -> None:
        """Print it to the worker's log."""
        print(message, flush=True)

    def background(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call it in a child process."""
        return in_child(self.device, function, *arguments)


def verify_ddp(family: str, config: Any, *, workers: int, steps: int, storage: str | None) -> bool:
    """Train all runs, print how they compare, and return whether they agree.

    Args:
        family: the model family.
        config: the family's config.
        workers: the most workers, 2 or more; all smaller numbers are run as well.
        steps: steps of each run.
        storage: folder or URL that the runs are left in; ``None`` for a temporary one.

    Raises:
        RunError: when a run failed of itself.
    """
    precision = config.run.precision
    worlds = range(1, workers + 1)
    with storage_for(storage) as folder, TemporaryDirectory(prefix="genlab-verify-logs-") as logs:

        def trial(name: str, world_size: int, dtype: torch.dtype, dropout: bool) -> Trial:
            changes = {
                "run.name": f"{name}-{world_size}",
                "run.storage": folder,
                "run.workers": world_size,
                "run.threads": 1,
                "run.steps": steps,
                "run.log_every": 1,
                "run.checkpoint_every": steps,
                "run.figures_every": steps,
                "run.cuda_graphs": False,  # Workers here are on the CPU.
                "run.precision": "fp32" if dtype == torch.float64 else precision,
            }
            plan = make_plan(family, override(config, changes))
            if (locate(plan.directory)).exists():
                raise ConfigError(f"--storage {folder}: holds runs of an earlier verification; choose another")
            return Trial(plan, world_size, dtype, dropout)

        trials = [trial("float64", world, torch.float64, False) for world in worlds]
        trials += [trial(precision, world, torch.float32, False) for world in worlds]
        trials.append(trial("real", workers, torch.float32, True))
        print(f"genlab verify-ddp {family}: {steps} steps of global batch {config.run.batch} on the CPU, in {folder}")
        print("  dropout is off where runs are compared: it cannot be sliced between workers", flush=True)
        for one in trials:
            claim(one.plan)
        for world in worlds:
            _train([one for one in trials if one.world_size == world], world, Path(logs))
        runs = locate(folder)
        agree = True
        for world in worlds[1:]:
            pair = runs / "float64-1", runs / f"float64-{world}"
            metrics, tensors = spread_of_metrics(*pair), spread_of_tensors(*pair)
            within = max(metrics.size, tensors.size) <= ALLOWED
            agree &= within
            print(
                f"float64, 1 and {world} workers: {'agree' if within else 'DIFFER'}: "
                f"metrics by {metrics}, tensors by {tensors}; allowed {ALLOWED:g}"
            )
            pair = runs / f"{precision}-1", runs / f"{precision}-{world}"
            print(
                f"{precision}, 1 and {world} workers, for comparison: "
                f"metrics by {spread_of_metrics(*pair)}, tensors by {spread_of_tensors(*pair)}"
            )
        for one in trials:
            if one.world_size > 1:
                fault = _fault_between_ranks(json.loads(_report(Path(logs), one).read_text()))
                setting = "with dropout, as configured" if one.dropout else "without dropout"
                agree &= fault is None
                print(f"{one.name}, {setting}: {fault or 'all workers are equal bit for bit'}")
    print("PASS" if agree else "FAIL: results depend on the number of workers")
    return agree


def _train(trials: list[Trial], world_size: int, logs: Path) -> None:
    store = logs / f"store-{world_size}"
    ranks = [
        Helper(logs / f"{world_size}-{rank}.log", _rank, rank, world_size, trials, str(store), str(logs))
        for rank in range(world_size)
    ]
    try:
        for helper in ranks:
            helper.process.join()
            if helper.process.exitcode:
                raise helper.failure()
    finally:
        for helper in ranks:
            helper.kill()


def _rank(rank: int, world_size: int, trials: list[Trial], store: str, logs: str) -> None:
    """What one worker does: train every trial, and have rank 0 write down what each rank's tensors hash to."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size, timeout=TIMEOUT)
    for trial in trials:
        torch.set_default_dtype(trial.dtype)
        hook = None if trial.dropout else register_module_forward_pre_hook(_without_dropout)
        try:
            state = train(trial.plan, GlooSession(rank, world_size))
            hashes = {name: digest({name: tensor}) for name, tensor in state.tensors().items()}
        except GenlabError as fault:  # such as weights that have drifted apart; every rank finds that
            hashes = {"": str(fault)}
        finally:
            if hook:
                hook.remove()
        everyones = gather(hashes)
        if rank == 0:
            _report(Path(logs), trial).write_text(json.dumps(everyones))
    dist.destroy_process_group()


def _without_dropout(module: nn.Module, inputs: Any) -> None:
    if isinstance(module, _DropoutNd):
        module.p = 0.0


def _report(logs: Path, trial: Trial) -> Path:
    return logs / f"{trial.name}.json"


def _fault_between_ranks(hashes: list[dict[str, str]]) -> str | None:
    """In what the ranks differ; ``None`` when in nothing."""
    for rank, mine in enumerate(hashes):
        if "" in mine:
            return f"FAILED: {mine['']}"
        differing = [name for name, value in hashes[0].items() if mine.get(name) != value]
        if differing:
            return f"worker {rank} DIFFERS from worker 0 in {len(differing)} tensors, first in {differing[0]}"
    return None
