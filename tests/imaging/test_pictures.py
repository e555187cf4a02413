"""Pictures from arrays: what stands where in them, and in which colour."""

import subprocess
import sys

import numpy as np
import pytest

from genlab.imaging.images import Pixels
from genlab.imaging.latent_plane import axis_name, most_varied_axes, prior_line, prior_plane, prior_quantiles
from genlab.imaging.scatter import COLOURS, scatter, scatter_per_class
from genlab.imaging.sheets import GAP, sheet_grid, side_by_side, transparent_sheet

NORMAL = {0.05: -1.6449, 0.25: -0.6745, 0.95: 1.6449}
"""Quantiles of the standard normal, from a table."""


def places(picture: Pixels, colour: str) -> np.ndarray:
    """Where pixels of about that colour are: [n, 2], from the left and the top."""
    wanted = [int(colour[position : position + 2], 16) for position in (1, 3, 5)]
    near = np.abs(picture[..., :3].astype(int) - wanted).max(axis=2) < 40
    shown = near & (picture[..., 3] > 128) if picture.shape[2] == 4 else near
    return np.argwhere(shown)[:, ::-1]


def digits(count: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 4, 1), np.uint8)


def test_the_plane_has_the_first_dimension_to_the_right_and_the_second_upwards() -> None:
    points = prior_plane(10, 4, (1, 3)).reshape(10, 10, 4)
    assert points.dtype == np.float32
    assert np.diff(points[0, :, 1]).min() > 0
    assert np.diff(points[:, 0, 3]).max() < 0
    assert not points[..., [0, 2]].any(), "the others are 0"
    for place, quantile in NORMAL.items():
        assert points[0, int(place * 10), 1] == pytest.approx(quantile, abs=1e-3)
    np.testing.assert_array_equal(prior_line(10, 3, 2), [(0, 0, z) for z in prior_quantiles(10)])


def test_the_widest_dimensions_are_found_and_named() -> None:
    means = np.random.default_rng(0).normal(size=(500, 12)).astype(np.float32) * 0.1
    means[:, 11] *= 30
    means[:, 4] *= 20
    means[:, 0] += 100  # far off is not wide
    assert most_varied_axes(means, 2) == (4, 11)
    assert most_varied_axes(means, 1) == (11,)
    assert [axis_name(axis) for axis in most_varied_axes(means, 2)] == ["z₅", "z₁₂"]


def test_each_class_has_its_colour_where_its_points_are() -> None:
    corners = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)], np.float32).repeat(200, axis=0)
    corners += np.random.default_rng(0).normal(size=corners.shape).astype(np.float32) * 0.1
    for labels in ([0, 1, 2, 4], [4, 2, 1, 0]):
        picture = scatter(corners, ("x", "y"), np.array(labels).repeat(200), tuple("abcde"))
        plot = picture[:, : int(0.85 * picture.shape[1])]  # without the legend
        found = [places(plot, COLOURS[label]).mean(axis=0) for label in labels]
        assert found[0][0] < found[1][0]
        assert found[0][1] > found[2][1]
        width, height = found[1][0] - found[0][0], found[0][1] - found[2][1]
        assert width == pytest.approx(height, rel=0.05), "both axes have one scale"


def test_a_legend_names_each_class_and_is_left_out_without_classes() -> None:
    points = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    plain = scatter(points, ("x", "y"))
    assert len(places(plain, COLOURS[0]))
    assert not any(len(places(plain, COLOURS[number])) for number in (1, 2, 4, 6)), "those that are not like ink"
    # No point is of the second class, so what is of its colour is the legend's.
    named = scatter(points, ("x", "y"), np.zeros(50, np.int64), ("cat", "dog"))
    assert places(named, COLOURS[1])[:, 0].min() > 0.85 * named.shape[1]


def test_no_class_hides_those_before_it() -> None:
    points = np.random.default_rng(0).normal(size=(4000, 2)).astype(np.float32) * 0.01
    labels = np.arange(4000) // 1000  # in order, as a folder of classes has them
    picture = scatter(points, ("x", "y"), labels, tuple("abcd"))
    plot = picture[:, : int(0.85 * picture.shape[1])]
    shares = np.array([len(places(plot, COLOURS[label])) for label in range(4)])
    assert shares.min() > 0.5 * shares.max()


def test_any_number_of_classes_can_be_drawn() -> None:
    points = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    for classes in (1, 23, 100):
        names = tuple(map(str, range(classes)))
        assert scatter(points, ("x", "y"), np.arange(300) % classes, names).any()


def test_a_preview_is_smaller_and_on_white() -> None:
    points = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    whole, preview = scatter(points, ("x", "y")), scatter(points, ("x", "y"), preview=True)
    assert whole.shape == (2 * preview.shape[0], 2 * preview.shape[1], 4)
    assert preview.shape[2] == 3
    assert whole[0, 0, 3] == 0
    assert preview[0, 0].tolist() == [255, 255, 255]


def test_a_panel_for_each_class_shows_it_over_all() -> None:
    points = np.random.default_rng(0).normal(size=(600, 2)).astype(np.float32)
    labels = np.arange(600) % 6
    pictures = scatter_per_class(points, ("x", "y"), labels, 5)
    assert len(pictures) == 5, "the sixth class gets none"
    for shown, picture in enumerate(pictures):
        assert np.argmax([len(places(picture, colour)) for colour in COLOURS[:6]]) == shown


def test_a_class_without_points_has_an_empty_panel() -> None:
    points = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    first, _, third = scatter_per_class(points, ("x", "y"), np.arange(60) % 2, 3)
    assert len(places(first, COLOURS[0])) > 0
    assert not any(len(places(third, colour)) for colour in COLOURS[:3]), "nor does it show the points of another"


def test_titled_sheets_keep_every_pixel() -> None:
    sheets = {f"epoch {number}": transparent_sheet(digits(12, number), 4) for number in range(5)}
    picture = sheet_grid(sheets, 3)
    height, width = 3 * 8 + 2, 4 * 6 + 2
    assert picture.shape[1] == 2 * (3 * width + 2 * GAP)
    for number, one in enumerate(sheets.values()):
        left, top = number % 3 * (width + GAP) * 2, number // 3 * (2 * height + 2 * GAP + 48)
        title, shown = picture[top : top + 48, left:][:, : 2 * width], picture[top + 48 :, left:]
        assert (title < 255).any(), "it has a title"
        kept = shown[: 2 * height : 2, : 2 * width : 2, 0]
        np.testing.assert_array_equal(kept, np.where(one[..., 1] == 255, one[..., 0], 255))
    colours = {
        name: np.concatenate([one[..., :1].repeat(3, axis=2), one[..., 1:]], axis=2) for name, one in sheets.items()
    }
    np.testing.assert_array_equal(sheet_grid(colours, 3)[..., :1], picture)


def test_what_is_under_a_sheet_shows_between_its_images() -> None:
    images = digits(3)
    page = transparent_sheet(images, 2)
    assert page.shape == (18, 14, 2)
    np.testing.assert_array_equal(page[2:8, 2:6, 0], images[0, ..., 0])
    assert (page[2:8, 2:6, 1] == 255).all()
    assert not page[:, 6:8, 1].any()
    assert not page[10:, 8:, 1].any(), "where there is no fourth image"


def test_sheets_stand_beside_each_other() -> None:
    left, right = transparent_sheet(digits(4), 2)[..., :1], transparent_sheet(digits(4, 1), 2)[..., :1]
    both = side_by_side(left, right)
    np.testing.assert_array_equal(both[:, : left.shape[1]], left)
    np.testing.assert_array_equal(both[:, -right.shape[1] :], right)
    assert both.shape[1] == left.shape[1] + GAP + right.shape[1]


def test_nothing_heavy_is_imported_before_something_is_drawn() -> None:
    code = "import sys, genlab.imaging.scatter, genlab.imaging.sheets; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
