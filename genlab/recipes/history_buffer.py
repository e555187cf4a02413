"""The history of generated images for CycleGAN's discriminators (Shrivastava et al. 2017, CVPR, section 2.3)."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from genlab.models.model import Shape


class HistoryBuffer(nn.Module):
    """A buffer of up to ``size`` generated images, which is part of checkpoints.

    The number of images in it follows from the images seen, so nothing else needs to be saved.

    Args:
        size: most images that it holds; may be 0.
        shape: (height, width, channels) of an image.
    """

    images: Tensor

    def __init__(self, size: int, shape: Shape) -> None:
        super().__init__()
        height, width, channels = shape
        self.register_buffer("images", torch.zeros(size, channels, height, width))

    def stored(self, draws: Tensor, slots: Tensor, seen: int) -> Collection[int]:
        """Return the rows of the global batch whose images will be stored; arguments as :meth:`exchange` has them."""
        filling = range(min(len(draws), max(0, len(self.images) - seen)))
        return {*filling, *torch.nonzero(draws[: len(slots)] < 0.5).flatten().tolist()}

    @torch.no_grad()
    def exchange(self, images: Tensor, rows: Sequence[int], draws: Tensor, slots: Tensor, seen: int) -> Tensor:
        """Exchange newly generated images for older ones, and return what the discriminator is to be shown.

        While the buffer fills, an image is stored and returned. Then, half of the time, it takes the place of a stored
        one, which is returned; else it is returned itself and not stored. No two rows of a global batch are exchanged
        for the same stored image, so it does not matter in which parts, or in which order, they come.

        Args:
            images: newly generated images, float [N, C, H, W], of at least the rows that are :meth:`stored`.
            rows: their N row numbers in the global batch.
            draws: random numbers in [0, 1), one for each row of the global batch: below 0.5 the row is exchanged.
            slots: ``slots[row]`` is the index of the stored image that this row may replace (a permutation of the
                images stored before this batch). Rows beyond its length are not exchanged.
            seen: number of images of this domain that were generated before this batch.

        Returns:
            float [N, C, H, W].
        """
        size = len(self.images)
        shown = images.clone()
        for index, row in enumerate(rows):
            if seen + row < size:
                self.images[seen + row] = images[index]
            elif row < len(slots) and draws[row] < 0.5:
                slot = int(slots[row])
                shown[index] = self.images[slot]
                self.images[slot] = images[index]
        return shown
