"""What does a VAE's code cost, and what does it buy? Five values of β on digits, as a front of rate and distortion.

The rate is the KL term, the nats of a code; the distortion is the reconstruction term, the nats that an image costs
beside its code (Alemi et al. 2018, arXiv:1711.00464). Their sum is the −ELBO, by which ``vae_beta.py`` ranks the same
trials: ``--run.name vae_beta`` takes those that it has trained.
"""

from genlab.sweeps.space import Space

SPACE = Space(
    family="vae",
    vary={"objective.beta": [0.0, 0.5, 1.0, 2.0, 4.0]},
    metric=["val/kl", "val/reconstruction"],
    mode=["min", "min"],
    base={"run.epochs": 2, "run.threads": 1},
)
