"""How many latent dimensions does a VAE of digits need? Six trials, by the −ELBO of validation images in nats."""

from genlab.sweeps.space import Space

SPACE = Space(
    family="vae",
    vary={"model.latent_dim": [2, 4, 8, 16, 32, 64]},
    metric="val/neg_elbo",
    mode="min",
    base={"run.epochs": 2, "run.threads": 1},
)
