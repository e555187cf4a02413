"""Which learning rate when? A population of eight CycleGANs, by KID; the worst go on as copies of the best, changed.

Population based training changes the learning rate, and the decay of the mean of gradients (Adam's β₁), while the
models are trained. So the rate has no schedule of its own.
"""

from ray import tune

from genlab.sweeps.space import Budget, Pbt, Space

SPACE = Space(
    family="cyclegan",
    vary={"optimization.learning_rate": tune.loguniform(3e-5, 3e-3), "optimization.beta1": [0.0, 0.5, 0.9]},
    metric="val/kid",
    mode="min",
    base={
        "run.epochs": 5,
        "run.batch": 4,
        "run.evaluate_every": 1000,
        "model.width": 24,
        "model.discriminator_width": 32,
        "optimization.schedule": "constant",
    },
    searcher="random",
    scheduler=Pbt(every=1000),
    budget=Budget(trials=8),
)
