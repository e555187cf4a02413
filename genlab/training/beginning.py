"""The weights that a new run begins with, when they are those of another run or of a model (``run.init``)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from upath import UPath

from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import exists, locate, read_bytes, read_json, require_absolute
from genlab.core.text import counted
from genlab.recipes.recipe import Recipe
from genlab.store import model_directory
from genlab.training.checkpoints import Checkpoints

PARTS = ("network.", "ema.")
"""Beginnings of the names of the state that is taken; optimisers begin anew, and so does what else a recipe has."""


@dataclass(frozen=True)
class Beginning:
    """The place of the weights that a run begins with. It stands in the run's ``config.json``, and in the model's."""

    path: str
    """URL of a run directory, or of a model directory."""
    step: int
    """The step of the run's checkpoint, or of the model."""
    weights: str
    """SHA-256 of a model's weights; empty for a checkpoint."""
    license: str = ""
    """Name of the licence of imported weights, which is also that of what they become."""

    def read(self) -> dict[str, Tensor]:
        """Read the weights: by the names of a run's state, or for a model by its own names.

        Networks that a model directory has for training, beside the model, are named as in a run's state.

        Raises:
            RunError: they are gone or damaged.
        """
        root = locate(self.path)
        if not self.weights:
            try:
                tensors = Checkpoints(root / "checkpoints", keep=1).read(self.step)
            except RunError as error:
                raise RunError(f"run.init: the checkpoint that this run begins with is gone: {error}") from None
            return {name: tensor for name, tensor in tensors.items() if name.startswith(PARTS)}
        description = model_directory.describe(root)
        if description["weights"]["sha256"] != self.weights:
            raise RunError(f"run.init: {root} holds other weights than those that this run began with")
        model_directory.load(root)  # checks them
        tensors = safetensors.torch.load(read_bytes(root / model_directory.WEIGHTS))
        others = model_directory.read_training_weights(root, description)
        return tensors | {f"network.{name}": tensor for name, tensor in others.items()}


def find_beginning(url: str, family: str) -> Beginning:
    """Find what ``run.init`` names: a run, whose newest checkpoint is taken, or a model directory.

    Raises:
        ConfigError: it is neither, or of another family.
    """
    require_absolute("run.init", url)
    root = locate(url)
    # Models of other programs have a config.json, too.
    config = read_json(root / "config.json") if exists(root / "config.json") else {}
    if "family" in config:
        found, steps = config["family"], Checkpoints(root / "checkpoints", keep=1).steps()
        if not steps:
            raise ConfigError(f"run.init = {url!r}: this run has no checkpoint yet")
        beginning = Beginning(str(root), steps[-1], "", config.get("init", {}).get("license", ""))
    elif exists(root / model_directory.DESCRIPTION):
        description = model_directory.describe(root)
        found, provenance = description["family"], description["provenance"]
        beginning = Beginning(
            str(root), provenance["step"], description["weights"]["sha256"], provenance.get("license", "")
        )
    else:
        raise ConfigError(f"run.init = {url!r}: neither a run nor a model directory")
    if found != family:
        raise ConfigError(f"run.init = {url!r}: of family {found!r}, and this run is of {family!r}")
    return beginning


def state_of_beginning(beginning: Beginning, recipe: Recipe[Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Read the weights that a run begins with, by the names of its state: networks, and their averages if it has them.

    Args:
        beginning: where they are.
        recipe: the run's recipe, with networks on any device, also meta.

    Returns:
        The tensors, and messages for the user: which networks are not among them and begin anew.

    Raises:
        ConfigError: they are of another architecture; the message has the sizes that differ.
        RunError: they are gone or damaged.
    """
    tensors = beginning.read()
    own: dict[str, Tensor] = {}
    names = {}
    for network, module in recipe.networks.items():
        for key, tensor in module.state_dict(keep_vars=True).items():
            own[f"network.{network}.{key}"] = tensor
            names[id(tensor)] = f"network.{network}.{key}"
    if beginning.weights:
        of_model = recipe.model().state_dict(keep_vars=True)
        tensors = {names[id(of_model[name])] if name in of_model else name: one for name, one in tensors.items()}
    else:
        tensors = {recipe.present_name(name): one for name, one in tensors.items()}
        tensors = {name: one for name, one in tensors.items() if name.startswith(PARTS)}
    found = {name: tensor for name, tensor in tensors.items() if not name.startswith("ema.")}
    messages = []
    for network in recipe.networks:
        if not any(name.startswith(f"network.{network}.") for name in found):
            messages.append(f"{beginning.path} has no {network}: it begins anew")
            own = {name: one for name, one in own.items() if not name.startswith(f"network.{network}.")}
    _require_same_architecture(beginning.path, found, own)
    averages = {name: tensor for name, tensor in tensors.items() if name.startswith("ema.")}
    for network in recipe.averaged:
        for name in own:
            if name.startswith(f"network.{network}."):
                averages.setdefault(f"ema.{name.removeprefix('network.')}", found[name])
    return found | averages, messages


def _require_same_architecture(path: str, found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    differing = []
    for name in sorted(found.keys() | own.keys()):
        there, here = (_described(tensors.get(name)) for tensors in (found, own))
        if there != here:
            differing.append(f"{name.removeprefix('network.')} is {there} there and {here} here")
    if differing:
        more = f"; {counted(len(differing), 'tensor')} differ" if len(differing) > 1 else ""
        raise ConfigError(f"run.init = {path!r}: of another architecture: {differing[0]}{more}")


def _described(tensor: Tensor | None) -> str:
    """Return the shape, and the dtype of what is not of full precision, so that none is cast without a word."""
    if tensor is None:
        return "missing"
    shape = "x".join(map(str, tensor.shape)) or "a number"
    # genlab verify-ddp computes in float64.
    full = tensor.dtype in (torch.float32, torch.float64)
    return shape if full else f"{shape} {str(tensor.dtype).removeprefix('torch.')}"


def beginning_at(directory: UPath, url: str | None, family: str) -> Beginning | None:
    """Return what the run in ``directory`` begins with: what its ``config.json`` says, else what ``url`` names."""
    if url is None:
        return None
    file = directory / "config.json"
    recorded = read_json(file).get("init") if exists(file) else None
    return Beginning(**recorded) if recorded else find_beginning(url, family)
