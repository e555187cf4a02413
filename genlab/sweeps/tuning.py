"""Trials under Ray Tune, side by side."""

import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ray import tune
from ray.exceptions import RayActorError, RayError
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.search import Searcher
from upath import UPath

from genlab.core.claims import ClaimError
from genlab.core.config import override
from genlab.core.errors import ClusterError, GenlabError, StorageError, StorageTimeoutError
from genlab.core.storage import delete_folder, locate
from genlab.core.text import counted
from genlab.reports.report import make_report
from genlab.sweeps.hparams import write_hyperparameters
from genlab.sweeps.space import Asha, Median, Space
from genlab.sweeps.stopping import RungScheduler, reporter
from genlab.sweeps.trials import (
    BRANCH,
    FAULT,
    NAME,
    NUMBER,
    OWN,
    SEED,
    SPARED,
    UNTIL,
    Source,
    Trial,
    config_of,
    ended_step,
    plan_run,
    result_of,
)
from genlab.training.attempts import SupersededError
from genlab.training.branch import Branch
from genlab.training.console import RunConsole
from genlab.training.notices import PreemptedError
from genlab.training.plan import owned, start_or_resume
from genlab.training.ray.driver import fit, resources_of, side_by_side, worker_resources

DRIVER: dict[str, int | float] = {"memory": 1}
"""What is reserved for the driver of a trial of several workers, which hardly computes: a byte, since Tune wants
something reserved. Even a hundredth of a CPU would be missing for a worker, on a node whose CPUs are all taken."""
FAULTS_OF_OTHERS = (ClaimError, ClusterError, StorageError)
"""Errors that are no trial's own fault, but one of the cluster, the storage or another process."""
SECONDS_PER_HOUR = 3600
TUNES_FOLDER = "tune"
"""Folder of the sweep for Ray Tune's own state, which genlab never reads and deletes at each start."""
SETTINGS = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # By its own, Tune would end the sweep as if all trials had ended.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # TensorBoard would show each trial twice.
    "RAY_AIR_NEW_OUTPUT": "0",  # It prints a table of settings, and a path to nothing, whatever the verbosity.
}
"""Environment variables of Ray Tune."""


@dataclass(frozen=True)
class Trained:
    """What came of training the trials of a sweep."""

    faults: Mapping[str, str] = field(default_factory=dict)
    """Why trials failed, by their names: the message of an error, or the end of what a process said."""
    hours_over: bool = False
    """Whether the hours of the budget ended before all trials had started."""


def run_trials(source: Source, space: Space, config: Any, folder: UPath, callbacks: Sequence[tune.Callback]) -> Trained:
    """Train trials side by side on the cluster that this process is connected to, and write their reports.

    Args:
        source: gives the trials out. The most that it may have in all decides the threads of each, so that trials
            compute with the same number when the sweep goes on.
        space: the space, with the hours of the budget.
        config: the config of all trials.
        folder: the sweep's folder, where Ray Tune has its own files, too.
        callbacks: they are told of the trials, each by its number among those of the source, the ``trial`` of its
            config.

    Raises:
        ClusterError: when a trial does not fit on the cluster.
    """
    os.environ.update(SETTINGS)
    delete_folder(folder / TUNES_FOLDER)
    threads, together = side_by_side(config.run, source.most, space.per_gpu)
    at_once = counted(min(together, source.left), "trial")
    print(f"{at_once} at a time, {counted(threads, 'thread')} a worker", flush=True)
    trainable = tune.with_parameters(_trial, space=space, config=config, folder=str(folder), threads=threads)
    queue = Queue(source, space.budget.hours)
    alone = config.run.workers == 1
    _, gpu = worker_resources(config.run)
    reserved = resources_of(threads, gpu, space.per_gpu) if alone else DRIVER
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([reserved])),
        tune_config=tune.TuneConfig(
            search_alg=queue,
            num_samples=source.left * (2 if source.waits else 1),  # At most: those that are replaced come once more.
            max_concurrent_trials=together,
            scheduler=RungScheduler(space, source.trials) if isinstance(space.scheduler, Asha | Median) else None,
            reuse_actors=alone,  # A process that has PyTorch trains one trial after another.
        ),
        run_config=tune.RunConfig(
            name=TUNES_FOLDER,
            storage_path=str(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=config.run.max_failures),
            callbacks=list(callbacks),
        ),
    )
    with _interrupted_by_sigterm():
        grid = tuner.fit()
    faults = {}
    for result in (grid[number] for number in range(len(grid))):
        fault = (result.metrics or {}).get(FAULT) if result.error is None else str(result.error)
        if fault:
            faults[(result.config or {})[NAME]] = fault
    return Trained(faults, queue.hours_over)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Have SIGTERM interrupt this process as SIGINT does: by Ray's handler it would abort with a stack trace."""
    here = threading.current_thread() is threading.main_thread()
    before = (signal.signal(signal.SIGTERM, signal.default_int_handler) if here else None) or signal.SIG_DFL
    try:
        yield
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)


def _trial(parameters: dict[str, Any], space: Space, config: Any, folder: str, threads: int) -> None:
    """Train the run of a trial and write its report; runs in a process of Tune's.

    An error is reported, not raised: it would come again, as Tune would start the trial again at once. It does so where
    a process is killed, a node lost, or the storage away for longer than a request is repeated.
    """
    try:
        _train_and_report(parameters, space, config, folder, threads)
    except (SupersededError, StorageTimeoutError):
        raise
    except PreemptedError as end:  # By this error Tune starts the trial on another node, and counts no failure.
        raise RayActorError(error_msg=str(end), preempted=True) from None
    except GenlabError as fault:
        tune.report({FAULT: str(fault), OWN: not isinstance(fault, FAULTS_OF_OTHERS)})
    except RayError:
        raise
    except Exception as error:
        tune.report({FAULT: traceback.format_exc(), OWN: not isinstance(error, OSError)})  # A full disk is none's own.


def _train_and_report(parameters: dict[str, Any], space: Space, config: Any, folder: str, threads: int) -> None:
    point = {name: value for name, value in parameters.items() if name in space.vary and name != SEED}
    changed = override(config_of(space, config, point, parameters[SEED]), {"run.threads": threads})
    branch = Branch(*parameters[BRANCH]) if BRANCH in parameters else None
    until = parameters.get(UNTIL)
    plan = plan_run(space, changed, locate(folder), parameters[NAME], branch)
    plan = replace(plan, spared=tuple(parameters.get(SPARED, ())))
    with owned(plan, "give the sweep another name") as mine:
        start_or_resume(mine)
        options = {**point, SEED: parameters[SEED]}
        write_hyperparameters(locate(mine.directory), options, list(space.objectives))
        if ended_step(mine) is None:
            with RunConsole() as console:
                if mine.run.workers == 1:
                    from genlab.training.ray.alone import train_alone  # imports torch

                    train_alone(mine, console, lambda metrics: tune.report(dict(metrics)), reporter(mine, until))
                else:
                    # Ray Tune takes reports of one thread at a time: of the rungs, or of the epochs.
                    callbacks = [] if mine.rungs else [TuneReportCallback()]
                    fit(mine, console, callbacks=callbacks, on_rung=reporter(mine, until))
        if until is not None and ended_step(mine) is None:
            return  # It waits for others at its rung.
    make_report(plan.directory)
    tune.report(result_of(Trial({}, plan)) or {})


class Queue(Searcher):
    """Gives trials out as their source has them, to whatever is free.

    Args:
        source: the source.
        hours: after how many hours no more are given out.
    """

    def __init__(self, source: Source, hours: float | None) -> None:
        super().__init__()
        self._source = source
        self._given: dict[str, Trial] = {}
        self._end = None if hours is None else time.monotonic() + hours * SECONDS_PER_HOUR
        self.hours_over = False
        """Whether the hours ended before all trials had been given out."""

    def suggest(self, trial_id: str) -> Any:
        """Return the parameters of the next trial's process: its point, its name, and its place among all trials."""
        over = self._end is not None and time.monotonic() > self._end
        trial = None if over else self._source.next()
        self.hours_over = self.hours_over or (over and (self._source.left > 0 or self._source.waits))
        if trial is None:
            return None if self._source.waits and not over else Searcher.FINISHED
        self._given[trial_id] = trial
        number = next(number for number, one in enumerate(self._source.trials) if one.name == trial.name)
        parameters: dict[str, Any] = {**trial.point, SEED: trial.seed, NAME: trial.name, NUMBER: number}
        plan = trial.plan
        if trial.until is not None:
            parameters[UNTIL] = trial.until
        if plan.branch:
            parameters[BRANCH] = [plan.branch.path, plan.branch.step]
        if plan.spared:
            parameters[SPARED] = list(plan.spared)
        return parameters

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the source, which asks the run how it ended."""
        reported = result or {}
        fault = "its process failed" if error else reported.get(FAULT)
        self._source.ended(self._given[trial_id], fault, own=not error and reported.get(OWN, True))

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a sweep that is started again asks the runs how far they are."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, as :meth:`save`."""
