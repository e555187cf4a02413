import dataclasses
import json
from pathlib import Path

import pytest
import torch

from genlab.core.errors import RunError
from genlab.core.storage import sha256
from genlab.models.cyclegan import DIRECTIONS, CycleGAN, CycleGANArchitecture, Direction
from genlab.models.model import Model
from genlab.models.vae import VAE, VAEArchitecture
from genlab.store import model_directory

PROVENANCE = model_directory.Provenance(
    run="/runs/digits",
    step=100,
    images=12800,
    data={"train": {"path": "/data/digits", "checksum": "a" * 64}},
    config={"model": {"latent_dim": 3}},
    metrics={"test/elbo": -101.5},
)


def save_vae(directory: Path) -> VAE:
    torch.manual_seed(0)
    model = VAE((28, 28, 1), VAEArchitecture(latent_dim=3, channels=(4, 8)))
    model_directory.save(str(directory), model, PROVENANCE)
    return model


def test_a_loaded_vae_samples_and_reconstructs_as_the_saved_one(tmp_path: Path) -> None:
    model = save_vae(tmp_path)
    loaded = model_directory.load(str(tmp_path))
    assert isinstance(loaded, VAE)
    assert (loaded.image_shape, loaded.architecture) == (model.image_shape, model.architecture)
    pixels = torch.randint(0, 256, (2, 28, 28, 1), dtype=torch.uint8)
    torch.testing.assert_close(loaded.sample(3, 5), model.sample(3, 5), rtol=0, atol=0)
    torch.testing.assert_close(loaded.reconstruct(pixels), model.reconstruct(pixels), rtol=0, atol=0)


def test_a_loaded_cyclegan_translates_without_dropout(tmp_path: Path) -> None:
    model = CycleGAN((32, 32, 3), CycleGANArchitecture(width=4))
    model_directory.save(str(tmp_path), model, PROVENANCE)
    loaded = model_directory.load(str(tmp_path))
    assert isinstance(loaded, CycleGAN)
    pixels = torch.randint(0, 256, (1, 40, 50, 3), dtype=torch.uint8)
    for direction in DIRECTIONS:
        expected = model.eval().translate(pixels, direction)
        torch.testing.assert_close(loaded.translate(pixels, direction), expected, rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_cyclegan_saved_before_there_was_a_choice_of_generators_is_one_of_u_nets(tmp_path: Path) -> None:
    model = CycleGAN((32, 32, 3), CycleGANArchitecture(width=4))
    model_directory.save(str(tmp_path), model, PROVENANCE)
    change(tmp_path, architecture={"width": 4, "levels": None, "dropout": 0.5})
    loaded = model_directory.load(str(tmp_path))
    pixels = torch.randint(0, 256, (1, 40, 50, 3), dtype=torch.uint8)
    assert isinstance(loaded, CycleGAN)
    assert torch.equal(loaded.translate(pixels), model.eval().translate(pixels))


def test_the_description_of_a_cyclegan_names_its_directions_where_one_is_missing(tmp_path: Path) -> None:
    shape = {"generator": "unet", "width": 4, "levels": None, "dropout": 0.5}
    cases: list[tuple[tuple[Direction, ...], dict[str, list[str]]]] = [
        (DIRECTIONS, {}),
        (("b_to_a",), {"directions": ["b_to_a"]}),
    ]
    for directions, named in cases:
        model = CycleGAN((32, 32, 3), CycleGANArchitecture(width=4, directions=directions))
        model_directory.save(str(tmp_path / "model"), model, PROVENANCE)
        assert model_directory.describe(tmp_path / "model")["architecture"] == shape | named
        loaded = model_directory.load(tmp_path / "model")
        assert loaded.architecture == model.architecture
        assert loaded.state_dict().keys() == model.state_dict().keys()
    change(tmp_path / "model", architecture={"directions": []})
    with pytest.raises(RunError, match="cannot be loaded: directions"):
        model_directory.load(tmp_path / "model")


def test_the_description_says_what_the_model_is_and_where_it_came_from(tmp_path: Path) -> None:
    save_vae(tmp_path)
    description = model_directory.describe(str(tmp_path))
    assert description["family"] == "vae"
    assert description["architecture"]["latent_dim"] == 3
    operations = ["sample", "reconstruct", "interpolate", "interpolate_draws", "decode", "encode"]
    assert description["operations"] == operations
    assert description["options"]["sample"] == {}
    steps = description["options"]["interpolate"]["steps"]
    assert steps.items() >= {"type": "integer", "minimum": 2, "default": 10}.items()
    assert steps["description"] == "Images from end to end, both included."
    assert description["image"] == {"height": 28, "width": 28, "channels": 1, "dtype": "uint8", "range": [0, 255]}
    assert description["provenance"]["data"]["train"]["checksum"] == "a" * 64
    assert description["provenance"]["metrics"] == {"test/elbo": -101.5}
    card = (tmp_path / "README.md").read_text()
    assert "-101.5" in card
    assert "| interpolate, `steps` | whole number ≥ 2, by default 10. Images from end to end, both included. |" in card


@pytest.mark.parametrize(
    ("chosen_on", "reported_on", "said"),
    [
        ("", "", ""),
        ("test", "test", "on the split `test`; results on that split are chosen on these images"),
        ("test:validation", "test:reporting", "on the split `test:validation`; results are of `test:reporting`"),
    ],
)
def test_the_card_says_on_which_images_the_model_was_chosen(
    chosen_on: str, reported_on: str, said: str, tmp_path: Path
) -> None:
    chosen = dataclasses.replace(PROVENANCE, chosen_on=chosen_on, reported_on=reported_on)
    model_directory.save(tmp_path, VAE((28, 28, 1), VAEArchitecture(channels=(4,), hidden=4)), chosen)
    card = (tmp_path / "README.md").read_text()
    assert ("| chosen | on the split" in card) == bool(said)
    assert said in card
    assert model_directory.describe(tmp_path)["provenance"]["chosen_on"] == chosen_on


def test_a_flipped_bit_in_the_weights_is_refused(tmp_path: Path) -> None:
    save_vae(tmp_path)
    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(RunError, match=r"model\.safetensors: damaged"):
        model_directory.load(str(tmp_path))


def test_a_pickle_in_place_of_the_weights_is_not_run(tmp_path: Path) -> None:
    """Even with the right checksum."""
    save_vae(tmp_path)
    trace = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (trace,)

    torch.save({"encoder": Evil()}, tmp_path / "model.safetensors")
    change(tmp_path, weights={"sha256": sha256((tmp_path / "model.safetensors").read_bytes())})
    with pytest.raises(RunError, match="cannot be loaded"):
        model_directory.load(str(tmp_path))
    assert not trace.exists()


@pytest.mark.parametrize("family", ["gan", "model", "../evil", "os.path"])
def test_an_unknown_family_is_refused_and_nothing_is_imported(tmp_path: Path, family: str) -> None:
    save_vae(tmp_path)
    change(tmp_path, family=family)
    with pytest.raises(RunError, match=r"no model family .*there are: .*cyclegan.*vae"):
        model_directory.load(str(tmp_path))


@pytest.mark.parametrize(
    "architecture", [{"latent_dim": 4, "channels": [4, 8]}, {"latent_dim": -1}, {"depth": 3}, {"channels": [4] * 9}]
)
def test_weights_of_another_architecture_are_refused(tmp_path: Path, architecture: dict[str, object]) -> None:
    save_vae(tmp_path)
    change(tmp_path, architecture=architecture)
    with pytest.raises(RunError, match="cannot be loaded"):
        model_directory.load(str(tmp_path))


def test_the_first_tensor_that_does_not_fit_is_named_in_one_line(tmp_path: Path) -> None:
    save_vae(tmp_path)
    change(tmp_path, architecture={"latent_dim": 4, "channels": [4, 8]})
    with pytest.raises(RunError, match=r"weights are of another architecture.*: \S+ is \[.*\] in model") as refusal:
        model_directory.load(str(tmp_path))
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_weights_of_another_dtype_are_not_cast(tmp_path: Path, dtype: torch.dtype) -> None:
    model_directory.save(str(tmp_path), save_vae(tmp_path).to(dtype), PROVENANCE)
    message = rf"\S+ is {str(dtype)[6:]} in model\.safetensors, and float32 in the model"
    with pytest.raises(RunError, match=message):
        model_directory.load(str(tmp_path))


def test_a_missing_weights_file_is_named(tmp_path: Path) -> None:
    save_vae(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"model\.safetensors"):
        model_directory.load(str(tmp_path))


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    save_vae(tmp_path)
    change(tmp_path, version=2)
    with pytest.raises(RunError, match="reads format 1"):
        model_directory.load(str(tmp_path))


def test_models_are_named_after_their_runs(tmp_path: Path) -> None:
    save_vae(tmp_path / "one" / "model")
    save_vae(tmp_path / "two" / "model")
    save_vae(tmp_path / "exported")
    found = model_directory.find([str(tmp_path / "one"), str(tmp_path / "two" / "model"), str(tmp_path / "exported")])
    assert {name: str(path) for name, path in found.items()} == {
        "one": str(tmp_path / "one" / "model"),
        "two": str(tmp_path / "two" / "model"),
        "exported": str(tmp_path / "exported"),
    }
    assert all(isinstance(model_directory.load(path), Model) for path in found.values())


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    save_vae(tmp_path / "a" / "digits" / "model")
    save_vae(tmp_path / "b" / "digits")
    with pytest.raises(RunError, match="both be served as 'digits'"):
        model_directory.find([str(tmp_path / "a" / "digits"), str(tmp_path / "b" / "digits")])


def test_what_is_no_model_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "genlab.json").write_text('{"format": "something else"}')
    for directory in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RunError, match=f"{directory}: not a model directory"):
            model_directory.find([str(directory)])


def change(directory: Path, **values: object) -> None:
    """Edit genlab.json; dictionaries replace single entries of a section, others the whole value."""
    file = directory / "genlab.json"
    description = json.loads(file.read_text())
    for name, value in values.items():
        if isinstance(value, dict) and name == "weights":
            description[name] |= value
        else:
            description[name] = value
    file.write_text(json.dumps(description))
