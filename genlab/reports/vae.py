"""Report of a VAE: the test −ELBO, reconstructions, the latent plane, and samples."""

from genlab.models.vae import VAE
from genlab.reports import latent_space as latent
from genlab.reports.family import FamilyReport, ModelReport
from genlab.reports.run import RunRecord


def report_model(run: RunRecord, model: VAE) -> ModelReport:
    """Show reconstructions of held-out images, the latent space, and samples of the prior."""
    subject = latent.Subject.of(run, model)
    plane = [*latent.scatters(subject), latent.latent_plane(subject)] if subject.has_plane else []
    return ModelReport(latent.sections(subject, [latent.reconstructions(subject)], plane, [latent.samples(subject)]))


REPORT = FamilyReport(latent.PANELS, report_model)
