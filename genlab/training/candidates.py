"""Evaluation of checkpoints beside training: their models are measured one by one, and the best becomes the run's."""

import copy
import re
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from upath import UPath

from genlab.core.storage import delete_folder, exists, locate, names
from genlab.evaluation.checkpoint_evaluations import (
    CheckpointEvaluation,
    best_of,
    candidate_directory,
    measure_model,
    read_evaluations,
    write_evaluations,
)
from genlab.evaluation.measurements import Measurement
from genlab.models.model import Model
from genlab.recipes.recipe import recipe_type
from genlab.store import model_directory
from genlab.store.probes import Probes, make
from genlab.training.attempts import Attempt, begin_attempt
from genlab.training.plan import Plan
from genlab.training.session import ChildCall, Session
from genlab.training.tracking import Tracker


class Candidates:
    """Rank 0's queue of models that are candidates for the run's model; a context manager.

    :meth:`add` copies the model in memory. One thread writes the copy to ``RUN/candidates``; another has it measured in
    a background process, adds the measurements to ``RUN/evaluations.jsonl`` and deletes the copy unless it is the best
    so far. Training does not wait for any of this. Every model is measured, so the choice does not depend on the clock.
    Workers of a cluster end with training; what is not measured by then is measured again from its beginning, by
    :func:`promote_best`.

    Args:
        plan: the run.
        session: the session whose ``background`` measures.
        attempt: the attempt, which must be the last wherever files are changed.
        done: the step the run goes on from. Candidates up to it that an earlier attempt did not measure are measured
            now; later ones are deleted, because the run makes them again.
        record: called with the kind of metric (``val``, as in ``val/kid``), a step and its measurements, to write them
            to TensorBoard.
    """

    def __init__(
        self,
        plan: Plan,
        session: Session,
        attempt: Attempt,
        done: int,
        record: Callable[[str, int, dict[str, float]], None],
    ) -> None:
        self._plan = plan
        self._session = session
        self._attempt = attempt
        self._record = record
        self._directory = locate(plan.directory)
        self._ranked_by = recipe_type(plan.family).ranked_by
        self._chosen_on = plan.held_out.choice or plan.held_out.report
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="candidate")
        self._measurer = ThreadPoolExecutor(1, thread_name_prefix="evaluation")
        self._writes: list[Future[None]] = []
        self._measured: list[Future[None]] = []
        self._abandoned = False
        self._running: Future[Any] | None = None
        self._files_lock = threading.Lock()
        # Written whole each time: so those are back that an attempt which is over left out of its own last write.
        self._evaluations = read_evaluations(self._directory)
        unmeasured = []
        for step, folder in _candidates(self._directory).items():
            complete = exists(folder / model_directory.DESCRIPTION)
            evaluation = self._evaluation(folder) if complete else None
            if complete and step <= done and evaluation is None:
                unmeasured.append(folder)
            elif evaluation is None:
                attempt.require_last()
                delete_folder(folder)
        self._delete_all_but_best()
        self._measured.extend(self._measurer.submit(self._measure, folder) for folder in unmeasured)

    def __enter__(self) -> "Candidates":
        return self

    def __exit__(self, *error: object) -> None:
        finish = error[0] is None and not self._session.reserved
        with self._files_lock:
            self._abandoned = not finish
            if self._abandoned and isinstance(self._running, ChildCall):
                self._running.cancel()  # Else this process would not end before it has.
        self._writer.shutdown()  # the last checkpoint waits for its writes
        self._measurer.shutdown(wait=finish, cancel_futures=True)

    def add(self, model: Model, provenance: model_directory.Provenance) -> Future[None]:
        """Queue ``model`` as it is now.

        Returns:
            A future that is done when the model is on disk. The checkpoint of this step is written after that, so that
            a run which goes on from it has the candidate.
        """
        # Probes are made here: in another thread they would change the settings that training computes with.
        written = self._writer.submit(self._write, copy.deepcopy(model).cpu(), provenance, make(model))
        self._writes.append(written)
        return written

    def measured(self, step: int) -> dict[str, float]:
        """Wait for the measurements of the model of ``step``; return them as ``val/NAME``, none if it has none."""
        for written in self._writes:
            written.result()
        for measured in self._measured:
            measured.result()
        found = next((one for one in self._evaluations if one.step == step), None)
        kind = self._plan.evaluation_kind
        return {f"{kind}/{name}": value for name, value in found.better.items()} if found else {}

    def left_to_driver(self) -> bool:
        """Return whether the driver is to measure what is left, and to write the best as the run's model.

        It is where waiting for that would keep resources from others, see :attr:`Session.reserved`.
        """
        for written in self._writes:
            written.result()
        return self._session.reserved and bool(_candidates(self._directory))

    def promote(self) -> bool:
        """Wait until all candidates are measured, and write the best as the run's model.

        Where the best was chosen on other images than results are reported on, it is measured on these too.

        Returns:
            False when no candidate could be measured, and no model was written.
        """
        for written in self._writes:
            written.result()
        waiting = sum(not measured.done() for measured in self._measured)
        if waiting:
            self._session.say(f"training is done; {waiting} of its checkpoints are still to be evaluated")
        for measured in self._measured:
            measured.result()
        for folder in _candidates(self._directory).values():
            if self._evaluation(folder) is None:
                self._measurer.submit(self._measure, folder, again=True).result()
        evaluations = self._evaluations
        best = best_of(evaluations, self._ranked_by)
        if best is None:
            return False
        self._attempt.require_last()
        write_evaluations(self._directory, evaluations)
        last = evaluations[-1]
        message = f"best of {len(evaluations)} evaluated checkpoints: step {best.step}, {self._rank_text(best)}"
        if best is not last:
            message += f"; that of step {last.step} has {self._rank_text(last)}"
        self._session.say(message)
        folder = candidate_directory(self._plan.directory, best.step)
        provenance = model_directory.Provenance(**model_directory.describe(folder)["provenance"])
        kind = self._plan.evaluation_kind
        provenance.metrics.update({f"{kind}/{name}": one.value for name, one in best.measurements.items()})
        provenance.metrics.update(self._results(folder))
        chosen = replace(provenance, chosen_on=self._chosen_on, reported_on=self._plan.held_out.report)
        self._attempt.require_last()
        model_directory.save(self._directory / "model", model_directory.load(folder), chosen, Probes.read(folder))
        return True

    def _write(self, model: Model, provenance: model_directory.Provenance, probes: Probes) -> None:
        folder = candidate_directory(self._plan.directory, provenance.step)
        self._attempt.require_last()
        model_directory.save(folder, model, provenance, probes)
        self._measured.append(self._measurer.submit(self._measure, folder))

    def _measure(self, folder: UPath, again: bool = False) -> None:
        """Measure a candidate that has no evaluation yet.

        A candidate that cannot be measured is kept for :meth:`promote`, which tries ``again``; then it is deleted.
        """
        provenance, weights = _provenance_and_weights(folder)
        step = provenance["step"]
        evaluation, failure = self._evaluation(folder), ""
        if evaluation is None:
            try:
                measurements = self._measurements(folder, self._chosen_on, self._plan.held_out.shared)
            except Exception as error:  # A failed evaluation, whatever its cause, must not end training.
                failure = str(error)
            else:
                epoch = self._plan.epoch(step)
                evaluation = CheckpointEvaluation(step, provenance["images"], epoch, weights, measurements)
        with self._files_lock:
            if self._abandoned:  # Another attempt, or the driver, may write the run's files by now.
                return
            evaluations = [other for other in self._evaluations if other.step != step]
            if evaluation:
                evaluations.append(evaluation)
            self._attempt.require_last()
            self._evaluations = sorted(evaluations, key=lambda one: one.step)
            write_evaluations(self._directory, self._evaluations)
            if evaluation:
                self._record(self._plan.evaluation_kind, step, evaluation.better)
                self._session.say(f"checkpoint of step {step}: {self._rank_text(evaluation)}")
                self._delete_all_but_best()
            else:
                then = "it is left out" if again else "it is tried once more in the end"
                self._session.say(f"the checkpoint of step {step} could not be evaluated; {then}: {failure}")
                if again:
                    delete_folder(folder)

    def _results(self, folder: UPath) -> dict[str, float]:
        """Measure the best candidate on the rows that results are reported on, if they are not those of the choice.

        Returns:
            The measurements as metrics, ``test/kid``; none where they could not be made.
        """
        split = self._plan.held_out.report
        if self._plan.held_out.shared or not self._plan.has_test_rows:
            return {}
        try:
            measurements = self._measurements(folder, split, False)
        except Exception as error:  # The model is good all the same.
            self._session.say(f"the best checkpoint could not be measured on the split {split!r}: {error}")
            return {}
        measured = measurements[self._ranked_by]
        self._session.say(f"on the split {split!r}, where it was not chosen: {measured.title} {measured}")
        return {f"test/{name}": one.value for name, one in measurements.items()}

    def _measurements(self, folder: UPath, split: str, chosen: bool) -> dict[str, Measurement]:
        """Measure a candidate on ``split`` in the background; ``chosen`` says that results are reported there too."""
        data = {name: domain.url for name, domain in self._plan.domains.items()}
        arguments = str(folder), data, split, chosen, self._plan.run.seed
        with self._files_lock:
            if self._abandoned:
                raise CancelledError
            running = self._running = self._session.background(measure_model, *arguments)
        return running.result()

    def _evaluation(self, folder: UPath) -> CheckpointEvaluation | None:
        """Return the evaluation of the weights in ``folder``; ``None`` when they have not been measured."""
        provenance, weights = _provenance_and_weights(folder)
        evaluations = {(one.step, one.weights): one for one in self._evaluations}
        return evaluations.get((provenance["step"], weights))

    def _delete_all_but_best(self) -> None:
        """Delete the candidates that are measured and not the best."""
        best = best_of(self._evaluations, self._ranked_by)
        measured = {evaluation.step for evaluation in self._evaluations}
        for step, folder in _candidates(self._directory).items():
            if step in measured and best is not None and step != best.step:
                self._attempt.require_last()
                delete_folder(folder)

    def _rank_text(self, evaluation: CheckpointEvaluation) -> str:
        """Return the measurement that candidates are ranked by, with its name."""
        measurement = evaluation.measurements[self._ranked_by]
        return f"{measurement.title} {measurement}"


def promote_best(plan: Plan, session: Session) -> None:
    """Measure the candidates that training left, and write the best as the run's model; the last if none can be.

    The driver calls it when the workers have ended, if they left it to do (:meth:`Candidates.left_to_driver`).

    Args:
        plan: the run, whose steps are done.
        session: the driver's session.
    """
    directory = locate(plan.directory)
    folders = _candidates(directory)
    if not folders:
        return
    last, _ = _provenance_and_weights(folders[max(folders)])
    model, probes = model_directory.load(folders[max(folders)]), Probes.read(folders[max(folders)])
    attempt = begin_attempt(directory, plan.claim)
    with Tracker(directory, plan.steps, attempt) as tracker:
        for evaluation in read_evaluations(directory):
            tracker.evaluation(plan.evaluation_kind, evaluation.step, evaluation.better)
        with Candidates(plan, session, attempt, plan.steps, tracker.evaluation) as candidates:
            if not candidates.promote():
                attempt.require_last()
                model_directory.save(directory / "model", model, model_directory.Provenance(**last), probes)


def _provenance_and_weights(folder: UPath) -> tuple[dict[str, Any], str]:
    """Read the provenance of a candidate, and the SHA-256 of its weights."""
    description = model_directory.describe(folder)
    return description["provenance"], description["weights"]["sha256"]


def _candidates(run: UPath) -> dict[int, UPath]:
    """Return the folders of candidates by step, also those whose write a crash cut short."""
    found = (re.fullmatch(r"step-(\d{8,})", name) for name in names(run / "candidates"))
    return {step: candidate_directory(run, step) for step in sorted(int(name[1]) for name in found if name)}
