"""Which checkpoint is best? Their models, measured beside training one after the other; the best becomes the run's."""

import copy
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from upath import UPath

from genlab.core.storage import locate
from genlab.evaluation.checkpoint_evaluations import (
    CheckpointEvaluation,
    best_of,
    candidate_directory,
    measure,
    read_evaluations,
    write_evaluations,
)
from genlab.evaluation.measurements import Measurement
from genlab.models.model import Model
from genlab.recipes.recipe import recipe_type
from genlab.store import model_directory
from genlab.training.checkpoints import remove_folder
from genlab.training.plan import Plan
from genlab.training.session import Session


class Candidates:
    """Rank 0's queue of models to measure; a context manager.

    A model is copied where it stands. One thread writes it to ``RUN/candidates``; another has it measured in another
    process, adds the measurements to ``RUN/evaluations.jsonl`` and deletes it unless it is the best so far. Training
    waits for none of that, and what is chosen does not depend on the clock: every model is measured.

    Args:
        plan: the run.
        session: whose ``background`` measures.
        done: the step the run goes on from. What an earlier attempt left unmeasured is measured now, unless it comes
            again.
        record: called with a step and its measurements, for TensorBoard.
    """

    def __init__(
        self, plan: Plan, session: Session, done: int, record: Callable[[int, dict[str, float]], None]
    ) -> None:
        self._plan = plan
        self._session = session
        self._record = record
        self._directory = locate(plan.directory)
        self._ranked_by = recipe_type(plan.family).ranked_by
        self._split = plan.held_out_split
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="candidate")
        self._measurer = ThreadPoolExecutor(1, thread_name_prefix="evaluation")
        self._writes: list[Future[None]] = []
        self._measured: list[Future[None]] = []
        self._abandoned = False
        self._writing = threading.Lock()
        left = []
        for step, folder in _candidates(self._directory).items():
            whole = (folder / model_directory.DESCRIPTION).exists()
            evaluation = self._known(folder) if whole else None
            if whole and step <= done and evaluation is None:
                left.append(folder)
            elif evaluation is None:
                remove_folder(folder)
        self._keep_best()
        self._measured.extend(self._measurer.submit(self._measure, folder) for folder in left)

    def __enter__(self) -> "Candidates":
        return self

    def __exit__(self, *error: object) -> None:
        with self._writing:
            self._abandoned = error[0] is not None
        self._writer.shutdown()  # checkpoints wait for what it writes
        self._measurer.shutdown(wait=error[0] is None, cancel_futures=True)

    def add(self, model: Model, provenance: model_directory.Provenance) -> Future[None]:
        """Queue ``model`` as it is now. What is returned is done when no crash can lose it: a checkpoint may follow."""
        written = self._writer.submit(self._take, copy.deepcopy(model).cpu(), provenance)
        self._writes.append(written)
        return written

    def promote(self) -> bool:
        """Wait until all are measured and make the best the run's model; false when none could be measured."""
        for written in self._writes:
            written.result()
        waiting = sum(not measured.done() for measured in self._measured)
        if waiting:
            self._session.say(f"training is done; {waiting} of its checkpoints are still to be evaluated")
        for measured in self._measured:
            measured.result()
        for folder in _candidates(self._directory).values():
            if self._known(folder) is None:
                self._measurer.submit(self._measure, folder, again=True).result()
        evaluations = read_evaluations(self._directory)
        best = best_of(evaluations, self._ranked_by)
        if best is None:
            return False
        last = evaluations[-1]
        found = f"best of {len(evaluations)} evaluated checkpoints: step {best.step}, {self._shown(best)}"
        self._session.say(found if best is last else f"{found}; that of step {last.step} has {self._shown(last)}")
        folder = candidate_directory(self._plan.directory, best.step)
        provenance = model_directory.Provenance(**model_directory.describe(folder)["provenance"])
        provenance.metrics.update({f"evaluation/{name}": one.value for name, one in best.measurements.items()})
        model_directory.save(self._directory / "model", model_directory.load(folder), provenance)
        return True

    def _take(self, model: Model, provenance: model_directory.Provenance) -> None:
        folder = candidate_directory(self._plan.directory, provenance.step)
        model_directory.save(folder, model, provenance)
        self._measured.append(self._measurer.submit(self._measure, folder))

    def _measure(self, folder: UPath, again: bool = False) -> None:
        """Measure a candidate, unless it is known. One that cannot be is kept to be tried ``again``, and then not."""
        provenance, weights = _provenance(folder)
        step = provenance["step"]
        evaluation, failure = self._known(folder), ""
        if evaluation is None:
            data = {name: domain.url for name, domain in self._plan.domains.items()}
            arguments = str(folder), data, self._split, self._plan.run.seed
            try:
                measurements: dict[str, Measurement] = self._session.background(measure, *arguments).result()
            except Exception as error:  # Whatever it is, training goes on.
                failure = str(error)
            else:
                epoch = self._plan.epoch(step)
                evaluation = CheckpointEvaluation(step, provenance["images"], epoch, weights, measurements)
        with self._writing:
            if self._abandoned:  # Training has ended with an error: the run's files are another attempt's by now.
                return
            others = [one for one in read_evaluations(self._directory) if one.step != step]
            write_evaluations(self._directory, [*others, evaluation] if evaluation else others)
            if evaluation:
                self._record(step, evaluation.better)
                self._session.say(f"checkpoint of step {step}: {self._shown(evaluation)}")
                self._keep_best()
            else:
                then = "it is left out" if again else "it is tried once more in the end"
                self._session.say(f"the checkpoint of step {step} could not be evaluated; {then}: {failure}")
                if again:
                    remove_folder(folder)

    def _known(self, folder: UPath) -> CheckpointEvaluation | None:
        """The evaluation of the very weights in ``folder``."""
        provenance, weights = _provenance(folder)
        evaluations = {(one.step, one.weights): one for one in read_evaluations(self._directory)}
        return evaluations.get((provenance["step"], weights))

    def _keep_best(self) -> None:
        """Delete the candidates that are known not to be the best."""
        evaluations = read_evaluations(self._directory)
        best = best_of(evaluations, self._ranked_by)
        known = {one.step for one in evaluations}
        for step, folder in _candidates(self._directory).items():
            if step in known and best is not None and step != best.step:
                remove_folder(folder)

    def _shown(self, evaluation: CheckpointEvaluation) -> str:
        measurement = evaluation.measurements[self._ranked_by]
        return f"{measurement.title} {measurement}"


def _provenance(folder: UPath) -> tuple[dict[str, Any], str]:
    """Of a candidate, and the SHA-256 of its weights."""
    description = model_directory.describe(folder)
    return description["provenance"], description["weights"]["sha256"]


def _candidates(run: UPath) -> dict[int, UPath]:
    """The folders of candidates by their steps, whole or not."""
    folder = run / "candidates"
    names = (re.fullmatch(r"step-(\d{8,})", path.name) for path in folder.iterdir()) if folder.exists() else ()
    return {step: candidate_directory(run, step) for step in sorted(int(name[1]) for name in names if name)}
