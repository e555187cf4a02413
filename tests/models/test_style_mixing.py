"""Style mixing of StyleGAN: which pictures and styles meet, as in figure 3 of the paper."""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from genlab.core.errors import ConfigError
from genlab.models.noise import Noise
from genlab.models.pixels import from_signed
from genlab.models.stylegan import (
    MixingOptions,
    SamplingOptions,
    StyleGAN,
    StyleGANArchitecture,
    style_groups,
)

TINY: dict[str, Any] = {"channel_base": 64, "channel_max": 8, "latent_dim": 8, "mapping_layers": 2}
SIZES = {2**exponent: exponent - 1 for exponent in range(3, 11)}
"""Sides of images, and the number of resolutions from 4 on."""


BOTH: tuple[Literal["demodulate", "adain"], ...] = ("demodulate", "adain")
"""How styles steer the layers."""


def generator(side: int = 16, **architecture: Any) -> StyleGAN:
    """A StyleGAN whose styles and noise show in its pictures."""
    torch.manual_seed(0)
    model = StyleGAN((side, side, 3), StyleGANArchitecture(**(TINY | architecture)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(2)
            if name.endswith("strength"):
                parameter.fill_(0.5)
        model.mean_style.normal_()
    return model


def close(one: Tensor, two: Tensor) -> bool:
    """Whether pictures are equal up to the rounding of networks that see different numbers of images together."""
    return bool((one.int() - two.int()).abs().max() <= 1)


@pytest.fixture(scope="module", params=BOTH)
def model(request: pytest.FixtureRequest) -> StyleGAN:
    return generator(styles=request.param)


def test_the_places_are_those_of_the_paper_and_thirds_in_small_images() -> None:
    lengths = {
        (styles, size): [len(group) for group in style_groups(2 * level, styles).values()]
        for size, level in SIZES.items()
        for styles in BOTH
    }
    assert lengths["adain", 1024] == [4, 4, 10]
    assert lengths["adain", 128] == [4, 4, 4]
    assert lengths["demodulate", 128] == [3, 4, 5], "the first convolution of 8x8 is at place 1"
    for styles in BOTH:
        assert lengths[styles, 64] == [3, 4, 3]
        assert lengths[styles, 32] == [3, 2, 3]
        assert lengths[styles, 8] == [1, 2, 1]
        for size, level in SIZES.items():
            groups = style_groups(2 * level, styles).values()
            assert [place for group in groups for place in group] == list(range(2 * level)), size


@pytest.mark.parametrize("styles", BOTH)
@torch.inference_mode()
def test_from_128_pixels_on_coarse_styles_are_those_of_4_and_8_and_middle_ones_those_of_16_and_32(styles: Any) -> None:
    """A style belongs to the first layer whose output changes with it, the last one to the image."""
    large = generator(128, styles=styles)
    outputs: list[Tensor] = []
    for layer in large.synthesis.layers:
        layer.register_forward_hook(lambda module, given, output: outputs.append(output))

    def drawn(w: Tensor) -> list[Tensor]:
        outputs.clear()
        large.synthesis(w, None)
        return [*outputs]

    w = large.map_latents(Noise(3, range(1)).normal("z", 8), None)[:, None].repeat(1, large.synthesis.styles, 1)
    before, sizes = drawn(w), []
    for place in range(large.synthesis.styles):
        changed = w.clone()
        changed[:, place] += 1
        pairs = zip(before, drawn(changed), strict=True)
        sizes.append(min((one.shape[2] for one, two in pairs if not torch.equal(one, two)), default=128))
    found = {group: {sizes[place] for place in places} for group, places in large.style_groups.items()}
    assert found == {"coarse": {4, 8}, "middle": {16, 32}, "fine": {64, 128}}


@pytest.mark.parametrize("noise", ["fixed", "random", "none"])
def test_the_pictures_themselves_stand_in_the_first_column_and_row(model: StyleGAN, noise: Any) -> None:
    grid = model.mix_styles((3, 4), (5, 6, 3), options=MixingOptions(0.8, noise))
    assert grid.shape == (3, 4, 16, 16, 3)
    assert grid.dtype == torch.uint8
    assert (grid[0, 0] == 255).all()
    for seed, picture in zip((3, 4, 5, 6, 3), (*grid[1:, 0], *grid[0, 1:]), strict=True):
        assert close(picture, model.sample(1, seed, options=SamplingOptions(0.8, noise))[0])


@pytest.mark.parametrize("styles", ["coarse", "middle", "fine"])
def test_a_seed_mixed_with_itself_stays_as_it_is(model: StyleGAN, styles: Any) -> None:
    [[_, column], [row, mixed]] = model.mix_styles((3,), (3,), options=MixingOptions(styles=styles))
    assert close(mixed, row)
    assert close(mixed, column)


def test_what_is_mixed_is_neither_picture_and_no_group_is_another(model: StyleGAN) -> None:
    mixed = {}
    for styles in ("coarse", "middle", "fine"):
        [[_, column], [row, mixed[styles]]] = model.mix_styles((3,), (4,), options=MixingOptions(styles=styles))
    pictures = torch.stack([row, column, *mixed.values()])
    assert len(pictures.unique(dim=0)) == 5


@torch.inference_mode()
def test_each_group_is_of_the_columns_styles_and_the_others_are_of_the_rows(model: StyleGAN) -> None:
    row, column = (
        model.map_latents(Noise(seed, range(1)).normal("z", 8), None)[:, None].repeat(1, 6, 1) for seed in (3, 4)
    )
    for styles, places in model.style_groups.items():
        expected = row.clone()
        expected[:, list(places)] = column[:, list(places)]
        drawn = from_signed(model.synthesise(expected, None))[0]
        assert close(model.mix_styles((3,), (4,), options=MixingOptions(noise="none", styles=styles))[1, 1], drawn)


def test_a_picture_does_not_depend_on_what_else_is_in_the_grid(model: StyleGAN) -> None:
    for noise in ("fixed", "random"):
        options = MixingOptions(noise=noise)
        alone = model.mix_styles((3,), (4,), options=options)[1, 1]
        assert close(model.mix_styles((9, 8, 3), (7, 4, 6, 5), options=options)[3, 2], alone)


def test_truncated_to_nothing_all_pictures_are_the_average_one(model: StyleGAN) -> None:
    grid = model.mix_styles((3, 4), (5,), options=MixingOptions(truncation=0))
    pictures = grid.flatten(0, 1)[1:]
    assert all(close(picture, pictures[0]) for picture in pictures)


def test_a_class_of_each_picture_tells_in_its_styles() -> None:
    conditional = generator(classes=3)
    same = conditional.mix_styles((3,), (3,), torch.tensor([1, 1]))
    assert close(same[1, 1], same[1, 0])
    other = conditional.mix_styles((3,), (3,), torch.tensor([1, 2]))
    assert not close(other[1, 1], other[1, 0])
    assert close(other[0, 1], conditional.sample(1, 3, torch.tensor([2]), SamplingOptions(noise="fixed"))[0])


def test_groups_of_a_network_that_is_still_growing_are_of_the_layers_that_it_has() -> None:
    growing = generator(form="progressive")
    growing.growth.fill_(3)
    [[_, column], [row, mixed]] = growing.mix_styles((3,), (4,), options=MixingOptions(styles="fine"))
    assert not close(mixed, row)
    assert not close(mixed, column)


def test_a_model_without_styles_says_so() -> None:
    with pytest.raises(ConfigError, match=r"--model.styles none"):
        generator(styles="none", constant=False).mix_styles((1,), (2,))
