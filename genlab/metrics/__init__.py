"""Losses and measures as pure functions of tensors.

In: images, features, logits or latent vectors as tensors. Out: tensors and numbers, some with an interval. Nothing here
knows a model directory, a data set or a file. Read ``distances`` first, which compares sets of features (FID, KID);
then ``precision_recall`` (how far they lie within each other), ``image``, which compares images with references (PSNR,
SSIM), ``perceptual`` (distances that a gradient goes through), ``neighbours`` (how well classes are separated) and
``intervals`` (confidence intervals). ``path_length`` and
``separability`` measure spaces of latent vectors. ``elbo`` and ``adversarial`` are losses.
"""
