"""What does the cycle loss cost? λ and the identity weight in 24 trials that Optuna chooses, by KID and cycle error.

The sweep ends with the front of both: how near translations are to the other domain, and how well they keep what they
show. ``cyclegan_lambda_grid.py`` varies λ alone.
"""

from ray import tune

from genlab.sweeps.space import Budget, Space

SPACE = Space(
    family="cyclegan",
    vary={"objective.lambda_cycle": tune.loguniform(0.1, 100.0), "objective.lambda_identity": tune.uniform(0.0, 1.0)},
    metric=["val/kid", "val/cycle_a"],
    mode=["min", "min"],
    base={
        "run.epochs": 5,
        "run.batch": 4,
        "run.evaluate_every": 1000,
        "model.width": 24,
        "model.discriminator_width": 32,
    },
    searcher="optuna",
    budget=Budget(trials=24),
)
