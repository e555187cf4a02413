"""Which latent size and which weight β of the KL term suit a VAE of digits? 24 trials that Optuna chooses.

They are compared by the −ELBO of validation images in nats, which has the KL term in full whatever β is.
``vae_latent_grid.py`` has the sizes alone, ``vae_beta.py`` the weights.
"""

from ray import tune

from genlab.sweeps.space import Budget, Space

SPACE = Space(
    family="vae",
    vary={"model.latent_dim": tune.lograndint(2, 65), "objective.beta": tune.loguniform(0.25, 4.0)},
    metric="val/neg_elbo",
    mode="min",
    base={"run.epochs": 2, "run.threads": 1},
    searcher="optuna",
    budget=Budget(trials=24),
)
