"""How strong should the cycle loss be? Eight values of λ on drawn scenes, by KID, cycle error and translation PSNR.

λ = 0 leaves the generators free to ignore their input; a large λ keeps them from changing it at all. The PSNR (dB) is
that of translations against the true counterparts, which drawn scenes alone have.
"""

from genlab.sweeps.space import Space

SPACE = Space(
    family="cyclegan",
    vary={"objective.lambda_cycle": [0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]},
    metric=["val/kid", "val/cycle_a", "score/translation.a_to_b.translated_psnr"],
    mode=["min", "min", "max"],
    base={
        "run.epochs": 5,
        "run.batch": 4,
        "run.evaluate_every": 1000,
        "model.width": 24,
        "model.discriminator_width": 32,
    },
)
