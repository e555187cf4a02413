"""The chosen trial on the rows that results are reported on, where no trial of the sweep was measured."""

from genlab.core.storage import locate
from genlab.data.format.shards import ShardSet
from genlab.evaluation.checkpoint_evaluations import measure_model
from genlab.evaluation.evaluate import picture_measurements
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.latent_models import measure_elbo
from genlab.evaluation.measurements import Measurement, with_computation
from genlab.models.latent_model import LatentModel
from genlab.store import model_directory
from genlab.sweeps.trials import Trial

OF_LATENT_MODELS = ("neg_elbo", "reconstruction", "kl")
"""Metrics of latent models that :func:`measure_elbo` measures under the same names."""


def measure_chosen(trial: Trial, metric: str) -> Measurement | None:
    """Measure a metric of a trial's model, with its interval, on the rows that results are reported on.

    Args:
        trial: a trial that has ended.
        metric: the metric that it was chosen by, such as ``val/kid``.

    Returns:
        ``None`` for a metric that has no measurement with an interval: a score of the report, and the losses of a
        family without a latent variable.

    Raises:
        DataError: the data set is gone or was changed.
    """
    plan, name = trial.plan, metric.partition("/")[2]
    directory = locate(plan.directory) / "model"
    model = model_directory.load(directory)
    data = {domain: one.url for domain, one in plan.domains.items()}
    split, seed = plan.held_out.report, plan.run.seed
    if isinstance(model, LatentModel) and name in OF_LATENT_MODELS:
        measured = measure_elbo(model, HeldOut.open(data["images"], split), seed)
        return with_computation(measured, model.device)[name]
    if name in picture_measurements(model, {domain: ShardSet.open(url) for domain, url in data.items()}):
        return measure_model(str(directory), data, split, False, seed)[name]
    return None
