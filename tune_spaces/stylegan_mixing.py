"""How much style mixing in training? Table 2 of StyleGAN's paper, at 32x32: 0, 50, 90 and 100% of images, by KID.

0% is configuration E, 90% is F; three seeds each. Models that saw mixing should bear it in samples too:
``benchmarks/stylegan_tables.py`` measures them with one to four latents a sample, and prints what the paper has for
other data and scale. Trained for longer, by ``--run.steps N``, they take ``--run.evaluate-every N`` too: all are then
measured after N steps.
"""

from genlab.sweeps.space import Space

SPACE = Space(
    family="stylegan",
    vary={"preset": ["F"], "objective.mixing": [0.0, 0.5, 0.9, 1.0]},
    metric="val/kid",
    mode="min",
    base={"preset": "comparison-32", "run.steps": 3125, "run.evaluate_every": 3125, "run.threads": 1},
    seeds=3,
)
