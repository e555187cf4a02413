"""The base class of recipes, and what the training loop offers them.

A recipe has the networks of one family, and says what one training step, its metrics and its pictures are.

A family is one module in ``genlab.models`` and one of the same name in ``genlab.recipes``, found by that name.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn

from genlab.core.errors import ConfigError
from genlab.core.families import defined, module_file, undefined
from genlab.data.format.manifest import LABEL, Attribute, Manifest
from genlab.data.stream.batches import Batch
from genlab.models.model import OPERATIONS, RESERVED_NAMES, Model, NoOptions, Shape
from genlab.recipes.options import Data, Optimization, Run


class RecipeConfig(Protocol):
    """The sections that the config of every recipe has; it may have more."""

    @property
    def run(self) -> Run:
        """Return the options of the run: its name, length, batch and workers."""
        ...

    @property
    def data(self) -> Data:
        """Return the options of the data: the data set of each domain, and how it is read."""
        ...

    @property
    def optimization(self) -> Optimization:
        """Return the options of the optimisers and of the averages of weights."""
        ...


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of a column of numbers, in its units."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class DomainInfo:
    """What a recipe knows of a data set before the first batch."""

    rows: int
    """Number of rows of the split that is trained on."""
    shape: Shape
    """(height, width, channels) of the images."""
    label_names: tuple[str, ...]
    """Names of the classes 0, 1, ...; empty for images without labels."""
    attributes: tuple[Attribute, ...] = ()
    """The columns beside image, key and label."""
    label_column: str = LABEL
    """Name that the label's column had in the source, such as ``gender``."""
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    """Of the columns of numbers that the recipe asked for by :meth:`Recipe.measured_columns`."""

    @staticmethod
    def of(manifest: Manifest, rows: int) -> "DomainInfo":
        """Return what the manifest says of a data set of images of one size, of which ``rows`` are trained on."""
        assert manifest.shape is not None
        return DomainInfo(rows, manifest.shape, manifest.label_names, manifest.attributes, manifest.label_column)

    def column(self, name: str) -> Attribute:
        """Return the column called ``name``; the label's is called ``label``, whatever name it had in the source.

        Raises:
            ValueError: when there is none.
        """
        label = Attribute(LABEL, "category", self.label_names)
        named = {attribute.name: attribute for attribute in self.attributes}
        if self.label_names:
            named = {self.label_column: label} | named | {LABEL: label}
        elif name == LABEL:
            raise ValueError("a classifier needs labelled images; ingest them with labels")
        if name not in named:
            raise ValueError(f"no column {name!r}; there are: {', '.join(named) or 'none'}")
        return named[name]

    def spread(self, name: str) -> Spread:
        """Return the spread of a column of numbers; mean 0 and deviation 1 where no rows were read.

        Raises:
            ValueError: when all rows have one number.
        """
        found = self.spreads.get(name, Spread(0.0, 1.0))
        if not found.deviation > 0:
            raise ValueError(f"column {name!r} is {found.mean:g} in all rows: there is nothing to learn")
        return found

    def classes(self, asked: int) -> int:
        """Return the number of classes of a model for this data set; 0 where the images have no labels.

        Args:
            asked: the number that the user wants; 0 for as many as there are labels.

        Raises:
            ValueError: when there are more labels than ``asked``.
        """
        found = len(self.label_names)
        if 0 < asked < found:
            raise ValueError(f"model.classes = {asked}: the data set has {found}; leave it out")
        return found and (asked or found)


class StepContext(Protocol):
    """What the training loop offers a recipe for one optimisation step: its rows, and the noise that belongs to them.

    A rank is one of the processes that train together, a worker; each has a part of the rows of the global batch. With
    gradient accumulation a rank's rows are again divided into parts, and each part has a context of its own, which is
    the same in all phases of the step.
    """

    @property
    def index(self) -> int:
        """Return the number of the step, from 0."""
        ...

    @property
    def rows(self) -> slice:
        """Return which rows of the global batch this rank has; with gradient accumulation, those of this part."""
        ...

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context for forward passes: bf16 autocast, or one that does nothing in fp32."""
        ...

    def noise(self, name: str, *shape: int) -> Tensor:
        """Draw standard normal noise that belongs to rows, in full precision, [local rows, *shape].

        That of a row of the global batch depends on (seed, step, name, shape, batch) alone, so it is the same for any
        world size.
        """
        ...

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Draw noise as :meth:`noise` does, but uniform in [0, 1)."""
        ...

    def gather(
        self, tensor: Tensor, wanted: Collection[int] | None = None
    ) -> Callable[[], tuple[Sequence[int], Tensor]]:
        """Begin to gather [local rows, ...] of all ranks, while the recipe goes on computing.

        Args:
            tensor: [local rows, ...].
            wanted: row numbers in the global batch that are gathered, the same on all ranks; by default all.

        Returns:
            A function that waits for the end. It returns the row numbers in the global batch, of each rank ascending,
            and [rows, ...], without gradients. With gradient accumulation these are rows of one part of the global
            batch.
        """
        ...

    def leave(self, name: str, value: Any) -> None:
        """Leave a value for a later phase of this step: a tensor of these rows, which is detached, or a function.

        It is no part of the run's state, and ends with the step.
        """
        ...

    def left(self, name: str) -> Any:
        """Return what an earlier phase of this step left for these rows.

        Raises:
            ConfigError: when none did.
        """
        ...


Batches = Mapping[str, Batch]
"""The batches of a step by the name of their domain."""
Metrics = Mapping[str, Tensor]
"""Metrics by name: scalar tensors on the device, without gradients, means over this rank's rows."""
C = TypeVar("C", bound=RecipeConfig)


@dataclass(frozen=True)
class Phase:
    """A part of a training step, which moves one network down the gradient of one loss.

    The loop runs the phases of a step in turn. Each sees the weights that the phases before it have moved, on one
    worker as on many. While a phase runs, the parameters of all other networks are constants.
    """

    name: str
    """Name of the phase, such as ``discriminator``."""
    network: str
    """Name of the network that moves. Several phases may move one network: it has one optimiser, with one state."""
    loss: Callable[[Batches, StepContext], tuple[Tensor, Metrics]]
    """Computes a loss, which is a scalar and a mean over this rank's rows, and metrics. The gradient that is applied is
    that of the mean over the global batch. With gradient accumulation it is called for each part of the rows."""
    every: int = 1
    """The phase comes in steps 0, ``every``, 2 ``every`` ...: lazy regularisation (Karras et al. 2020, CVPR)."""
    reads: tuple[str, ...] | None = None
    """Names of the networks that the loss depends on; by default all. A network that moved in an earlier phase of the
    step and is not named here may still have its old weights, and get its new ones while this phase computes."""


class Recipe(nn.Module, ABC, Generic[C]):
    """The networks of a model family, and what a training step does with them.

    The constructor builds the networks on the CPU from the default generator, which the loop has seeded. Whatever else
    a recipe remembers between steps is a persistent buffer of it, or of a module in it, on every rank the same: it is
    then saved, restored, sent to new workers and compared between them, as the networks are.

    Attributes:
        config_type: the dataclass of the family's options.
        networks: the networks that are trained, by name; each has an optimiser of its own.
        group: how many neighbouring rows of the global batch belong together, such as the rows of a statistic over
            small groups. Workers, and parts of gradient accumulation, get whole groups.
        averaged: names of the networks of which an exponential moving average is kept when ``ema_images`` of their
            optimisation is set; the averages are then what is measured and saved as the run's model.
        renamed_state: what state is called now, by what checkpoints of earlier versions call it, as prefixes of names.
        ranked_by: name of the measurement, lower being better, by which checkpoints are ranked; empty for a family
            whose checkpoints are not evaluated beside training.
        presets: sets of options with names, such as a published configuration or one for small machines: values by
            dotted name.
        figure_rows: number of held-out rows that ``figures`` is given: the first rows of the split; from the 101st on,
            rows at equal distances over the whole split.
    """

    config_type: ClassVar[type]
    averaged: ClassVar[tuple[str, ...]] = ()
    ranked_by: ClassVar[str] = ""
    renamed_state: ClassVar[Mapping[str, str]] = {}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    networks: nn.ModuleDict
    group: int = 1
    figure_rows: int = 16

    def __init__(self, config: C, domains: Mapping[str, DomainInfo]) -> None:
        super().__init__()
        self.config = config
        self.domains = domains

    @abstractmethod
    def phases(self) -> Sequence[Phase]:
        """Return the phases of a training step, in their order."""

    def optimization(self, network: str) -> Optimization:
        """Return the options of the optimiser and the average of ``networks[network]``; by default the config's."""
        return self.config.optimization

    def present_name(self, name: str) -> str:
        """Return what a tensor of the state is called now that a checkpoint calls ``name``."""
        for before, present in self.renamed_state.items():
            if name.startswith(before):
                return present + name.removeprefix(before)
        return name

    @classmethod
    def measured_columns(cls, config: C) -> Sequence[str]:
        """Return the columns whose :class:`Spread` the recipe is told where they are numbers; by default none.

        Names are those of :meth:`DomainInfo.column`. For each, rows of the data are read before training begins.
        """
        return ()

    def restarts(self, images: int) -> bool:
        """Return whether the optimisers begin anew, without moments, in the step that begins after ``images``.

        By default they never do. It must be a function of the config and ``images`` alone.
        """
        return False

    def test_metrics(self, batches: Batches, step: StepContext) -> Metrics:
        """Return metrics of held-out rows. A recipe without this method has none, and no row is read for them."""
        return {}

    @property
    def has_test_metrics(self) -> bool:
        """Whether the recipe defines :meth:`test_metrics`."""
        return type(self).test_metrics is not Recipe.test_metrics

    def advice(self) -> Sequence[str]:
        """Return sentences for the user as a run starts, on a config and data that go, but not well together."""
        return ()

    @abstractmethod
    def figures(self, batches: Batches) -> dict[str, np.ndarray]:
        """Return pictures by name, uint8 [H, W, C], made from ``figure_rows`` held-out rows."""

    def tables(self, batches: Batches) -> dict[str, list[tuple[str, ...]]]:
        """Return tables by name, of the rows that ``figures`` is given, each with its head first; by default none."""
        return {}

    @abstractmethod
    def model(self) -> Model:
        """Return the model that is saved and served; it shares its weights with ``networks``."""


def recipe_type(family: str) -> type[Recipe[Any]]:
    """Return the recipe class of ``family``.

    Raises:
        ConfigError: when there is no such family, or its recipe or its model lacks what training and use need.
    """
    recipe: type[Recipe[Any]] | None = defined("genlab.recipes", family, "RECIPE")
    if recipe is None:
        raise ConfigError(undefined("genlab.recipes", family, "RECIPE"))
    check_family(family, recipe)
    return recipe


def preset_values(family: str, name: str) -> Mapping[str, Any]:
    """Return the values of a preset of ``family``, by dotted name.

    Raises:
        ConfigError: when there is no such preset.
    """
    presets = recipe_type(family).presets
    if name not in presets:
        known = f"choose from {', '.join(presets)}" if presets else "there are none"
        raise ConfigError(f"preset {name!r}: no such preset of {family}; {known}")
    return presets[name]


def check_family(family: str, recipe: type[Recipe[Any]]) -> None:
    """Check the classes of a family: the recipe, and the model of the same name.

    Raises:
        ConfigError: when one lacks what training and use need; the message names the file.
    """
    file = module_file("genlab.recipes", family)
    _check_class(f"{file}: RECIPE", recipe, Recipe)
    config = getattr(recipe, "config_type", None)
    sections = [field.name for field in fields(config)] if isinstance(config, type) and is_dataclass(config) else []
    if not {"run", "data", "model", "optimization"} <= set(sections):
        raise ConfigError(
            f"{file}: config_type of {recipe.__name__} must be a dataclass with fields run, data, model, optimization"
        )
    model: type[Model] | None = defined("genlab.models", family, "MODEL")
    file = module_file("genlab.models", family)
    if model is None:
        raise ConfigError(undefined("genlab.models", family, "MODEL"))
    _check_class(f"{file}: MODEL", model, Model)
    if getattr(model, "family", None) != family:
        raise ConfigError(f"{file}: {model.__name__} needs family = {family!r}, the name of its module")
    if not is_dataclass(getattr(model, "Architecture", None)):
        raise ConfigError(f"{file}: {model.__name__} needs Architecture, the dataclass of its values")
    operations = getattr(model, "operations", None)
    if not isinstance(operations, dict) or not set(operations) <= OPERATIONS.keys():
        raise ConfigError(
            f"{file}: {model.__name__} needs operations, a dictionary with names out of: {', '.join(OPERATIONS)}; "
            f"it is {operations!r}"
        )
    for operation, options in operations.items():
        where = f"{file}: operations of {model.__name__} name {operation!r}"
        known = OPERATIONS[operation]
        _check_options(f"{where}, whose options", options, known.options)
        if not issubclass(model, known.base):
            raise ConfigError(f"{where}, for which it must derive from {known.base.__module__}.{known.base.__name__}")
        method, arguments = getattr(model, operation, None), ("self", *known.arguments, "options")
        if not callable(method) or not _takes(method, len(arguments)):
            raise ConfigError(f"{where}, for which it needs a method {operation}({', '.join(arguments)})")


def check_networks(family: str, recipe: Recipe[Any]) -> None:
    """Check what the constructor of a recipe has built.

    Raises:
        ConfigError: when networks are missing, or do not go with the rest of the family; the message names the file.
    """
    where = f"{module_file('genlab.recipes', family)}: {type(recipe).__name__}"
    networks = getattr(recipe, "networks", None)
    if not isinstance(networks, nn.ModuleDict) or not networks:
        raise ConfigError(f"{where} needs self.networks, an nn.ModuleDict of the networks that are trained")
    if not isinstance(recipe.averaged, tuple) or not set(recipe.averaged) <= set(networks):
        raise ConfigError(
            f"{where} needs averaged, a tuple of names out of self.networks ({', '.join(networks)}); "
            f"it is {recipe.averaged!r}"
        )
    _check_parameters(where, recipe)
    _check_phases(where, recipe)
    model = recipe.model()
    if not isinstance(model, Model) or model.family != family:
        raise ConfigError(
            f"{where}: model() must return the MODEL of {module_file('genlab.models', family)}; "
            f"it returns a {type(model).__name__}"
        )


def _check_parameters(where: str, recipe: Recipe[Any]) -> None:
    owners: dict[int, str] = {}
    for network, module in recipe.networks.items():
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                raise ConfigError(
                    f"{where}: {network}.{name} is not trained (requires_grad is off); keep it in a buffer, or outside "
                    "of self.networks"
                )
            if owners.setdefault(id(parameter), network) != network:
                raise ConfigError(
                    f"{where}: {owners[id(parameter)]} and {network} share {name}, and each network has an optimiser "
                    "of its own; make one network of both"
                )


def _check_phases(where: str, recipe: Recipe[Any]) -> None:
    phases = recipe.phases()
    names, networks = [phase.name for phase in phases], set(recipe.networks)
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{where}: phases() must return at least one phase, each with a name of its own; got {names}")
    for phase in phases:
        for name in (phase.network, *(phase.reads or ())):
            if name not in networks:
                known = ", ".join(recipe.networks)
                raise ConfigError(f"{where}: phase {phase.name!r}: no network {name!r}; self.networks has: {known}")
        if phase.every < 1:
            raise ConfigError(f"{where}: phase {phase.name!r}: every = {phase.every}; must be at least 1")
    if still := networks - {phase.network for phase in phases}:
        raise ConfigError(
            f"{where}: no phase moves {', '.join(sorted(still))}; keep a network that is not trained outside of "
            "self.networks"
        )
    if recipe.group < 1:
        raise ConfigError(f"{where}: group = {recipe.group}; must be at least 1")


def _check_class(what: str, found: Any, base: type) -> None:
    if not isinstance(found, type) or not issubclass(found, base):
        raise ConfigError(f"{what} must be a class derived from {base.__module__}.{base.__name__}")
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise ConfigError(f"{what}: {found.__name__} does not define {', '.join(missing)}")


def _check_options(what: str, options: Any, base: type) -> None:
    if not isinstance(options, type) or not is_dataclass(options):
        raise ConfigError(f"{what} must be a dataclass; they are {options!r}")
    if base is not NoOptions and not issubclass(options, base):
        raise ConfigError(f"{what} must be of a class derived from {base.__module__}.{base.__name__}")
    for option in fields(options):
        if option.name in RESERVED_NAMES:
            raise ConfigError(f"{what} include {option.name!r}, which commands call something else; rename it")
        if option.default is MISSING:
            raise ConfigError(f"{what} need a default for {option.name!r}")


def _takes(method: Callable[..., Any], count: int) -> bool:
    """Tell whether ``method`` can be called with ``count`` positional arguments."""
    try:
        inspect.signature(method).bind(*range(count))
    except TypeError:
        return False
    return True
