"""VAE: the test −ELBO, reconstructions, the latent plane, and samples."""

from genlab.models.vae import VAE
from genlab.reports import latent_space as latent
from genlab.reports.family import FamilyReport, Findings
from genlab.reports.run import RunRecord


def examine(run: RunRecord, model: VAE) -> Findings:
    """Show what the model makes of held-out images and of its prior."""
    subject = latent.Subject.of(run, model)
    plane = [*latent.scatters(subject), latent.latent_plane(subject)] if subject.has_plane else []
    return Findings(latent.sections(subject, [latent.reconstructions(subject)], plane, [latent.samples(subject)]))


REPORT = FamilyReport(latent.PANELS, examine)
