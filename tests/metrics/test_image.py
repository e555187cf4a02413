"""PSNR, SSIM, perceptual distance and colour curves, checked against the textbook and against every other curve."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from genlab.metrics.image import (
    apply_colour_curve,
    best_colour_curve,
    mean_pairwise_distance,
    perceptual_distance,
    psnr,
    ssim,
)


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def test_psnr_of_known_errors() -> None:
    black = torch.zeros(3, 4, 5, 3, dtype=torch.uint8)
    images = black.clone()
    images[0] += 255  # as far as can be
    images[1] += 1  # one level everywhere
    images[2, 0, 0, 0] = 10  # one value of 60: MSE 100 / 60
    expected = [0.0, 20 * math.log10(255), 10 * math.log10(255**2 * 60 / 100)]
    assert psnr(images, black).tolist() == pytest.approx(expected, rel=1e-12)
    assert psnr(black, images).tolist() == pytest.approx(expected, rel=1e-12)


def test_psnr_of_equal_images_is_infinite() -> None:
    image = noise(2, 8, 8, 1, seed=0)
    assert psnr(image, image).tolist() == [math.inf, math.inf]


def reference_ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """Of one channel, float64 [H, W]: written down by the paper, with SciPy's filter, which reaches 5 pixels here."""

    def window(plane: np.ndarray) -> np.ndarray:
        return gaussian_filter(plane, 1.5, truncate=3.5)[5:-5, 5:-5]

    means = window(image), window(reference)
    variances = window(image**2) - means[0] ** 2, window(reference**2) - means[1] ** 2
    covariance = window(image * reference) - means[0] * means[1]
    luminance = (2 * means[0] * means[1] + 2.55**2) / (means[0] ** 2 + means[1] ** 2 + 2.55**2)
    return float((luminance * (2 * covariance + 7.65**2) / (sum(variances) + 7.65**2)).mean())


def test_ssim_is_that_of_the_paper() -> None:
    images = noise(3, 24, 17, 2, seed=0)
    references = (images // 2 + noise(3, 24, 17, 2, seed=1) // 3).contiguous()
    references[2] = 255 - images[2]  # anticorrelated
    x, y = images.numpy().astype(float), references.numpy().astype(float)
    expected = [np.mean([reference_ssim(x[i, :, :, c], y[i, :, :, c]) for c in range(2)]) for i in range(3)]
    assert ssim(images, references).tolist() == pytest.approx(expected, rel=1e-9)
    assert ssim(references, images).tolist() == pytest.approx(expected, rel=1e-9)
    assert expected[2] < -0.5
    assert ssim(images, images).tolist() == pytest.approx([1, 1, 1], rel=1e-12)


def test_ssim_is_that_of_torchmetrics_where_the_window_lies_inside_the_image() -> None:
    """Its version 1.9.0, ``return_full_image`` less five pixels a side: it pads images, which is not done here."""
    row = torch.arange(3 * 24 * 17 * 2).reshape(3, 24, 17, 2)
    images = ((37 * row + row // 7 * 11) % 256).to(torch.uint8)
    references = (images.int() * 3 // 4 + row * row % 61).clamp(0, 255).to(torch.uint8)
    references[2] = 255 - images[2]
    expected = [0.9135645383000751, 0.9044153916421526, -0.9869647837202635]
    assert ssim(images, references).tolist() == pytest.approx(expected, rel=1e-12)


def test_ssim_has_a_window_that_must_fit() -> None:
    small = noise(1, 10, 40, 3, seed=0)
    with pytest.raises(ValueError, match="10x40: smaller than SSIM's window, 11"):
        ssim(small, small)


def test_perceptual_distance_is_of_directions_averaged_over_places_and_summed_over_layers() -> None:
    one = torch.zeros(2, 2, 1, 2)
    one[:, 0] = 3
    other = one.clone()
    other[1, :, 0, 1] = torch.tensor([0.0, 5.0])  # at one of two places at right angles: |(1, 0) - (0, 1)|² = 2
    assert perceptual_distance([one], [7 * one]).tolist() == [0, 0]
    assert perceptual_distance([one, one], [other, -one]).tolist() == pytest.approx([4, 1 + 4])


def test_mean_pairwise_distance_of_known_images() -> None:
    """Of the differences 10, 10 and 20 at every pixel."""
    levels = torch.tensor([30, 40, 20], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 4, 5, 3)
    assert mean_pairwise_distance(levels) == pytest.approx(40 / 3, rel=1e-5)
    assert mean_pairwise_distance(levels[:1].expand(3, 4, 5, 3)) == 0


@pytest.mark.parametrize(
    "other", [torch.zeros(1, 4, 4, 1, dtype=torch.uint8), torch.zeros(2, 4, 4, 1)], ids=["shape", "dtype"]
)
def test_pairs_that_do_not_match_are_refused(other: torch.Tensor) -> None:
    images = torch.zeros(2, 4, 4, 1, dtype=torch.uint8)
    with pytest.raises(ValueError, match="one shape"):
        psnr(images, other)
    with pytest.raises(ValueError, match="one shape"):
        ssim(images, other)
    with pytest.raises(ValueError, match="one shape"):
        best_colour_curve([(images, other)])


def test_a_colour_curve_undoes_a_change_of_colours() -> None:
    """Targets made from the sources by a curve of each channel are met exactly, non-monotonic ones too."""
    sources = noise(8, 16, 16, 3, seed=1)
    truth = noise(3, 256, seed=2)
    targets = apply_colour_curve(truth, sources)
    assert targets[3, 2, 1].tolist() == [int(truth[c, int(sources[3, 2, 1, c])]) for c in range(3)]
    assert psnr(apply_colour_curve(best_colour_curve([(sources, targets)]), sources), targets).isinf().all()


def test_no_other_curve_is_better() -> None:
    sources, targets = noise(4, 6, 6, 2, seed=3) // 64, noise(4, 6, 6, 2, seed=4)
    curve = best_colour_curve([(sources, targets)])

    def error(candidate: torch.Tensor) -> float:
        return float((apply_colour_curve(candidate, sources).double() - targets).square().sum())

    for channel in range(2):
        for level in range(4):
            for change in (-1, 1):
                other = curve.clone()
                other[channel, level] += change
                assert error(curve) <= error(other)


def test_the_curve_of_parts_is_that_of_the_whole() -> None:
    sources, targets = noise(5, 6, 6, 3, seed=5), noise(5, 6, 6, 3, seed=6)
    parts = zip(sources.split(2), targets.split(2), strict=True)
    assert torch.equal(best_colour_curve(parts), best_colour_curve([(sources, targets)]))


def test_levels_that_were_never_seen_are_interpolated() -> None:
    sources = torch.tensor([100, 200], dtype=torch.uint8).reshape(1, 1, 2, 1)
    targets = torch.tensor([10, 110], dtype=torch.uint8).reshape(1, 1, 2, 1)
    curve = best_colour_curve([(sources, targets)])[0].tolist()
    assert [curve[level] for level in (0, 100, 150, 200, 255)] == [10, 10, 60, 110, 110]
