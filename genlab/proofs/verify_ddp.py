"""The proof of ``genlab verify-ddp CONFIG``: results do not depend on the number of workers.

The same global batches are trained on 1, 2, ... workers. In float64 and without dropout, whose noise cannot be divided
between workers, parameters and metrics must agree to 1e-9: rounding is smaller, and a wrong weight, a norm over the
local batch or a missing all-reduce is larger. In the run's own precision the difference is only printed. As configured,
dropout included, all workers of a run must end with the same bits.
"""

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook

from genlab.core import adam
from genlab.core.config import override
from genlab.core.errors import ConfigError, GenlabError
from genlab.core.storage import is_folder, locate
from genlab.proofs.compare_runs import (
    LoggedProcess,
    digest,
    largest_metric_difference,
    largest_tensor_difference,
    storage_for,
)
from genlab.training.console import RunConsole
from genlab.training.loop import train
from genlab.training.plan import Plan, make_plan, start_or_resume
from genlab.training.session import LocalSession, gather

ALLOWED = 1e-9
"""Largest difference allowed between float64 results x and y: |x − y| / max(1, |x|)."""
EPSILON = 1e-3
"""Adam's epsilon in the float64 runs. With its usual one rounding would move a parameter whose gradient is 0 but for
rounding, such as a bias before an instance norm."""
TIMEOUT = datetime.timedelta(minutes=5)
"""How long a worker waits for another one before it fails."""


@dataclass(frozen=True)
class ComparedRun:
    """A run of this proof."""

    plan: Plan
    world_size: int
    dtype: torch.dtype
    """Type of the parameters."""
    dropout: bool
    """Whether dropout is on."""

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.plan.run.name)


def verify_ddp(family: str, config: Any, *, workers: int, steps: int, storage: str | None) -> bool:
    """Train all runs, print their differences, and return whether they agree.

    Args:
        family: the model family.
        config: the family's config.
        workers: the most workers, 2 or more; all smaller numbers are run as well.
        steps: steps of each run.
        storage: folder or URL that the runs are left in; ``None`` for a temporary one.

    Raises:
        ConfigError: when ``storage`` holds runs of an earlier proof.
        RunError: when a process failed.
    """
    precision = config.run.precision
    worlds = range(1, workers + 1)
    with storage_for(storage) as folder, TemporaryDirectory(prefix="genlab-verify-logs-") as logs:

        def planned(name: str, world_size: int, dtype: torch.dtype, dropout: bool) -> ComparedRun:
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
            if is_folder(locate(plan.directory)):
                raise ConfigError(f"--storage {folder}: holds runs of an earlier verification; choose another")
            return ComparedRun(plan, world_size, dtype, dropout)

        runs = [planned("float64", world, torch.float64, False) for world in worlds]
        runs += [planned(precision, world, torch.float32, False) for world in worlds]
        runs.append(planned("real", workers, torch.float32, True))
        print(f"genlab verify-ddp {family}: {steps} steps of global batch {config.run.batch} on the CPU, in {folder}")
        print("  dropout is off where runs are compared: it cannot be sliced between workers", flush=True)
        for run in runs:
            start_or_resume(run.plan)
        for world in worlds:
            _train([run for run in runs if run.world_size == world], world, Path(logs))
        root = locate(folder)
        agree = True
        failures = {run.name: _failure(Path(logs), run) for run in runs}
        for world in worlds[1:]:
            exact, own = f"float64-{world}", f"{precision}-{world}"
            pairs = {name: (root / f"{name.rpartition('-')[0]}-1", root / name) for name in (exact, own)}
            if failures[exact]:
                agree = False
                print(f"float64, 1 and {world} workers: DIFFER: {failures[exact]}")
            else:
                metrics, tensors = largest_metric_difference(*pairs[exact]), largest_tensor_difference(*pairs[exact])
                within = max(metrics.size, tensors.size) <= ALLOWED
                agree &= within
                print(
                    f"float64, 1 and {world} workers: {'agree' if within else 'DIFFER'}: "
                    f"metrics by {metrics}, tensors by {tensors}; allowed {ALLOWED:g}"
                )
            if not failures[own]:
                print(
                    f"{precision}, 1 and {world} workers, for comparison: metrics by "
                    f"{largest_metric_difference(*pairs[own])}, tensors by {largest_tensor_difference(*pairs[own])}"
                )
        for run in runs:
            if run.world_size > 1:
                fault = _difference_between_ranks(_hashes_of_ranks(Path(logs), run))
                setting = "with dropout, as configured" if run.dropout else "without dropout"
                agree &= fault is None
                print(f"{run.name}, {setting}: {fault or 'all workers are equal bit for bit'}")
    print("PASS" if agree else "FAIL: results depend on the number of workers")
    return agree


def _train(runs: list[ComparedRun], world_size: int, logs: Path) -> None:
    """Train the runs of ``world_size`` workers, one after the other, in processes of this machine."""
    store = logs / f"store-{world_size}"
    processes = [
        LoggedProcess(logs / f"{world_size}-{rank}.log", _train_rank, rank, world_size, runs, str(store), str(logs))
        for rank in range(world_size)
    ]
    try:
        for process in processes:
            process.process.join()
            if process.process.exitcode:
                raise process.failure()
    finally:
        for process in processes:
            process.kill()


def _train_rank(rank: int, world_size: int, runs: list[ComparedRun], store: str, logs: str) -> None:
    """Train all runs as one of their workers; rank 0 writes for each a file of all ranks' hashes."""
    session = LocalSession(RunConsole(), threads=1, rank=rank, world_size=world_size, device=torch.device("cpu"))
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size, timeout=TIMEOUT)
    usual = adam.EPSILON
    for run in runs:
        torch.set_default_dtype(run.dtype)
        adam.EPSILON = EPSILON if run.dtype == torch.float64 else usual
        hook = None if run.dropout else register_module_forward_pre_hook(_without_dropout)
        try:
            state = train(run.plan, session)
            hashes = {name: digest({name: tensor}) for name, tensor in state.tensors().items()}
        except GenlabError as fault:  # such as weights that differ, which every rank finds
            hashes = {"": str(fault)}
        finally:
            if hook:
                hook.remove()
        hashes_of_ranks = gather(hashes)
        if rank == 0:
            _hashes_file(Path(logs), run).write_text(json.dumps(hashes_of_ranks))
    dist.destroy_process_group()


def _without_dropout(module: nn.Module, inputs: Any) -> None:
    if isinstance(module, _DropoutNd):
        module.p = 0.0


def _hashes_file(logs: Path, run: ComparedRun) -> Path:
    return logs / f"{run.name}.json"


def _hashes_of_ranks(logs: Path, run: ComparedRun) -> list[dict[str, str]]:
    hashes: list[dict[str, str]] = json.loads(_hashes_file(logs, run).read_text())
    return hashes


def _failure(logs: Path, run: ComparedRun) -> str | None:
    """Return the error that ended ``run``; ``None`` when it came to its end."""
    return _hashes_of_ranks(logs, run)[0].get("")


def _difference_between_ranks(hashes: list[dict[str, str]]) -> str | None:
    """Return the first difference between the ranks' tensors, or the error of a rank; ``None`` when they are equal."""
    for rank, hashes_of_rank in enumerate(hashes):
        if "" in hashes_of_rank:
            return f"FAILED: {hashes_of_rank['']}"
        differing = [name for name, value in hashes[0].items() if hashes_of_rank.get(name) != value]
        if differing:
            return f"worker {rank} DIFFERS from worker 0 in {len(differing)} tensors, first in {differing[0]}"
    return None
