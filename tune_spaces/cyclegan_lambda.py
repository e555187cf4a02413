"""How strong should the cycle loss be? Four values of λ; compared by translation PSNR (dB) of drawn scenes.

λ = 0 leaves the generators free to ignore their input; a large λ keeps them from changing it at all.
"""

from genlab.sweeps.space import Space

SPACE = Space(
    family="cyclegan",
    vary={"objective.lambda_cycle": [0.0, 1.0, 10.0, 50.0]},
    metric="score/translation.a_to_b.translated_psnr",
    mode="max",
    base={
        "run.epochs": 5,
        "run.batch": 4,
        "model.width": 24,
        "model.discriminator_width": 32,
    },
)
