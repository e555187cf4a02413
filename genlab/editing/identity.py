"""What identity distances of faces are to be compared with: those of their mirror images, and of other faces."""

from torch import Tensor

from genlab.metrics.identity import FaceNetwork, identity_distance
from genlab.store.directions import IdentityScale


def identity_scale(network: FaceNetwork, pictures: Tensor) -> IdentityScale:
    """Measure how far faces are from their own mirror images, and from each other.

    Args:
        network: the face network.
        pictures: uint8 [N, H, W, 3] of at least two faces, in an order without meaning: each is compared with the next.

    Returns:
        The medians of both.
    """
    places, mirrored = network.embed(pictures), network.embed(pictures.flip(2))
    return IdentityScale(
        len(pictures),
        float(identity_distance(places, mirrored).median()),
        float(identity_distance(places, places.roll(1, 0)).median()),
    )
