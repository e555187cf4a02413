"""The training loop: one function, read from top to bottom, for every family on any number of workers.

The only state besides tensors is the number of steps done. Rows, noise, learning rate and averages are functions of it,
so a run that is killed at any moment and resumed takes the same steps, bit for bit, as one that was not killed.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor

from genlab.core.config import to_dict
from genlab.core.errors import RunError
from genlab.core.seeds import derived_seed
from genlab.core.storage import locate
from genlab.core.text import counted
from genlab.data.stream.batches import Batch, read_batch, read_batches
from genlab.data.stream.order import evenly_spaced, group_slice, pieces_of_batches
from genlab.evaluation.checkpoint_evaluations import read_evaluations
from genlab.recipes.recipe import recipe_type
from genlab.store import model_directory, probes
from genlab.training.attempts import Attempt, begin_attempt
from genlab.training.beginning import state_of_beginning
from genlab.training.candidates import Candidates
from genlab.training.checkpoints import Checkpoints
from genlab.training.console import ProgressUpdate
from genlab.training.domain_data import open_batches, open_split
from genlab.training.gradients import Gradients
from genlab.training.ledger import Account
from genlab.training.meters import Meter, Throughput
from genlab.training.notices import PreemptedError
from genlab.training.plan import Plan
from genlab.training.rung import Rung
from genlab.training.session import Session, copy_from_rank_zero, from_rank_zero, gather
from genlab.training.state import TrainingState
from genlab.training.step_context import LoopStepContext, rows_of_part
from genlab.training.stopwatch import Stopwatch
from genlab.training.torch_settings import (
    begin_cuda_graphs,
    compile_networks,
    cpu_multiplies_bf16,
    set_up_torch,
)
from genlab.training.tracking import CLOCK_FIELDS, TIME_FIELDS, Tracker

MOST_STEPS_BETWEEN_CHECKPOINTS = 1000
"""Upper limit of the default of ``run.checkpoint_every``, which is an epoch."""
ASKED_AGAIN_SECONDS = 60.0
"""How long ranks wait for rank 0's evaluation at a rung before they ask it again: less than a collective may take."""
FIRST_ROWS = 100
"""The first held-out rows, which pictures show; recipes that ask for more rows get rows from the whole split."""


def train(plan: Plan, session: Session) -> TrainingState:
    """Train ``plan`` as one of ``session.world_size`` workers, going on from the newest checkpoint.

    The run goes to its end, or to a rung at which it is told to stop.

    Args:
        plan: the run.
        session: this worker's session.

    Returns:
        The state at the end.

    Raises:
        RunError: when a loss or a weight is not finite any more, the ranks' weights differ, or a checkpoint is of
            another architecture.
        SupersededError, ClaimLostError: on rank 0, when another process goes on with the run.
        PreemptedError: when the run was told that it is about to be stopped, and has written a checkpoint.
    """
    config, run = plan.config, plan.run
    directory = locate(plan.directory)
    device = session.device
    accumulate = plan.accumulate(session.world_size)
    set_up_torch(run.exact, session.threads, tf32=run.precision == "tf32")
    if run.precision == "bf16" and session.rank == 0 and device.type == "cpu" and not cpu_multiplies_bf16():
        session.say("run.precision=bf16 is emulated on this CPU (no AVX512-BF16); fp32 is many times faster here")

    torch.manual_seed(run.seed)
    recipe = recipe_type(plan.family)(config, {name: domain.info for name, domain in plan.domains.items()})
    state = TrainingState(recipe, device, trained=plan.init is not None)
    phases = recipe.phases()
    gradients = {
        name: Gradients(list(parameters.values()), alone=session.world_size == 1)
        for name, parameters in state.parameters.items()
    }
    recipe.train()
    if run.compile or run.cuda_graphs:
        compile_networks(recipe, run.cuda_graphs)

    with ExitStack() as stack:
        stack.enter_context(_told_of_full_memory(plan))
        attempt = begin_attempt(directory, plan.claim) if session.rank == 0 else None
        account = stack.enter_context(_account(plan, session, attempt)) if attempt else None
        checkpoints = stack.enter_context(Checkpoints(directory / "checkpoints", run.keep, attempt, plan.spared))
        done = saved = _restore(plan, checkpoints, state, session)
        tracker = stack.enter_context(Tracker(directory, done, attempt)) if attempt else None
        if tracker:
            for evaluation in read_evaluations(directory):
                if evaluation.step <= done:
                    tracker.evaluation(plan.evaluation_kind, evaluation.step, evaluation.better)
        candidates = None
        if tracker and attempt and run.evaluate_every:
            candidates = stack.enter_context(Candidates(plan, session, attempt, done, tracker.evaluation))
        domains = {
            name: stack.enter_context(open_batches(plan, name, session, start=done * run.batch))
            for name in plan.domains
        }
        streams = {name: domain.stream for name, domain in domains.items()}
        rate_names = {"learning_rate", *(f"learning_rate_{name}" for name in recipe.networks)}
        meter = Meter(taken=CLOCK_FIELDS | TIME_FIELDS | rate_names)
        throughput = Throughput(streams, done * run.batch)
        stopwatch = Stopwatch(device, streams.values())
        measured_splits = plan.measured_splits if recipe.has_test_metrics else {}
        stopped = done in plan.rungs and _stops(plan, session, tracker, candidates, done)
        notices = stack.enter_context(closing(session.notices()))
        if account:
            account.trains(done)

        while done < plan.steps and not stopped:
            stopwatch.begin(done)
            torch.manual_seed(derived_seed(run.seed, "step", done, session.rank))
            begin_cuda_graphs(run.cuda_graphs)
            batches = {name: next(domain) for name, domain in domains.items()}
            stopwatch.lap("data")
            if recipe.restarts(done * run.batch):
                state.restart_optimizers()
            rates = state.set_rates(done * run.batch, plan.steps * run.batch)
            parts = [
                LoopStepContext(
                    session,
                    index=done,
                    batch=run.batch,
                    rows_of=partial(_rows_of_part, plan, session.world_size, part),
                    key=(run.seed, "noise", done),
                    precision=run.precision,
                    numbers_at_once=plan.numbers_at_once,
                    lap=stopwatch.lap,
                )
                for part in range(accumulate)
            ]
            moving: list[str] = []
            for phase in phases:
                if done % phase.every:
                    continue
                # A network moves when a phase reads it, or at the end: until then its gradients are summed beside.
                reads = {phase.network, *(recipe.networks if phase.reads is None else phase.reads)}
                _move([name for name in moving if name in reads], gradients, state, stopwatch)
                moving = [name for name in moving if name not in reads] + [phase.network]
                with state.only(phase.network):
                    for part, step in enumerate(parts):
                        loss, values = phase.loss(_rows_of(batches, step.rows, parts[0].rows.start), step)
                        gradients[phase.network].backward(
                            loss * step.fraction, first=part == 0, last=part == accumulate - 1
                        )
                        meter.add(values, phase.name, done + 1, weight=step.fraction)
                stopwatch.lap("compute")
            _move(moving, gradients, state, stopwatch)
            done += 1
            images = done * run.batch
            state.update_ema(images, run.batch)
            stopwatch.lap("optimiser")

            last = done == plan.steps
            rung = done in plan.rungs
            logged = last or done % run.log_every == 0
            notice = None
            if logged:
                stopwatch.settle()
                time_fractions = stopwatch.read()
                metrics = meter.means() | rates
                if not all(map(math.isfinite, metrics.values())):
                    raise RunError(_not_finite(*meter.first_not_finite(), saved))
                speed = throughput.read(images)
                if tracker and account:
                    account.reaches(done)
                    tracker.log("train", done, images, plan.epoch(done), metrics | speed)
                    tracker.time_fractions(done, time_fractions)
                    session.progress(
                        ProgressUpdate(done, plan.steps, plan.epoch(done), speed["images_per_second"], metrics)
                    )
                notice = None if last else from_rank_zero(notices.newest() if session.rank == 0 else None)
            if last or rung or plan.ends_epoch(done):
                reported = {"step": done, "epoch": plan.epoch(done)}
                for kind, split in measured_splits.items():
                    measured = _test_metrics(plan, split, state, session)
                    if tracker and measured:
                        tracker.log(kind, done, images, plan.epoch(done), measured)
                    reported |= {f"{kind}/{name}": value for name, value in measured.items()}
                if last or plan.ends_epoch(done):
                    session.report(reported)
            shown = done % run.figures_every == 0 if run.figures_every else plan.ends_epoch(done)
            if tracker and (last or rung or shown):
                _write_pictures(plan, state, session, tracker, done)
            stopwatch.lap("other")
            if last or rung or notice or (logged and _checkpoint_is_due(plan, done)):
                _require_sound_weights(state, session, done, saved)
                saved = done
                if tracker:
                    followed = tracker.flush()
                    facts = {"family": plan.family, "images": images, "world_size": session.world_size}
                    written = None
                    if candidates and (last or rung or _candidate_is_due(plan, done)):
                        with state.ema_weights():
                            provenance = _make_provenance(plan, done, tracker.latest)
                            written = candidates.add(state.recipe.model(), provenance)
                    checkpoints.save(done, state.tensors(), facts, after=(followed, written))
                waited = stopwatch.lap("checkpoint")
                if account:
                    account.checkpoint(waited)
            if notice:
                checkpoints.wait()
                if account:
                    account.notice(notice)
                then = "start the run again under its name, it goes on" if notice.ends else "the run goes on"
                raise PreemptedError(f"{plan.directory}: {notice.reason}; step {done:,} is saved, {then}")
            if rung:
                checkpoints.wait()
                stopped = _stops(plan, session, tracker, candidates, done)
                stopwatch.lap("other")

        notices.close()  # What is left can be done by any later start.
        if tracker and attempt:
            checkpoints.wait()
            stopwatch.lap("checkpoint")
            stopwatch.read()
            if sentence := stopwatch.bottleneck():
                session.say(sentence)
            if candidates is None or not (candidates.left_to_driver() or candidates.promote()):
                with state.ema_weights():
                    provenance = _make_provenance(plan, done, tracker.latest)
                    model = state.recipe.model()
                    made = probes.make(model)
                    attempt.require_last()
                    model_directory.save(directory / "model", model, provenance, made)
    return state


@contextmanager
def _told_of_full_memory(plan: Plan) -> Iterator[None]:
    """Make a full GPU's error one that the user can put right: it would come again after a restart."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"{plan.directory}: the memory of the GPU is full; raise --run.accumulate, or begin a run of a smaller "
            f"--run.batch ({str(error).partition('.')[0]})"
        ) from None


def _account(plan: Plan, session: Session, attempt: Attempt) -> Account:
    """Return the account that this attempt keeps of what it uses."""
    driver = plan.claim.token if plan.claim else f"process {os.getpid()}"
    gpus = session.device.type == "cuda"
    devices = session.world_size * (1 if gpus else torch.get_num_threads())
    return Account(attempt, driver, session.world_size, devices, "GPU" if gpus else "core")


def _restore(plan: Plan, checkpoints: Checkpoints, state: TrainingState, session: Session) -> int:
    """Load the newest good checkpoint, which rank 0 reads; return its step, 0 without one.

    All ranks begin with the state of rank 0: where there is no checkpoint, that of the run it branched off, its first
    weights or those of ``run.init``.
    """
    done, tensors = 0, dict[str, Tensor]()
    if session.rank == 0:
        done, tensors, messages = checkpoints.newest()
        if not done and plan.branch:
            done, tensors = plan.branch.step, plan.branch.read()
            messages.append(f"branches off {plan.branch.path}")
        elif not done and plan.init:
            weights, more = state_of_beginning(plan.init, state.recipe)
            state.begin_with(weights)
            messages += [f"begins with the weights of {plan.init.path}, step {plan.init.step:,}", *more]
        for message in messages:
            session.say(message)
    done, layout = from_rank_zero((done, {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}))
    if done:
        if session.rank > 0:
            tensors = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in layout.items()}
        state.load(tensors)
    for tensor in state.tensors().values():
        copy_from_rank_zero(tensor)
    if done and session.rank == 0:
        session.say(f"goes on from the checkpoint of step {done}")
    return done


def _rows_of_part(plan: Plan, world_size: int, part: int, rank: int) -> slice:
    """Return the rows of a global batch that ``rank`` has in a part of gradient accumulation."""
    return rows_of_part(plan.run.batch, rank, world_size, part, plan.accumulate(world_size), plan.group)


def _rows_of(batches: Mapping[str, Batch], rows: slice, first: int) -> Mapping[str, Batch]:
    """Return ``rows`` of the global batch out of a rank's batches, which begin with row number ``first``."""
    within = slice(rows.start - first, rows.stop - first)
    return {
        name: batch if len(batch) == within.stop - within.start else batch[within] for name, batch in batches.items()
    }


def _move(
    networks: Sequence[str], gradients: Mapping[str, Gradients], state: TrainingState, stopwatch: Stopwatch
) -> None:
    """Wait for the gradients of networks, and step their optimisers."""
    for name in networks:
        gradients[name].wait()
        stopwatch.lap("all_reduce")
        state.step_optimizer(name)
        stopwatch.lap("optimiser")


def _checkpoint_is_due(plan: Plan, done: int) -> bool:
    """Return whether a checkpoint has become due since the last logged step."""
    epoch = -(-plan.rows // plan.run.batch)
    every = plan.run.checkpoint_every or min(epoch, MOST_STEPS_BETWEEN_CHECKPOINTS)
    return _multiple_between(every, done - plan.run.log_every, done)


def _candidate_is_due(plan: Plan, done: int) -> bool:
    """Return whether the model of the checkpoint of ``done`` is to be evaluated.

    It is a function of the step alone: a checkpoint that was written for a notice takes no other's place.
    """
    every = plan.run.evaluate_every
    if not every or not _checkpoint_is_due(plan, done):
        return False
    before = done - plan.run.log_every
    while before > 0 and before not in plan.rungs and not _checkpoint_is_due(plan, before):
        before -= plan.run.log_every
    return _multiple_between(every, before, done)


def _multiple_between(every: int, before: int, done: int) -> bool:
    """Return whether a multiple of ``every`` lies in (``before``, ``done``]."""
    return done // every > before // every


def _not_finite(step: int, what: str, saved: int) -> str:
    """Return the message that ``what`` is not finite in ``step``, the last checkpoint being that of ``saved``."""
    good = f"the last good checkpoint is that of step {saved}" if saved else "there is no checkpoint yet"
    return (
        f"{what} is not finite in step {step}; {good}. Try a lower optimization.learning_rate or an "
        "optimization.clip_norm, under another run.name"
    )


def _require_sound_weights(state: TrainingState, session: Session, done: int, saved: int) -> None:
    """Raise a RunError when a weight is not finite or the ranks' states differ: such a state must not be saved."""
    if not state.finite():
        raise RunError(_not_finite(done, "a weight", saved))
    if session.world_size > 1:
        fingerprints = state.fingerprints()
        if len(set(gather(hash(tuple(fingerprints.values()))))) > 1:
            first, *others = gather(fingerprints)
            differing = [name for name in first if any(other.get(name) != first[name] for other in others)]
            raise RunError(
                f"the workers' states have drifted apart by step {done}, in {counted(len(differing), 'tensor')}, first "
                f"in {differing[0]}; the last checkpoint is still good"
            )


def _test_metrics(plan: Plan, split: str, state: TrainingState, session: Session) -> dict[str, float]:
    """Return the recipe's test metrics over a held-out split or half of one, but for an incomplete last group of rows.

    Each rank measures its own share of the rows, in pieces no larger than its parts of a training step. A row's noise
    depends on the row alone, so the metrics do not depend on the number of ranks.
    """
    splits = {name: open_split(plan, name, split) for name in plan.domains}
    rows = min(map(len, splits.values())) // plan.group * plan.group
    batch = plan.run.batch
    share = group_slice(rows, session.rank, session.world_size, plan.group)
    largest = rows_of_part(batch, 0, session.world_size, 0, plan.accumulate(session.world_size), plan.group).stop
    pieces = pieces_of_batches(range(share.start, share.stop), batch, largest)
    meter = Meter(taken=CLOCK_FIELDS | TIME_FIELDS)
    with state.ema_weights(), read_batches(splits, pieces, session.device) as read:
        for piece, batches in zip(pieces, read, strict=True):
            begin_cuda_graphs(plan.run.cuda_graphs)
            first = piece.start // batch * batch
            within = slice(piece.start - first, piece.stop - first)
            step = LoopStepContext(
                session,
                index=first // batch,
                batch=min(batch, rows - first),
                rows_of=partial(_same_rows, within),
                key=(plan.run.seed, "test", first),
                precision=plan.run.precision,
                numbers_at_once=plan.numbers_at_once,
            )
            meter.add(state.recipe.test_metrics(batches, step), "test_metrics", step.index, weight=len(piece))
    return meter.means()


def _same_rows(rows: slice, rank: int) -> slice:
    return rows


def _stops(plan: Plan, session: Session, tracker: Tracker | None, candidates: Candidates | None, done: int) -> bool:
    """Tell what started the run that it has reached the rung ``done``; return, on every rank, whether it is to stop.

    Where checkpoints are evaluated it waits for the evaluation of this one.
    """
    stops = False
    if session.world_size > 1:
        _wait_together(candidates, done)
    if tracker:
        measured = {name: value for name, value in tracker.latest.items() if name.partition("/")[0] != "train"}
        if candidates:
            measured |= candidates.measured(done)
        stops = session.reach(Rung(done, done * plan.run.batch, measured))
        if stops:
            session.say(f"stops at step {done:,}, as told; its checkpoint is kept")
    return bool(from_rank_zero(stops))


def _wait_together(candidates: Candidates | None, done: int) -> None:
    """Wait on all ranks until rank 0's candidate of a step is measured, however long that takes."""
    with ThreadPoolExecutor(1, thread_name_prefix="rung") as thread:
        measured = thread.submit(candidates.measured, done) if candidates else None
        while not from_rank_zero(measured is None or bool(wait([measured], ASKED_AGAIN_SECONDS).done)):
            pass


def _write_pictures(plan: Plan, state: TrainingState, session: Session, tracker: Tracker, done: int) -> None:
    """Write the recipe's pictures and tables of held-out rows, or of training rows where a domain has no test split."""
    shards = {name: open_split(plan, name, plan.held_out_split) for name in plan.domains}
    available = min(len(domain) for domain in shards.values())
    wanted = min(state.recipe.figure_rows, available)
    first = min(FIRST_ROWS, wanted)
    rows = np.concatenate([np.arange(first), evenly_spaced(available, wanted - first)])
    begin_cuda_graphs(plan.run.cuda_graphs)
    with state.ema_weights():
        batches = {name: read_batch(split, rows, session.device) for name, split in shards.items()}
        for name, image in state.recipe.figures(batches).items():
            tracker.picture(done, name, image)
        for name, table in state.recipe.tables(batches).items():
            tracker.table(done, name, table)


def _make_provenance(plan: Plan, done: int, metrics: Mapping[str, float]) -> model_directory.Provenance:
    """Return the provenance of the model as it is after ``done`` steps, with these metrics."""
    info = next(iter(plan.domains.values())).info
    held_out = plan.held_out
    chosen = {"chosen_on": held_out.choice or "", "reported_on": held_out.report} if held_out.sealed else {}
    return model_directory.Provenance(
        run=plan.directory,
        step=done,
        images=done * plan.run.batch,
        data={name: domain.provenance for name, domain in plan.domains.items()},
        config=to_dict(plan.config),
        init=to_dict(plan.init) if plan.init else None,
        branch=to_dict(plan.branch) if plan.branch else None,
        license=plan.init.license if plan.init else "",
        metrics=dict(metrics),
        label_names=info.label_names,
        label_column=info.label_column,
        attributes=info.attributes,
        **chosen,
    )
