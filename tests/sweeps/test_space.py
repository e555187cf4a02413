"""Search spaces: the points of a grid, and random draws."""

import itertools
from pathlib import Path

import pytest
from ray import tune

from genlab.core.errors import ConfigError
from genlab.sweeps.space import Budget, Space, When, load_space


def space(vary: dict[str, object], **more: object) -> Space:
    return Space("vae", vary, "val/neg_elbo", "min", **more)  # type: ignore[arg-type]


def test_a_grid_has_every_combination() -> None:
    points = list(space({"model.latent_dim": [2, 8], "objective.beta": [0.5, 1.0, 2.0]}).grid())
    assert len(points) == 6
    assert points[1] == {"model.latent_dim": 2, "objective.beta": 1.0}


def test_an_option_is_varied_only_where_another_has_certain_values() -> None:
    vary = {"discriminator": ["patch", "pixel"], "layers": When("discriminator", ["patch"], [2, 3])}
    assert list(space(vary).grid()) == [
        {"discriminator": "patch", "layers": 2},
        {"discriminator": "patch", "layers": 3},
        {"discriminator": "pixel"},
    ]
    for point in itertools.islice(space(vary).draws(0), 20):
        assert ("layers" in point) == (point["discriminator"] == "patch")


def test_draws_stay_within_their_distributions_and_are_plain_values() -> None:
    vary = {
        "rate": tune.loguniform(0.1, 100),
        "dim": tune.lograndint(2, 65),
        "width": tune.qrandint(8, 32, 8),
        "kind": tune.choice(["a", "b"]),
        "listed": [1, 2, 3],
    }
    drawn = list(itertools.islice(space(vary).draws(0), 50))
    assert all(0.1 <= point["rate"] <= 100 and 2 <= point["dim"] <= 64 for point in drawn)
    assert {point["width"] for point in drawn} == {8, 16, 24, 32}
    assert {point["kind"] for point in drawn} == {"a", "b"}
    assert {point["listed"] for point in drawn} == {1, 2, 3}
    assert {type(value) for point in drawn for value in point.values()} == {float, int, str}
    assert len({point["rate"] for point in drawn}) == 50


def test_draws_depend_on_the_seed_and_not_on_what_else_varies() -> None:
    alone, beside = space({"rate": tune.uniform(0, 1)}), space({"dim": [2, 3], "rate": tune.uniform(0, 1)})
    first, second = (list(itertools.islice(alone.draws(seed), 5)) for seed in (0, 1))
    assert [point["rate"] for point in itertools.islice(beside.draws(0), 5)] == [point["rate"] for point in first]
    assert first != second


def test_the_limits_that_are_given_take_the_place_of_those_of_the_space() -> None:
    assert Budget(trials=8, hours=2.0).limited_by(Budget(trials=4)) == Budget(trials=4, hours=2.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\nSPACE = Space('vae', {}, 'val/loss', 'min', seed=3)", ", line 3: TypeError: .*'seed'"),
        ("\nSPACE = Space(", r", line 3: SyntaxError: '\(' was never closed$"),
        ("\nfrom ray.tuning import tune", ", line 3: ModuleNotFoundError: No module named 'ray.tuning'$"),
        ("\ndef rates():\n    return 1 / 0\n\nSPACE = rates()", ", line 4: ZeroDivisionError: division by zero$"),
    ],
)
def test_a_mistake_in_the_file_of_a_space_is_told_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "rates.py"
    file.write_text(f"from genlab.sweeps.space import Space\n{text}\n")
    with pytest.raises(ConfigError, match=rf"rates\.py{said}"):
        load_space(str(file))
