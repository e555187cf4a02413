"""Losses and measures as pure functions of tensors.

In: images, features, logits or latent vectors as tensors. Out: tensors and numbers, some with an interval. ``elbo`` and
``adversarial`` are losses; ``image`` compares images with references (PSNR, SSIM), ``distances`` compares sets of
features (FID, KID), ``neighbours`` measures how well classes are separated, ``intervals`` has confidence intervals.
Nothing here knows a model, a data set or a file. Read the module of the measure you look for.
"""
