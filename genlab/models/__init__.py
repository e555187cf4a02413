"""The networks of each model family, with the operations that a trained model offers.

In: the shape of the images and a frozen dataclass of architecture values; then uint8 pixels [N, H, W, C], seeds and
class numbers. Out: modules with random weights; then uint8 pixels. A module named after a family (``vae``, ``cvae``,
``cyclegan``, ``classifier``) defines its model; the others hold what models share: ``latent_model``, ``unet``,
``resnet``, ``discriminators``, ``padding``, ``tiles``, and ``cpu`` with layers that train faster on a CPU. Nothing here
reads a file, trains, or knows Ray. Read ``model`` first, then a family such as ``vae``.
"""
