"""Large pictures in tiles: as if they had gone through whole, where that can be, and without steps where it cannot."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from genlab.models import tiles
from genlab.models.cyclegan import CycleGAN, CycleGANArchitecture
from genlab.models.pixels import from_signed, to_signed
from genlab.models.tiles import translate_in_tiles

SIZES = [(64, 65), (70, 200), (131, 150), (33, 96), (257, 1)]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", 64)
    monkeypatch.setattr(tiles, "OVERLAP", 32)


def noise(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", SIZES)
def test_tiles_are_small_and_every_pixel_is_in_its_place(size: tuple[int, int]) -> None:
    seen = []

    def negative(tile: Tensor) -> Tensor:
        seen.append(tile.shape[1:3])
        return 255 - tile

    pixels = noise(*size)
    assert torch.equal(translate_in_tiles(negative, pixels, 4), 255 - pixels)
    assert len(seen) > 1
    assert max(itertools.chain(*seen)) <= 64


@pytest.mark.parametrize("size", SIZES)
def test_a_network_that_sees_no_further_than_the_context_gives_what_it_gives_of_the_whole(
    size: tuple[int, int],
) -> None:
    """A strided one, which must meet the same pixels in a tile as in the whole image."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 4, stride=2, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 2, stride=2))

    @torch.inference_mode()
    def translate(tile: Tensor) -> Tensor:
        height, width = tile.shape[1:3]
        padded = nn.functional.pad(to_signed(tile), (0, width % 2, 0, height % 2), mode="replicate")
        return from_signed(4 * network(padded)[:, :, :height, :width])

    pixels = noise(*size)
    whole = translate(pixels)
    assert whole.float().std() > 20
    difference = translate_in_tiles(translate, pixels, 2).int() - whole.int()
    assert difference.abs().max() <= 1  # convolutions of another size may sum in another order


@pytest.mark.parametrize("size", [(200, 40), (40, 200), (150, 170)])
def test_tiles_that_differ_are_joined_without_a_step(size: tuple[int, int]) -> None:
    shades = itertools.cycle((0, 255, 80))
    joined = translate_in_tiles(lambda tile: torch.full_like(tile, next(shades)), noise(*size), 4).int()
    assert joined.amax() - joined.amin() > 100
    steepest = 1.5 / 16 * 255 + 1  # a smoothstep over half the overlap, rounded
    for axis in (1, 2):
        assert joined.diff(dim=axis).abs().max() <= steepest


@pytest.mark.parametrize("generator", ["unet", "resnet-6"])
def test_a_translator_takes_large_pictures_in_tiles(generator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = CycleGAN((32, 32, 3), CycleGANArchitecture(generator, width=4)).eval()  # type: ignore[arg-type]
    translate_whole, seen = CycleGAN.translate_whole, []

    def watched(self: CycleGAN, network: nn.Module, pixels: Tensor) -> Tensor:
        seen.append(tuple(pixels.shape[1:3]))
        return translate_whole(self, network, pixels)  # type: ignore[arg-type]

    monkeypatch.setattr(CycleGAN, "translate_whole", watched)
    pixels = noise(70, 200)
    assert model.translate(pixels).shape == pixels.shape
    assert len(seen) > 1
    assert max(itertools.chain(*seen)) <= 64
    seen.clear()
    model.translate(pixels[:, :64, :64])
    assert seen == [(64, 64)], "a picture that is no larger goes through whole"
