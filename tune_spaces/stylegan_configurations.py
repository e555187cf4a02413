"""What does each step from a progressive GAN to StyleGAN bring? Table 1 of the paper (column FFHQ), at 32x32, by KID.

The presets A to F, each the one before it plus one change, at one width and equal images, three seeds each. A alone is
trained with WGAN-GP; ``--objective.loss wgan-gp`` trains all so, as in the column of CelebA-HQ.
``benchmarks/stylegan_tables.py`` prints the intervals over seeds, beside what the paper has for other data and scale.
Trained for longer, by ``--run.steps N``, they take ``--run.evaluate-every N`` too: all are then measured after N steps.
"""

from genlab.sweeps.space import Space

SPACE = Space(
    family="stylegan",
    vary={"preset": ["A", "B", "C", "D", "E", "F"]},
    metric="val/kid",
    mode="min",
    base={"preset": "comparison-32", "run.steps": 3125, "run.evaluate_every": 3125, "run.threads": 1},
    seeds=3,
)
