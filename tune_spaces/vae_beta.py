"""How strong should a VAE's KL term be? Five values of β on digits; compared by the −ELBO of validation images in nats.

That figure has the KL term in full whatever β a model was trained with, so it bounds −log p(x) for all of them, where
the losses themselves could not be compared. β = 0 is an autoencoder whose latents stray from the prior; a large β
leaves few of them in use.
"""

from genlab.sweeps.space import Space

SPACE = Space(
    family="vae",
    vary={"objective.beta": [0.0, 0.5, 1.0, 2.0, 4.0]},
    metric="val/neg_elbo",
    mode="min",
    base={"run.epochs": 2, "run.threads": 1},
)
