"""A generator that is written by hand: the attributes of its pictures are known functions of w."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genlab.models.noise import Noise
from genlab.models.pixels import from_signed
from genlab.models.style_model import StyleModel
from genlab.store.directions import Axis

DIM = 6
RANGE = 5.0
"""Styles from -5 to 5 become pixels from black to white."""
AGE = torch.tensor([1.0, 0, 0, 0, 0, 0])
GENDER = torch.tensor([0.6, 0.8, 0, 0, 0, 0])
"""The style ``gender`` of w; half of what makes older also makes other, so both must be told apart."""
SEASON = torch.tensor([[0.0, 0, 1, 0, 0, 0], [0, 0, -0.5, 0.87, 0, 0], [0, 0, -0.5, -0.87, 0, 0]])


class KnownGenerator(StyleModel):
    """w is z; styles are linear functions of it, and each pixel shows one style: age, gender, seasons, and two more.

    Args:
        spread: standard deviations of w along its axes.
    """

    family = "known"
    operations: ClassVar[Mapping[str, type]] = {}

    def __init__(self, spread: tuple[float, ...] = (1.0,) * DIM) -> None:
        super().__init__((1, 7, 1), None)
        self.spread = nn.Parameter(torch.tensor(spread))
        rows = torch.cat([AGE[None], GENDER[None], SEASON, torch.eye(DIM)[4:]])
        faces, scenes = nn.Linear(DIM, 2, bias=False), nn.Linear(DIM, 5, bias=False)
        faces.weight, scenes.weight = nn.Parameter(rows[:2]), nn.Parameter(rows[2:])
        self.layers = nn.ModuleDict({"faces": faces, "scenes": scenes})

    @property
    def latent_dim(self) -> int:
        return DIM

    def map_latents(self, latents: Tensor, label: Tensor | None) -> Tensor:
        return latents * self.spread

    def synthesise(self, w: Tensor, noise: Noise | None) -> Tensor:
        return torch.cat([layer(w) for layer in self.layers.values()], dim=1)[:, None, None, :] / RANGE

    def style_layers(self) -> Mapping[str, nn.Module]:
        return dict(self.layers.items())

    def draw(self, noise: Noise, label: Tensor | None, options: Any) -> Tensor:
        return from_signed(self.synthesise(self.map_latents(noise.normal("z", DIM), label), noise))


AXES = [
    Axis("age", "age"),
    Axis("gender", "gender", "woman", "man"),
    *[Axis(f"season={name}", "season", name) for name in ("spring", "summer", "autumn")],
]


def read(pixels: Tensor) -> Tensor:
    """Age, which saturates for the oldest and youngest; log-odds of gender and of the seasons."""
    return read_images(pixels.permute(0, 3, 1, 2) / 127.5 - 1)


def read_images(images: Tensor) -> Tensor:
    """The same of what the generator synthesises."""
    styles = images[:, 0, 0].double().clamp(-1, 1) * RANGE
    age = 40 + 40 * torch.tanh(styles[:, :1] / 2)
    seasons = 3 * styles[:, 2:5]
    others = [seasons[:, [other for other in range(3) if other != one]].logsumexp(1) for one in range(3)]
    return torch.cat([age, 4 * styles[:, 1:2], seasons - torch.stack(others, 1)], dim=1)
