"""Directions of a generator whose attributes are known functions of w."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.core.errors import ConfigError
from genlab.editing.directions import find_directions
from genlab.editing.moves import Move, synthesise
from genlab.models.noise import Noise
from genlab.models.pixels import from_signed
from genlab.models.stylegan import StyleGAN, StyleGANArchitecture
from genlab.store.directions import Direction, Effect, Method
from tests.editing.support import AGE, AXES, GENDER, KnownGenerator, read, read_images

Found = dict[tuple[str, Method], Direction]


@pytest.fixture(scope="module")
def found() -> Found:
    directions = find_directions(KnownGenerator(), read, read_images, AXES, samples=3000, seed=1)
    return {(one.axis.name, one.method): one for one in directions}


def same(effect: Effect, axis: str) -> float:
    """The share of pictures whose class stays the same."""
    share = effect.changes[axis].same_class
    assert share is not None
    return share


def accuracy(direction: Direction) -> float:
    assert direction.accuracy is not None
    return direction.accuracy


def cosine(vector: tuple[float, ...], other: Tensor) -> float:
    return float(F.cosine_similarity(torch.tensor(vector), other, dim=0))


def test_the_linear_direction_is_that_of_the_attribute_without_the_others(found: Found) -> None:
    age = AGE - (AGE @ GENDER) * GENDER
    assert cosine(found["age", "linear"].vector, age) > 0.995
    assert cosine(found["age", "linear"].vector, AGE) < 0.9
    gender = GENDER - (GENDER @ AGE) * AGE
    assert cosine(found["gender", "linear"].vector, gender) > 0.995
    assert accuracy(found["age", "linear"]) > 0.9  # of a tanh
    assert accuracy(found["gender", "linear"]) > 0.97


def test_a_step_goes_as_far_as_samples_vary() -> None:
    spread = (2.0, 1.0, 1.0, 0.5, 1.0, 1.0)
    directions = find_directions(KnownGenerator(spread), read, read_images, AXES, samples=3000, seed=1)
    for one in directions:
        if one.method != "channel":
            assert float((torch.tensor(one.vector) / torch.tensor(spread)).norm()) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("method", ["gradient", "linear", "channel"])
def test_an_amount_is_what_is_read_on_average_and_other_attributes_stay(found: Found, method: Method) -> None:
    down, up = found["age", method].effects
    assert down.amount == -up.amount
    assert up.amount == pytest.approx(16.8, rel=0.05)  # the standard deviation of 40 tanh(x / 2)
    assert 100 < down.pictures < 170  # the third of 400 that has room for it
    assert 100 < up.pictures < 170
    for effect in (down, up):
        assert effect.changes["age"].mean == pytest.approx(effect.amount, rel=0.05)
        assert same(effect, "gender") > 0.98
        assert abs(effect.changes["gender"].mean) < 0.3  # of a standard deviation of 4
        assert same(effect, "season=autumn") > 0.98
    to_man, to_woman = found["gender", method].effects
    assert to_man.amount < 0 < to_woman.amount
    assert to_woman.pictures + to_man.pictures == 400
    for effect in (to_woman, to_man):
        assert same(effect, "gender") < 0.15
        assert effect.changes["age"].size < 1.5


def test_amounts_are_calibrated_where_what_is_read_is_no_linear_function(found: Found) -> None:
    """Twenty years older are other steps for each of the young; on average over them they are twenty years."""
    model, direction = KnownGenerator(), found["age", "linear"]
    noise = Noise(99, range(500))
    w = model.map_latents(noise.normal("z", model.latent_dim), None)
    with torch.inference_mode():
        before = read(from_signed(model.synthesise(w, noise)))
        for amount in (-20.0, 10.0, 20.0):
            steps = torch.tensor([direction.steps_for(amount)])
            after = read(from_signed(synthesise(model, w, noise, [Move.of(direction)], steps)))
            low, high = before[:, 0].quantile(torch.tensor([1 / 3, 2 / 3], dtype=before.dtype))
            room = before[:, 0] > high if amount < 0 else before[:, 0] < low
            assert float((after - before)[room, 0].mean()) == pytest.approx(amount, abs=1.5)


def test_an_amount_that_was_not_calibrated_is_refused(found: Found) -> None:
    for amount in (500.0, -500.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"of age: this direction goes from -\d+\.?\d* to \d+"):
            found["age", "linear"].steps_for(amount)


def test_the_channel_of_an_attribute_is_found(found: Found) -> None:
    places = {name: (one.layer, one.channel) for (name, method), one in found.items() if method == "channel"}
    assert places == {
        "age": ("faces", 0),
        "gender": ("faces", 1),
        "season=spring": ("scenes", 0),
        "season=summer": ("scenes", 1),
        "season=autumn": ("scenes", 2),
    }
    assert abs(found["age", "channel"].channel_step) == pytest.approx(1, rel=0.05)
    assert found["age", "channel"].effects[0].changes["gender"].size == 0


def test_sefa_is_found_without_labels_and_moves_what_it_moves(found: Found) -> None:
    """It knows nothing of attributes: here its strongest direction of age moves gender with it, and that is said."""
    effect = found["age", "sefa"].effects[-1]
    assert effect.changes["age"].mean > 5
    assert effect.changes["gender"].size > 1
    assert found["age", "sefa"].accuracy is None


def test_a_class_of_several_becomes_what_is_read(found: Found) -> None:
    [effect] = found["season=autumn", "linear"].effects
    assert effect.changes["season=autumn"].mean > 0
    assert same(effect, "season=autumn") < 0.2
    assert effect.changes["age"].size < 1


def test_what_has_no_direction_is_said() -> None:
    def constant(pixels: Tensor) -> Tensor:
        return read(pixels) * torch.tensor([0.0, 1, 1, 1, 1])

    def always_women(pixels: Tensor) -> Tensor:
        return read(pixels) + torch.tensor([0.0, 100, 0, 0, 0])

    def twice(pixels: Tensor) -> Tensor:
        values = read(pixels)
        return torch.cat([values[:, 1:2] * 10, values[:, 1:]], dim=1)

    for wrong, message in (
        (constant, "age: all samples are read as 0"),
        (always_women, "gender: all 300 samples are read as woman"),
        (twice, "what is read as age changes with gender, season alone"),
    ):
        with pytest.raises(ConfigError, match=message):
            find_directions(KnownGenerator(), wrong, read_images, AXES, samples=300, seed=1)


def test_moves_of_a_stylegan() -> None:
    """A vector is added to w in all places; a channel is moved as by the bias of its layer, and moved back."""
    torch.manual_seed(0)
    model = StyleGAN((8, 8, 1), StyleGANArchitecture(channel_base=32, channel_max=8, latent_dim=8, mapping_layers=2))
    w, vector, noise = torch.randn(3, 8), torch.randn(8), Noise(1, range(3))
    steps = torch.tensor([[0.0], [1.0], [-2.0]])
    bias = dict(model.synthesis.named_parameters())["layers.1.style.bias"]
    with torch.inference_mode():
        plain = model.synthesise(w, noise)
        torch.testing.assert_close(
            synthesise(model, w, noise, [Move(vector)], steps), model.synthesise(w + steps * vector, noise)
        )
        places = w[:, None].repeat(1, model.synthesis.styles, 1)
        torch.testing.assert_close(
            synthesise(model, places, noise, [Move(vector)], steps), synthesise(model, w, noise, [Move(vector)], steps)
        )
        channel = Move(None, "layers.1.style", 2, 0.5)
        moved = synthesise(model, w, noise, [channel], torch.tensor([4.0]))
        both = synthesise(model, w, noise, [Move(vector), channel], torch.tensor([-1.0, 4.0]))
        assert torch.equal(model.synthesise(w, noise), plain)
        bias[2] += 2.0
        torch.testing.assert_close(moved, model.synthesise(w, noise))
        torch.testing.assert_close(both, model.synthesise(w - vector, noise))
        assert not torch.allclose(moved, plain)
