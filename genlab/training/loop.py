"""The training loop: one function, read from top to bottom, for every family on any number of workers.

The only state besides tensors is the number of steps done. Rows, noise, learning rate and averages are functions of it,
so a run that is killed anywhere and goes on from a checkpoint takes the same steps, bit for bit, as one that was not.
"""

import math
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genlab.core.config import to_dict
from genlab.core.errors import RunError
from genlab.core.seeds import derived_seed
from genlab.core.storage import locate
from genlab.data.format.shards import ShardSet
from genlab.data.stream.order import Ints, evenly_spaced, rank_slice
from genlab.data.stream.shard_stream import ShardStream
from genlab.evaluation.checkpoint_evaluations import read_evaluations
from genlab.models.cpu import keep_freed_memory
from genlab.recipes.recipe import Batch, Recipe, recipe_type
from genlab.store import model_directory
from genlab.training.candidates import Candidates
from genlab.training.checkpoints import Checkpoints
from genlab.training.console import Update
from genlab.training.feed import Feed, open_split
from genlab.training.plan import Plan
from genlab.training.session import Session, copy_from_rank_zero, from_rank_zero, gather, sum_over_ranks
from genlab.training.state import TrainingState
from genlab.training.step_context import LoopStepContext
from genlab.training.stopwatch import Stopwatch
from genlab.training.tracking import CLOCK_FIELDS, TIME_FIELDS, Tracker, read_metrics

MOST_STEPS_BETWEEN_CHECKPOINTS = 1000
FIRST_ROWS = 100
"""Held-out rows, from the first, that pictures show; what needs more of them gets rows from the whole split."""


def train(plan: Plan, session: Session) -> TrainingState:
    """Train ``plan`` to its end as one of ``session.world_size`` workers, going on from the newest checkpoint.

    Returns:
        The state at its end.

    Raises:
        RunError: when a loss or a weight is not finite any more, the ranks' weights have drifted apart, or a checkpoint
            is of another architecture.
    """
    config, run = plan.config, plan.run
    directory = locate(plan.directory)
    device = session.device
    _prepare(run.exact, session.threads)
    if run.precision == "bf16" and session.rank == 0 and device.type == "cpu" and not _multiplies_bf16():
        session.say("run.precision=bf16 is emulated on this CPU (no AVX512-BF16); fp32 is many times faster here")

    torch.manual_seed(run.seed)
    recipe = recipe_type(plan.family)(config, {name: domain.info for name, domain in plan.domains.items()})
    state = TrainingState(recipe, config.optimization, device)
    recipe.train()
    if run.compile or run.cuda_graphs:
        compile_networks(recipe, run.cuda_graphs)

    with ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(directory / "checkpoints", run.keep))
        done = saved = _restore(checkpoints, state, session)
        tracker = stack.enter_context(Tracker(directory, done)) if session.rank == 0 else None
        if tracker:
            for evaluation in read_evaluations(directory):
                if evaluation.step <= done:
                    tracker.evaluation(evaluation.step, evaluation.better)
        candidates = None
        if tracker and run.evaluate_every:
            candidates = stack.enter_context(Candidates(plan, session, done, tracker.evaluation))
        feeds = {name: stack.enter_context(Feed(plan, name, session, start=done * run.batch)) for name in plan.domains}
        streams = {name: feed.stream for name, feed in feeds.items()}
        meter = Meter(session)
        window = Window(streams, run.batch)
        stopwatch = Stopwatch(device, streams.values())

        while done < plan.steps:
            stopwatch.begin(done)
            seed = derived_seed(run.seed, "step", done, session.rank)
            torch.manual_seed(seed)
            _begin_graphs(run.cuda_graphs)
            batches = {name: next(feed) for name, feed in feeds.items()}
            stopwatch.lap("data")
            rate = state.set_rate(done * run.batch, plan.steps * run.batch)
            for part in range(run.accumulate):
                step = LoopStepContext(
                    state,
                    session,
                    index=done,
                    batch=run.batch,
                    key=(run.seed, "noise", done),
                    precision=run.precision,
                    part=(part, run.accumulate),
                    lap=stopwatch.lap,
                )
                losses = recipe.step(_part(batches, part, run.accumulate), step)
                step.finish()
                meter.add(losses, done + 1, step.share * run.accumulate, 1 / run.accumulate)
            stopwatch.lap("compute")
            done += 1
            images = done * run.batch
            state.average(images, run.batch)
            stopwatch.lap("optimiser")

            last = done == plan.steps
            logged = last or done % run.log_every == 0
            if logged:
                stopwatch.settle()
                metrics = meter.means() | {"learning_rate": rate}
                if not all(map(math.isfinite, metrics.values())):
                    raise RunError(_not_finite(*meter.broken(), saved))
                clock = window.read()
                if tracker:
                    tracker.log("train", done, images, plan.epoch(done), metrics | clock)
                    tracker.shares(done, stopwatch.read())
                    session.progress(Update(done, plan.steps, plan.epoch(done), clock["images_per_second"], metrics))
            if last or plan.ends_epoch(done):
                test = _test(plan, state, session)
                if tracker and test:
                    tracker.log("test", done, images, plan.epoch(done), test)
                session.report({"step": done, "epoch": plan.epoch(done)} | {f"test/{k}": v for k, v in test.items()})
            if tracker and (last or (done % run.figures_every == 0 if run.figures_every else plan.ends_epoch(done))):
                _draw(plan, state, session, tracker, done)
            stopwatch.lap("other")
            if last or (logged and _due(plan, done)):
                _agree(state, session, done, saved)
                before, saved = saved, done
                if tracker:
                    tracker.flush()
                    facts = {"family": plan.family, "images": images, "world_size": session.world_size}
                    written = None
                    if candidates and run.evaluate_every and (last or _passed(run.evaluate_every, before, done)):
                        with state.averaged():
                            provenance = _provenance(plan, done, tracker.metrics_file)
                            written = candidates.add(state.recipe.model(), provenance)
                    checkpoints.save(done, state.tensors(), facts, after=written)
                stopwatch.lap("checkpoint")

        if tracker:
            checkpoints.wait()
            stopwatch.lap("checkpoint")
            stopwatch.read()
            if verdict := stopwatch.verdict():
                session.say(verdict)
            if candidates is None or not candidates.promote():
                with state.averaged():
                    provenance = _provenance(plan, done, tracker.metrics_file)
                    model_directory.save(directory / "model", state.recipe.model(), provenance)
    return state


class Meter:
    """Means of metrics over steps and rows, kept on the device until they are asked for."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names: list[str] = []
        self._sums: Tensor | None = None
        self._weight = 0.0
        self._whole: Tensor | None = None

    def add(self, metrics: Mapping[str, Tensor], step: int, share: float, weight: float = 1.0) -> None:
        """Add the means of ``step`` over this rank's rows, which are ``share`` of the step's rows."""
        self._names = list(metrics)
        self._weight += weight
        if metrics:
            values = torch.stack([value.double() for value in metrics.values()])
            whole = torch.where(values.isfinite(), math.inf, step)
            self._whole = whole if self._whole is None else torch.minimum(self._whole, whole)
            values *= share * weight
            self._sums = values if self._sums is None else self._sums + values

    def means(self) -> dict[str, float]:
        """The means over all rows of all ranks since the last call. Every rank calls it, on the same steps."""
        sums, weight, self._sums, self._weight = self._sums, self._weight, None, 0.0
        if sums is None:
            return {}
        return dict(zip(self._names, (sum_over_ranks(sums) / weight).tolist(), strict=True))

    def broken(self) -> tuple[int, str]:
        """The first step of all, on any rank, in which metrics were not finite, and their names.

        For when a mean is not finite, so on all ranks or on none.
        """
        assert self._whole is not None
        ranks = gather(self._whole.tolist())
        first = int(min(step for steps in ranks for step in steps if math.isfinite(step)))
        named = zip(self._names, zip(*ranks, strict=True), strict=True)
        return first, ", ".join(name for name, steps in named if first in steps)


class Window:
    """Speed and data wait since the last reading."""

    def __init__(self, streams: Mapping[str, ShardStream], batch: int) -> None:
        self._streams = streams
        self._batch = batch
        self._mark()

    def _mark(self) -> None:
        self._since = time.perf_counter()
        self._position = next(iter(self._streams.values())).position
        self._waited = sum(stream.waited for stream in self._streams.values())

    def read(self) -> dict[str, float]:
        """Images (or pairs) a second, and the share of time spent waiting for data."""
        since, position, waited = self._since, self._position, self._waited
        self._mark()
        seconds = self._since - since
        return {
            "images_per_second": (self._position - position) / seconds,
            "data_wait_share": (self._waited - waited) / seconds,
        }


def compile_networks(recipe: Recipe[Any], cuda_graphs: bool = False) -> None:
    """Have the networks compiled when they are first called, with PyTorch's own random numbers for dropout."""
    for network in recipe.networks.values():
        for called in network.children():
            called.compile(options={"fallback_random": True, "triton.cudagraphs": cuda_graphs})


def _begin_graphs(cuda_graphs: bool) -> None:
    """Let CUDA graphs begin anew: what those of the last batch returned, gradients included, is done with."""
    if cuda_graphs:
        torch.compiler.cudagraph_mark_step_begin()


def _prepare(exact: bool, threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The same as use_deterministic_algorithms, but without a second's import of torch.compile to tell it, too.
    torch.set_deterministic_debug_mode("error" if exact else "default")
    # Deterministic mode would also fill every new tensor: exactness does not need it, and it costs dearly.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not exact


def _multiplies_bf16() -> bool:
    """Whether this CPU has bf16 instructions."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _restore(checkpoints: Checkpoints, state: TrainingState, session: Session) -> int:
    """Load the newest good checkpoint: rank 0 reads it, once for all, and sends it to the others."""
    done, tensors = 0, dict[str, Tensor]()
    if session.rank == 0:
        done, tensors, messages = checkpoints.newest()
        for message in messages:
            session.say(message)
    done, layout = from_rank_zero((done, {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}))
    if done:
        if session.rank > 0:
            tensors = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in layout.items()}
        state.load(tensors)
        for tensor in state.tensors().values():
            copy_from_rank_zero(tensor)
        if session.rank == 0:
            session.say(f"goes on from the checkpoint of step {done}")
    return done


def _part(batches: Mapping[str, Batch], part: int, parts: int) -> Mapping[str, Batch]:
    """This rank's rows of a part of the step."""
    if parts == 1:
        return batches
    rows = rank_slice(len(next(iter(batches.values())).image), part, parts)
    return {name: batch[rows] for name, batch in batches.items()}


def _due(plan: Plan, done: int) -> bool:
    """Whether a checkpoint's turn came since the last logged step."""
    epoch = -(-plan.rows // plan.run.batch)
    every = plan.run.checkpoint_every or min(epoch, MOST_STEPS_BETWEEN_CHECKPOINTS)
    return _passed(every, done - plan.run.log_every, done)


def _passed(every: int, before: int, done: int) -> bool:
    """Whether a multiple of ``every`` lies in (``before``, ``done``]."""
    return done // every > before // every


def _not_finite(step: int, what: str, saved: int) -> str:
    good = f"the last good checkpoint is that of step {saved}" if saved else "there is no checkpoint yet"
    return (
        f"{what} is not finite in step {step}; {good}. Try a lower optimization.learning_rate or an "
        "optimization.clip_norm, under another run.name"
    )


def _agree(state: TrainingState, session: Session, done: int, saved: int) -> None:
    """Refuse to save weights that are not finite or differ between the ranks: nothing after that could be trusted."""
    if not state.finite():
        raise RunError(_not_finite(done, "a weight", saved))
    if session.world_size > 1 and len(set(gather(state.fingerprint()))) > 1:
        raise RunError(f"the workers' weights have drifted apart by step {done}; the last checkpoint is still good")


def _read(shards: Mapping[str, ShardSet], rows: Ints, device: torch.device) -> dict[str, Batch]:
    """The same rows of every domain."""
    batches = {}
    for name, domain in shards.items():
        found = domain.read(rows)
        columns = {column: torch.from_numpy(values).to(device) for column, values in found.columns.items()}
        label = columns.pop("label", None)
        batches[name] = Batch(torch.from_numpy(found.image).to(device), label, columns)
    return batches


def _test(plan: Plan, state: TrainingState, session: Session) -> dict[str, float]:
    """The recipe's figures over the whole test split, each rank on its share of every batch."""
    split = plan.held_out_split
    if split != plan.config.data.test_split:
        return {}
    shards = {name: open_split(plan, name, split) for name in plan.domains}
    rows = min(len(domain) for domain in shards.values())
    batch = max(plan.run.batch, session.world_size)
    meter = Meter(session)
    with state.averaged():
        # A rest smaller than the world would leave ranks without a row: it is left out.
        for first in range(0, rows - session.world_size + 1, batch):
            whole = min(batch, rows - first)
            _begin_graphs(plan.run.cuda_graphs)
            step = LoopStepContext(
                state,
                session,
                index=first // batch,
                batch=whole,
                key=(plan.run.seed, "test", first),
                precision=plan.run.precision,
            )
            batches = _read(shards, np.arange(first + step.rows.start, first + step.rows.stop), session.device)
            meter.add(state.recipe.test_metrics(batches, step), step.index, step.share, weight=whole)
    return meter.means()


def _draw(plan: Plan, state: TrainingState, session: Session, tracker: Tracker, done: int) -> None:
    """Sample pictures and tables of the first held-out rows, or of training rows where nothing is held out."""
    shards = {name: open_split(plan, name, plan.held_out_split) for name in plan.domains}
    there = min(len(domain) for domain in shards.values())
    wanted = min(state.recipe.figure_rows, there)
    first = min(FIRST_ROWS, wanted)
    rows = np.concatenate([np.arange(first), evenly_spaced(there, wanted - first)])
    with state.averaged():
        batches = _read(shards, rows, session.device)
        for name, image in state.recipe.figures(batches).items():
            tracker.picture(done, name, image)
        for name, table in state.recipe.tables(batches).items():
            tracker.table(done, name, table)


def _provenance(plan: Plan, done: int, metrics: Path) -> model_directory.Provenance:
    """What is to be said of the model as it is now."""
    figures: dict[str, float] = {}
    for line in read_metrics(metrics):
        kind = line.pop("kind")
        figures |= {f"{kind}/{name}": value for name, value in line.items() if name not in TIME_FIELDS | CLOCK_FIELDS}
    info = next(iter(plan.domains.values())).info
    return model_directory.Provenance(
        run=plan.directory,
        step=done,
        images=done * plan.run.batch,
        data={name: {"path": domain.url, "checksum": domain.checksum} for name, domain in plan.domains.items()},
        config=to_dict(plan.config),
        metrics=figures,
        label_names=info.label_names,
    )
