"""A folder of models for serving, with versions and aliases.

A model is ``ROOT/NAME``: a model directory, or a run directory with one in ``model``, each of which is one version; or
a folder of versions ``ROOT/NAME/VERSION``, model directories that are never changed. A version is a hash of what the
model is, so the same model has the same version wherever it lies. ``ROOT/aliases.json`` says which version an alias
such as ``NAME@prod`` stands for (:mod:`genlab.store.aliases`).
"""

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from upath import UPath

from genlab.core.claims import claimed
from genlab.core.errors import ConfigError, RunError
from genlab.core.storage import exists, is_remote, list_folder, locate, read_bytes, sha256, write_atomic, write_json
from genlab.store import model_directory
from genlab.store.aliases import FEWEST_DIGITS, FILE_NAME, VERSION_DIGITS, Aliases
from genlab.store.directions import FILE_NAME as DIRECTIONS
from genlab.store.directions import find_directions
from genlab.store.evaluation_file import FILE_NAME as EVALUATION
from genlab.store.evaluation_file import find_evaluation
from genlab.store.probes import Probes
from genlab.store.projection_limits import read_limits, write_limits

DEFAULT_ALIAS = "prod"
"""The alias that a name without one stands for."""
READERS = 8
"""Requests to an object store at a time."""
SHOWN = 20
"""Names in a message, at most."""

_VERSION = re.compile(rf"[0-9a-f]{{{VERSION_DIGITS}}}")
_CUT_VERSION = re.compile(rf"[0-9a-f]{{{FEWEST_DIGITS},{VERSION_DIGITS}}}")


@dataclasses.dataclass(frozen=True)
class ModelVersion:
    """A version of a model, and where it lies."""

    name: str
    version: str
    """The first 12 hexadecimal digits of the hash of what it is, see :func:`version_of`."""
    directory: UPath
    """The model directory."""
    description: Mapping[str, Any] = dataclasses.field(repr=False, compare=False)
    """Its ``genlab.json``."""


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """A model with its versions and aliases."""

    name: str
    versions: Mapping[str, ModelVersion]
    """In the order of their digits."""
    aliases: Mapping[str, str]
    """The version that each alias stands for, which may be one that is not there any more."""

    def find(self, which: str | None) -> ModelVersion:
        """Find a version by an alias or by its first digits, at least 6.

        Without either, it is the version of the alias ``prod``, or the only one.

        Raises:
            RunError: there is none, or more than one; the message names what there is.
        """
        if which is None:
            if DEFAULT_ALIAS not in self.aliases and len(self.versions) == 1:
                return next(iter(self.versions.values()))
            which = DEFAULT_ALIAS
        if version := self.aliases.get(which):
            if version in self.versions:
                return self.versions[version]
            raise RunError(f"{self.name}@{which}: stands for version {version}, which is not there; {self._there()}")
        found = [one for version, one in self.versions.items() if version.startswith(which)]
        if len(found) == 1 and _CUT_VERSION.fullmatch(which):
            return found[0]
        if found and _CUT_VERSION.fullmatch(which):
            raise RunError(f"{self.name}@{which}: more than one version begins so; {self._there()}")
        raise RunError(f"{self.name}@{which}: no such alias or version; {self._there()}")

    def _there(self) -> str:
        aliases = ", ".join(f"{alias} ({version})" for alias, version in self.aliases.items())
        return f"versions of {self.name}: {_named(self.versions)}; aliases: {aliases or 'none'}"


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """What there is in a folder of models at a moment."""

    root: UPath
    models: Mapping[str, StoredModel]
    """By name in alphabetical order."""
    faults: Mapping[str, str]
    """What looks like a model and cannot be used, by its path in the folder, with the reason."""

    @property
    def fingerprint(self) -> str:
        """A text that is another one as soon as a model, a version or an alias is added, changed or gone."""
        there = [[model.name, list(model.versions), list(model.aliases.items())] for model in self.models.values()]
        return sha256(json.dumps([there, list(self.faults.items())]).encode())

    def resolve(self, reference: str) -> ModelVersion:
        """Find the version that ``NAME``, ``NAME@ALIAS`` or ``NAME@VERSION`` stands for, see :meth:`StoredModel.find`.

        Raises:
            RunError: there is none, or more than one; the message names what there is.
        """
        name, _, which = reference.partition("@")
        if name not in self.models:
            raise RunError(f"{self.root}: no model {name!r}; there are: {_named(self.models)}")
        return self.models[name].find(which or None)


class ModelStore:
    """A folder of models, on a disk or an object store. Thread-safe.

    Args:
        root: folder or URL, which need not be there yet.
    """

    def __init__(self, root: model_directory.Location) -> None:
        self.root = locate(root)
        self._read: dict[str, Mapping[str, Any]] = {}  # descriptions of versions, which never change, by path

    def catalogue(self) -> Catalogue:
        """List the models with their versions and aliases.

        On an object store this takes two requests, one for each folder in the root, one for each model or run
        directory, and one for each version that this object has not seen before, :data:`READERS` at a time: so a
        server may ask every few seconds, and compare fingerprints.

        Raises:
            RunError: the root is not there, or its file of aliases is damaged.
            StorageError: the storage cannot be reached.
        """
        try:
            there = list_folder(self.root)
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(f"{self.root}: no such folder of models") from None
        aliases = Aliases.read(self.root) if there.get(FILE_NAME) is False else Aliases()
        names = [name for name, folder in there.items() if folder and not name.startswith(".")]
        models, faults = dict[str, StoredModel](), dict[str, str]()
        with ThreadPoolExecutor(READERS if is_remote(self.root) else 1, thread_name_prefix="models") as readers:
            for name, (versions, found) in zip(names, readers.map(self._versions, names), strict=True):
                if "@" in name and versions:
                    found |= {name: "a name with an @ in it stands for an alias; rename the folder"}
                elif versions:
                    models[name] = StoredModel(name, versions, aliases.of(name))
                faults |= found
        return Catalogue(self.root, models, faults)

    def resolve(self, reference: str) -> ModelVersion:
        """Find the version that ``NAME``, ``NAME@ALIAS`` or ``NAME@VERSION`` stands for, as :meth:`Catalogue.resolve`.

        It looks at this model alone, and at others only for the message of an error.
        """
        name, _, which = reference.partition("@")
        if not name or "/" in name or name.startswith("."):
            raise RunError(f"{reference!r}: no name of a model; give NAME, NAME@ALIAS or NAME@VERSION")
        versions, faults = self._versions(name)
        if versions:
            return StoredModel(name, versions, Aliases.read(self.root).of(name)).find(which or None)
        for path, reason in faults.items():
            raise RunError(f"{self.root / path}: {reason}")
        return self.catalogue().resolve(reference)

    def add(
        self, name: str, source: model_directory.Location, probes: Probes | None = None
    ) -> tuple[ModelVersion, bool]:
        """Copy a model directory into the folder as a version of ``name``, if it is not there.

        The evaluation, the directions and the limits of projections of these very weights go with it, also to a version
        that is there. The description comes last, so that an incomplete copy is never seen.

        Args:
            name: name of the model.
            source: the model directory.
            probes: probes for a version that has none.

        Returns:
            The version, and whether it was copied.

        Raises:
            ConfigError: no model may have this name.
            RunError: the source, or what was measured of it, is damaged.
            ClaimError: another process is copying it.
        """
        require_name(name)
        description = model_directory.describe(source)
        version = version_of(description)
        target = self.root / name / version
        with claimed(target, "promotion", "choose another folder"):
            there = model_directory.describe_if_there(target)
            evaluation = find_evaluation(locate(source), description)
            if evaluation is not None:
                write_atomic(target / EVALUATION, evaluation)
            directions = find_directions(locate(source), description)
            if directions is not None:
                write_atomic(target / DIRECTIONS, directions)
                if exists(card := locate(source) / model_directory.CARD):
                    write_atomic(target / model_directory.CARD, read_bytes(card))
            if limits := read_limits(locate(source), description["weights"]["sha256"]):
                write_limits(target, description["weights"]["sha256"], limits)
            if there is None:
                _copy(locate(source), target, probes)
            elif probes is not None and "probes" not in there:
                probes.add_to(target)
        self._read.pop(str(target), None)
        return ModelVersion(name, version, target, model_directory.describe(target)), there is None

    def _versions(self, name: str) -> tuple[dict[str, ModelVersion], dict[str, str]]:
        """Find the versions of a model, and what cannot be used of it, with the reasons."""
        folder = self.root / name
        versions, faults = dict[str, ModelVersion](), dict[str, str]()
        try:
            there = list_folder(folder)
        except (FileNotFoundError, NotADirectoryError):
            return versions, faults
        except PermissionError as error:
            return versions, {name: str(error.strerror)}
        for path, directory in _candidates(folder, there):
            fixed = path not in ("", "model")
            try:
                description = self._read.get(str(directory)) or model_directory.describe_if_there(directory)
                if description is None:  # a version that is being copied, or a run that still trains
                    continue
                version = version_of(description)
                if fixed and version != path:
                    raise RunError(f"its content is that of version {version}")
            except (RunError, KeyError, TypeError) as error:
                faults[f"{name}/{path}".rstrip("/")] = str(error)
                continue
            if fixed:
                self._read[str(directory)] = description
            versions[version] = ModelVersion(name, version, directory, description)
        return dict(sorted(versions.items())), faults


def version_of(description: Mapping[str, Any]) -> str:
    """Return the version of a model with this ``genlab.json``: 12 hexadecimal digits.

    It is a hash of family, architecture, size of images, and weights.
    """
    parts = [description[part] for part in ("family", "architecture", "image")]
    return sha256(json.dumps([*parts, description["weights"]["sha256"]], sort_keys=True).encode())[:VERSION_DIGITS]


def require_name(name: str) -> None:
    """Refuse a name that no model of a folder may have.

    Raises:
        ConfigError: it is empty, begins with a dot, or has an ``@`` or a slash in it.
    """
    if not name or name.startswith(".") or {"@", "/"} & set(name):
        raise ConfigError(f"name = {name!r}: is no name of a model, which has no @ and no slash; say --name NAME")


def _copy(source: UPath, dest: UPath, probes: Probes | None) -> None:
    """Copy a model directory, its files checked; the description, which makes it one, comes last.

    Networks that training has beside the model are left out: a model of a folder is used.
    """
    description = model_directory.describe(source)
    probes = probes or Probes.read(source)
    write_atomic(dest / model_directory.WEIGHTS, model_directory.read_weights(source, description))
    with contextlib.suppress(FileNotFoundError):
        write_atomic(dest / model_directory.CARD, read_bytes(source / model_directory.CARD))
    more = {} if probes is None else {"probes": probes.write(dest)}
    kept = {name: value for name, value in description.items() if name != "training"}
    write_json(dest / model_directory.DESCRIPTION, kept | more)


def _candidates(folder: UPath, there: Mapping[str, bool]) -> Iterator[tuple[str, UPath]]:
    """Yield where a model's versions may lie, with the name in the folder; those that do not change come last."""
    if there.get(model_directory.DESCRIPTION) is False:
        yield "", folder
    if there.get("model"):
        yield "model", folder / "model"
    for name, is_folder in there.items():
        if is_folder and _VERSION.fullmatch(name):
            yield name, folder / name


def _named(names: Iterable[str]) -> str:
    known = list(names)
    return (", ".join(known[:SHOWN]) or "none") + (f", ... ({len(known)} in all)" if len(known) > SHOWN else "")
