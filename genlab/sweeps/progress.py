"""What a sweep shows while its trials run: a line for each event, and the files that are written as trials end."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ray import tune
from upath import UPath

from genlab.core.errors import GenlabError
from genlab.sweeps.page import Reported, SweepPage
from genlab.sweeps.results import TrialResult, read_result, write_results
from genlab.sweeps.space import Space
from genlab.sweeps.trials import Outcome, Trial, result_of


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
            faults: why trials failed, by name; by default what :meth:`trial_ended` was told.
        """
        faults = dict(self._faults) if faults is None else faults
        found = []
        for trial in self._trials:
            one = self._finished.get(trial.name)
            if one is None:
                metrics = result_of(trial)
                one = read_result(Outcome(trial, metrics or {}), list(self._page.space.objectives))
                if metrics is not None:
                    self._finished[trial.name] = one
            found.append(replace(one, outcome=replace(one.outcome, error=faults.get(trial.name))))
        return found

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
                self.write(self.read())
            except (GenlabError, OSError):
                continue  # they are written once more at the end, which says what is wrong


class Announcer(tune.Callback):
    """Prints a line when a trial starts, when it reports the metrics, and when it fails; tells ``results`` of its end.

    Args:
        trials: the trials, by number.
        metrics: the metrics.
        results: writes the sweep's files.
    """

    def __init__(self, trials: Sequence[Trial], metrics: Sequence[str], results: Results) -> None:
        self._trials = trials
        self._metrics = metrics
        self._results = results

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Print that a trial starts."""
        self._say(trial, "starts")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Print the metrics of a trial."""
        found = [f"{metric} {result[metric]:.5g}" for metric in self._metrics if metric in result]
        if found:
            self._say(trial, ", ".join(found))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Have the files written."""
        self._results.trial_ended(self._of(trial).name)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Print that a trial failed, and have the files written."""
        self._say(trial, "failed")
        self._results.trial_ended(self._of(trial).name, "failed")

    def _of(self, trial: Any) -> Trial:
        return self._trials[trial.config["trial"]]

    def _say(self, trial: Any, what: str) -> None:
        found = self._of(trial)
        print(f"{found.name} ({found.label}): {what}", flush=True)
