"""The history of generated images that CycleGAN's discriminators are shown (Shrivastava et al. 2017, section 2.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genlab.models.model import Shape


class HistoryBuffer(nn.Module):
    """Up to ``size`` generated images, as a buffer that is part of a checkpoint.

    How many there are follows from the images seen, so there is nothing else to save.

    Args:
        size: how many are kept; may be 0.
        shape: of an image.
    """

    images: Tensor

    def __init__(self, size: int, shape: Shape) -> None:
        super().__init__()
        height, width, channels = shape
        self.register_buffer("images", torch.zeros(size, channels, height, width))

    @torch.no_grad()
    def exchange(self, images: Tensor, rows: Sequence[int], draws: Tensor, slots: Tensor, seen: int) -> Tensor:
        """What to show instead of newly generated images, float [N, C, H, W].

        While the history fills, an image is kept and shown. Then, half of the time, it takes the place of a kept one,
        which is shown; else it is shown itself and not kept. No two rows of a global batch share a kept one, so it
        does not matter in which parts, or in which order, they come.

        Args:
            images: [N, C, H, W].
            rows: their N numbers in the global batch.
            draws: uniform in [0, 1), [rows of the global batch]: whether to exchange.
            slots: a permutation of the numbers of the images kept before this batch: with which, row by row. Rows past
                them are not exchanged.
            seen: images of that domain generated before this batch.
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
