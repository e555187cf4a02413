"""Progressive growing (Karras et al. 2018, ICLR, arXiv:1710.10196): resolutions as a function of the images seen."""

import math
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge


@dataclass(frozen=True)
class Growth:
    """How progressive networks grow: a resolution is trained for a while, then the next one fades in.

    All of it is a function of the images seen, so a run goes on within a fade as if it had not stopped.
    """

    first: Annotated[int, Ge(4)] = 8
    """The resolution that training begins with, a power of two."""
    stable_images: Annotated[int, Ge(1)] = 600_000
    """Images for which a resolution is trained before the next one fades in."""
    fade_images: Annotated[int, Ge(1)] = 600_000
    """Images over which the next resolution fades in."""

    def level(self, images: int, last: int) -> float:
        """Return how far the networks have grown after ``images``, at most to the resolution ``last``.

        It is the exponent of two of the resolution, whose layers are faded in by what the number has beyond the whole
        number before it: 3.25 is 8x8 and a quarter of 16x16.
        """
        stage, within = divmod(images, self.stable_images + self.fade_images)
        fade = max(0, within - self.stable_images) / self.fade_images
        return min(math.log2(min(self.first, last)) + stage + fade, math.log2(last))

    def begins_resolution(self, images: int, batch: int, last: int) -> bool:
        """Return whether a resolution begins to fade in with the step that begins after ``images``.

        Args:
            images: images seen before the step.
            batch: images of a step.
            last: the last resolution.
        """
        return images > 0 and math.ceil(self.level(images, last)) > math.ceil(self.level(images - batch, last))
