"""What one training step means for each model family: its networks, losses, metrics, pictures and options.

In: the config of a family and the shapes of its data sets, then batches on the device. Out: networks, losses for the
training loop to minimise, and named metrics and pictures. Nothing here knows Ray. Read ``recipe`` first; then
``classifier``, the shortest of the families, and ``vae``, ``cvae``, ``cyclegan``, ``stylegan`` and ``encoder``. Shared
are ``options``, the sections that all configs have, and ``workers``, how many there may be. ``latent_recipe`` and
``latent_pictures`` serve VAE and conditional VAE, ``history_buffer`` serves CycleGAN, ``growth`` StyleGAN, and
``augmentation`` GANs that are trained on few images.
"""
