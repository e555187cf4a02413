"""The networks of each model family, with the operations that a trained model offers.

In: the shape of the images and a frozen dataclass of architecture values; then uint8 pixels [N, H, W, C], seeds and
class numbers. Out: modules with random weights; then uint8 pixels. Nothing here reads a file, trains, or knows Ray.
Read ``model`` first; then the module of a family: ``vae``, ``cvae``, ``cyclegan``, ``stylegan``, ``encoder`` or
``classifier``. The others hold what models share: ``latent_model``, ``style_model``, ``unet``, ``resnet``,
``discriminators``, ``stylegan_layers``, ``stylegan_discriminator`` and ``equalized`` are networks or parts of them;
``initialisation`` (instance norm and first weights), ``padding``, ``warping`` (affine maps of images), ``tiles`` (large
pictures), ``pixels`` (uint8 to float and back), ``noise`` (what samples are drawn from), ``precision`` (what stays in
fp32), ``efficientnet`` (features for distances), ``graph`` (what ``genlab export`` writes), ``summary`` (tables of
layers), and the folder ``cpu`` with layers that train faster on a CPU.
"""
