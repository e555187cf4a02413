import numpy as np
import torch

from genlab.data.stream.augment import Augmentation, Draws, crop_batch, crop_each

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 32, 24, 3), dtype=np.uint8))
ROWS = np.arange(5000)


def draws(top: int, left: int, flip: bool) -> Draws:
    return Draws(np.full(6, top), np.full(6, left), np.full(6, flip))


def test_draws_cover_their_range_evenly_and_differ_by_seed_epoch_and_row() -> None:
    augmentation = Augmentation(flip=True, jitter=30, seed=7)
    first = augmentation.draw(np.zeros(5000, np.int64), ROWS)
    for offset in (first.top, first.left):
        counts = np.bincount(offset, minlength=31)
        assert len(counts) == 31
        assert counts.min() > 5000 / 31 * 0.6
        assert counts.max() < 5000 / 31 * 1.4
    assert 0.45 < first.flip.mean() < 0.55
    assert abs(np.corrcoef(first.top, first.left)[0, 1]) < 0.05
    for other in (
        augmentation.draw(np.ones(5000, np.int64), ROWS),
        augmentation.draw(np.zeros(5000, np.int64), ROWS + 1),
        Augmentation(flip=True, jitter=30, seed=8).draw(np.zeros(5000, np.int64), ROWS),
    ):
        assert (other.top == first.top).mean() < 0.06


def test_draws_never_change() -> None:
    found = Augmentation(flip=True, jitter=30, seed=7).draw(np.array([0, 0, 3]), np.array([0, 1, 2**40]))
    assert (found.top.tolist(), found.left.tolist(), found.flip.tolist()) == (
        [16, 12, 24],
        [7, 25, 16],
        [True, False, False],
    )


def test_without_flip_and_jitter_nothing_changes() -> None:
    augmentation = Augmentation(flip=False, jitter=0, seed=7)
    assert torch.equal(augmentation.apply(IMAGES, augmentation.draw(np.zeros(6, np.int64), np.arange(6))), IMAGES)


def test_a_flip_mirrors_and_a_jitter_moves_the_enlarged_image() -> None:
    flipped = Augmentation(flip=True, jitter=0, seed=0).apply(IMAGES, draws(0, 0, True))
    assert torch.equal(flipped, IMAGES.flip(2))
    jitter = Augmentation(flip=False, jitter=4, seed=0)
    planes = IMAGES.permute(0, 3, 1, 2).float()
    large = torch.nn.functional.interpolate(planes, (36, 28), mode="bilinear").permute(0, 2, 3, 1)
    moved = jitter.apply(IMAGES, draws(3, 1, False)).float()
    assert (moved - large[:, 3:35, 1:25]).abs().max() < 1.5  # it rounds after each axis


def test_images_may_be_changed_in_place() -> None:
    augmentation = Augmentation(flip=True, jitter=3, seed=5)
    chosen = augmentation.draw(np.zeros(6, np.int64), np.arange(6))
    expected = augmentation.apply(IMAGES, chosen)
    images = IMAGES.clone()
    augmentation.apply(images, chosen, out=images)
    assert torch.equal(images, expected)


def test_cutting_at_once_gives_what_cutting_one_by_one_does() -> None:
    chosen = Augmentation(flip=True, jitter=4, seed=5).draw(np.zeros(6, np.int64), np.arange(6))
    large = torch.randint(0, 256, (6, 36, 28, 3), dtype=torch.uint8)
    one, other = torch.empty_like(IMAGES), torch.empty_like(IMAGES)
    crop_each(large, chosen, one)
    crop_batch(large, chosen, other)
    assert torch.equal(one, other)
