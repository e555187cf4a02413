"""What becomes of events of trials while a sweep runs: it is shown, and the sweep's files are written."""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray import tune
from upath import UPath

from genlab.core.text import counted
from genlab.sweeps.disk import release_checkpoints
from genlab.sweeps.live import Display, Status
from genlab.sweeps.page import FILE_NAME, Reported, SweepPage
from genlab.sweeps.results import FILE_NAME as RESULTS
from genlab.sweeps.results import TrialResult, failed, read_result, write_results
from genlab.sweeps.space import Space
from genlab.sweeps.trials import FAULT, UNTIL, Outcome, Trial, result_of, stop_of, stopped_images


class Results:
    """The trials as their runs tell of them, and the files of all: ``sweep.html`` and ``results.parquet``.

    As a context manager it writes these files from a thread beside the trials, each time that one has ended; those that
    end while it writes come together.

    Args:
        name: name of the sweep.
        folder: its folder.
        space: the space.
        config: the config of all trials.
        trials: the trials.
    """

    def __init__(self, name: str, folder: UPath, space: Space, config: Any, trials: Sequence[Trial]) -> None:
        self._page = SweepPage(name, folder, space, config, ())
        self._trials = trials
        self._finished: dict[str, TrialResult] = {}
        self._faults: dict[str, str] = {}
        self._released: set[str] = set()
        self._changed = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._write_changes, name="sweep page", daemon=True)

    def __enter__(self) -> "Results":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over = True
        self._changed.set()
        self._thread.join()

    def trial_ended(self, name: str, fault: str | None = None) -> None:
        """Note that a trial has ended, or why it failed; returns at once."""
        if fault is not None:
            self._faults[name] = fault
        self._changed.set()

    def read(self, faults: Mapping[str, str] | None = None) -> list[TrialResult]:
        """Return all trials as they are now; those that have finished are read once.

        Args:
            faults: what was said of trials that failed, by name; by default what :meth:`trial_ended` was told.
        """
        faults = dict(self._faults) if faults is None else faults
        found = []
        for trial in self._trials:
            one = self._finished.get(trial.name)
            if one is None:
                metrics = result_of(trial)
                outcome = Outcome(trial, metrics or {}, stopped=stopped_images(trial.plan))
                one = read_result(outcome, list(self._page.space.objectives))
                if metrics is not None:
                    self._finished[trial.name] = one
            fault = faults.get(trial.name)
            found.append(one if fault is None else failed(one, fault))
        return found

    def best_so_far(self) -> float:
        """Return the best value of the first metric among all trials as they are now; NaN where none has one."""
        metric, mode = next(iter(self._page.space.objectives.items()))
        values = [value for one in self.read() if math.isfinite(value := one.value(metric))]
        return (min if mode == "min" else max)(values, default=math.nan)

    def release(self, results: Sequence[TrialResult]) -> None:
        """Delete the checkpoints of trials that have ended, but for those of the best."""
        space = self._page.space
        ended = [one.outcome for one in results if one.outcome.metrics]
        spared = [one for one in ended if one.trial.name not in self._released]
        origins = [one.outcome.trial.origin for one in results if one.state != "finished"]
        needed = {origin.parent for origin in origins if origin}
        self._released |= set(release_checkpoints(spared, space.objectives, space.keep, needed))

    def write(self, results: Sequence[TrialResult], reported: Reported | None = None) -> UPath:
        """Write both files; return where ``sweep.html`` is."""
        write_results(self._page.folder, results)
        return replace(self._page, results=tuple(results), reported=reported).write()

    def _write_changes(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            if self._over:
                return
            try:
                results = self.read()
                self.write(results)
                self.release(results)
            except Exception as error:  # else no file would be written any more until the sweep ends
                print(
                    f"{FILE_NAME} and {RESULTS} could not be brought up to date ({type(error).__name__}: {error}); "
                    "that is tried again when the next trial has ended, and at the end",
                    flush=True,
                )


class Announcer(tune.Callback):
    """Shows how far a sweep is as its trials start, report, end and fail; tells ``results`` of their ends.

    Args:
        trials: the trials, by number.
        status: how far the sweep is.
        display: shows it.
        results: writes the sweep's files.
    """

    def __init__(self, trials: Sequence[Trial], status: Status, display: Display, results: Results) -> None:
        self._trials = trials
        self._status = status
        self._display = display
        self._results = results

    def __reduce__(self) -> Any:
        """Leave everything out of what Tune saves for a restoration, which genlab never makes."""
        return tune.Callback, ()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show that a trial starts."""
        mine = self._of(trial)
        if self._status.knows(mine.name) and stop_of(mine.plan) is not None:
            return  # It was replaced, and writes its report.
        begins = f"starts from {mine.origin}" if mine.origin else "starts"
        self._say(mine, "goes on" if self._status.knows(mine.name) else begins)
        self._status.starts(mine.name, mine.label)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Show the metrics of a trial."""
        mine = self._of(trial)
        found = {metric: float(result[metric]) for metric in self._status.objectives if metric in result}
        if found and self._status.reports(mine.name, found):  # At its end a trial reports the last once more.
            self._say(mine, ", ".join(f"{metric} {value:.5g}" for metric, value in found.items()))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show how far the sweep is, and have its files written."""
        mine, fault = self._of(trial), trial.last_result.get(FAULT)
        if fault is not None:
            self._say(mine, "failed")
        if fault is None and result_of(mine) is None:
            self._say(mine, f"waits at {counted(trial.config[UNTIL] * mine.plan.run.batch, 'image')}")
            self._status.waits(mine.name)
            self._display.say(str(self._status))
            return
        if stopped := stopped_images(mine.plan):
            self._say(mine, f"stopped at {counted(stopped, 'image')}")
        self._ended(mine, fault)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show that the process of a trial ended, and that the trial goes on in another."""
        self._say(self._of(trial), "its process ended; it goes on in another")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show that a trial failed, and have the files written."""
        mine = self._of(trial)
        self._say(mine, "failed")
        self._ended(mine, "failed")

    def _ended(self, trial: Trial, fault: str | None) -> None:
        if not self._status.knows(trial.name):  # Its process never came up.
            self._status.starts(trial.name, trial.label)
        self._status.ends(trial.name, failed=fault is not None)
        self._display.say(str(self._status))
        self._results.trial_ended(trial.name, fault)

    def _of(self, trial: Any) -> Trial:
        return self._trials[trial.config["trial"]]

    def _say(self, trial: Trial, what: str) -> None:
        self._display.say(f"{trial.name} ({trial.label}): {what}")
