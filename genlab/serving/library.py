"""The models that a process serves: found in folders, checked, loaded when they are asked for, and put away again.

A model is asked for as ``NAME``, ``NAME@ALIAS`` or ``NAME@VERSION`` (:mod:`genlab.store.model_store`). What a name
stands for is looked up again every few seconds. A version takes traffic only when it is loaded and gives what its
probes say (:mod:`genlab.store.probes`); until then, and where it does not, requests go to the version before.
"""

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

from upath import UPath

from genlab.core.errors import GenlabError, RunError
from genlab.inference.engine import Engine, Runtime
from genlab.serving.cards import make_card, offered_operations
from genlab.serving.edits import Editings
from genlab.serving.evaluations import Evaluations
from genlab.serving.limits import Limits
from genlab.serving.operations import Form
from genlab.serving.problems import Problem
from genlab.serving.schema import ModelCard
from genlab.store import model_directory
from genlab.store.model_store import ModelStore, ModelVersion, StoredModel, version_of

logger = logging.getLogger(__name__)

NOT_IN_NAMES = frozenset("/\\{}?#%@")
"""Characters that mean something of their own in a URL, a route or the name of a version."""
EXACT_COST = 1.25
"""Factor by which batches may be slower that give a picture the same bytes in all company, if nobody asked for it."""
REFRESH_SECONDS = 5.0
"""Seconds between two looks for new models, versions and aliases."""
IDLE_SECONDS = 600.0
"""Seconds for which a version that was asked for by its own digits, as jobs do, is held after the last time."""


@dataclasses.dataclass(frozen=True, eq=False)
class Served:
    """A version of a model, loaded and checked."""

    version: ModelVersion
    engine: Engine
    forms: Mapping[str, Form]
    """The parameters of its operations, by name."""

    @property
    def name(self) -> str:
        """Return the model's name."""
        return self.version.name


class Library:
    """The models that a process serves. Its coroutines belong to one event loop.

    Args:
        sources: model directories, directories of runs that have a model, and folders of models.
        limits: of requests; they bound the parameters of operations.
        device: where models go; by default a GPU if there is one.
        exact: see :class:`genlab.inference.engine.Engine`.
        runtime: the same.
        memory_bytes: the most that the weights of all loaded models may take; the least recently used go first. A
            single model may take more.
        require_probes: whether a model without probes is refused; otherwise it is served with a warning in the log.
        forget: is told of each engine that is put away.
        held: is told the bytes that the weights of a model's loaded versions hold, by its name, when they change.

    Raises:
        RunError: a source is none of these, two models have one name, or a URL cannot hold it.
        StorageError: a store cannot be reached.
    """

    def __init__(
        self,
        sources: Sequence[str],
        *,
        limits: Limits,
        device: str | None = None,
        exact: bool | None = None,
        runtime: Runtime = "pytorch",
        memory_bytes: int | None = None,
        require_probes: bool = False,
        forget: Callable[[Engine], None] = lambda engine: None,
        held: Callable[[str, int], None] = lambda name, size: None,
    ) -> None:
        self._singles: dict[str, UPath] = {}
        self._stores: list[ModelStore] = []
        for source in sources:
            self._add(source)
        self._limits, self._device, self._exact, self._runtime = limits, device, exact, runtime
        self._memory_bytes, self._require_probes, self._forget = memory_bytes, require_probes, forget
        self._held = held
        self.evaluations = Evaluations()
        """What was measured of the models."""
        self.editings = Editings()
        """What they have to do with edits."""
        self._models = self._find()
        self._served: dict[tuple[str, str], Served] = {}  # the least recently used first
        self._current: dict[str, tuple[str, str]] = {}
        self._asked: dict[str, float] = {}  # when each of these was last asked for
        self._refused: dict[tuple[str, str], str] = {}
        self._loading: dict[tuple[str, str], asyncio.Task[Served]] = {}
        self._one_at_a_time = asyncio.Lock()
        self.failures: list[str] = []
        """Why models could not be loaded by :meth:`load_all`."""
        self.ready = False
        """Whether each model was tried to load once."""

    @property
    def models(self) -> Mapping[str, StoredModel]:
        """All models by name."""
        return self._models

    @property
    def loaded(self) -> Sequence[Served]:
        """The versions that are loaded, the least recently used first."""
        return list(self._served.values())

    def card(self, model: StoredModel, version: ModelVersion) -> ModelCard:
        """Make the card of a model whose name alone stands for ``version``.

        Raises:
            RunError: its description is damaged.
        """
        return make_card(model, version, self.evaluations.of(version), self.editings.of(version))

    def refusal(self, name: str, version: str) -> str | None:
        """Return why a version does not take traffic; ``None`` if nothing is known against it."""
        return self._refused.get((name, version))

    async def get(self, reference: str) -> Served:
        """Return the model that a name, with or without an alias or a version, stands for, and load it if need be.

        Raises:
            Problem: 404 for what there is not; 503 for a version that was refused, or cannot be loaded now.
        """
        key = self._current.get(reference)
        if key is not None and (served := self._served.get(key)):
            self._served[key] = self._served.pop(key)  # the most recently used is the last
            self._asked[reference] = time.monotonic()
            return served
        if key is None or key[1] not in self._versions_of(key[0]):
            version = self._resolve(reference)
            key = (version.name, version.version)
            if reason := self._refused.get(key):
                raise Problem(503, "version-refused", f"{reference}: this version is not served: {reason}")
        served = await self._load(key)
        self._current[reference] = key
        self._asked[reference] = time.monotonic()
        return served

    async def load_all(self) -> None:
        """Load the models' versions that have no alias, as many as the memory takes; log what cannot be."""
        free = math.inf if self._memory_bytes is None else self._memory_bytes
        for name, model in list(self._models.items()):
            try:
                free -= int(model.find(None).description["weights"]["bytes"])
                if free >= 0 or not self._served:
                    await self.get(name)
            except (Problem, RunError, KeyError) as error:
                failure = error.detail if isinstance(error, Problem) else f"{name}: {error}"
                logger.error("not served: %s", failure)
                self.failures.append(failure)
        self.ready = True

    async def keep_fresh(self) -> None:
        """Look every :data:`REFRESH_SECONDS` for what is new, and switch to it; runs until it is cancelled."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.refresh()
            except Exception as error:  # This must not end: nothing new would be served any more.
                logger.warning("cannot look for new models: %s", error, exc_info=not isinstance(error, GenlabError))

    async def refresh(self) -> None:
        """Look for models, versions and aliases that changed. A new version is loaded and checked before it is used."""
        self._models = await asyncio.to_thread(self._find)
        for key, served in list(self._served.items()):
            if self.editings.of(served.version).directions != served.engine.directions:
                self._served[key] = self._with_directions(served)
        idle = time.monotonic() - IDLE_SECONDS
        for reference, key in list(self._current.items()):
            digits = reference.partition("@")[2]
            if digits and key[1].startswith(digits) and self._asked[reference] < idle:
                del self._current[reference], self._asked[reference]
                continue
            try:
                version = self._models_version(reference)
            except RunError as error:
                logger.warning("%s is not there any more: %s", reference, error)
                del self._current[reference], self._asked[reference]
                continue
            wanted = (version.name, version.version)
            if wanted == key or wanted in self._refused:
                continue
            try:
                await self._load(wanted)
            except Problem as problem:
                logger.error("%s stays at version %s: %s", reference, key[1], problem.detail)
            else:
                logger.info("%s: version %s takes the place of %s", reference, wanted[1], key[1])
                self._current[reference] = wanted
        used = set(self._current.values())
        for key in [key for key in self._served if key not in used]:
            self._put_away(key)

    def _add(self, source: str) -> None:
        try:
            [(name, directory)] = model_directory.find([source]).items()
        except RunError as error:
            if model_directory.describe_if_there(source) is not None:
                raise  # of another format, or damaged
            store = ModelStore(source)
            with contextlib.suppress(RunError):
                if store.catalogue().models:
                    self._stores.append(store)
                    return
            raise RunError(f"{error}, and no folder of models either") from None
        _require_servable(name, directory)
        if name in self._singles:
            raise RunError(f"{source} and {self._singles[name]} would both be served as {name!r}; rename one directory")
        self._singles[name] = directory

    def _find(self) -> dict[str, StoredModel]:
        """Read what there is in the sources."""
        models: dict[str, StoredModel] = {}
        for name, directory in self._singles.items():
            description = model_directory.describe(directory)
            version = version_of(description)
            models[name] = StoredModel(name, {version: ModelVersion(name, version, directory, description)}, {})
        for store in self._stores:
            for name, model in store.catalogue().models.items():
                if name in models:
                    raise RunError(f"{store.root}/{name}: another model is served as {name!r}; rename one of them")
                _require_servable(name, store.root / name)
                models[name] = model
        versions = [version for model in models.values() for version in model.versions.values()]
        self.evaluations.look(versions)
        self.editings.look(versions)
        return models

    def _versions_of(self, name: str) -> Mapping[str, ModelVersion]:
        model = self._models.get(name)
        return model.versions if model else {}

    def _models_version(self, reference: str) -> ModelVersion:
        name, _, which = reference.partition("@")
        if name not in self._models:
            raise RunError(f"no model {name!r}; there are: {', '.join(self._models) or 'none'}")
        return self._models[name].find(which or None)

    def _resolve(self, reference: str) -> ModelVersion:
        try:
            return self._models_version(reference)
        except RunError as error:
            raise Problem(404, "no-such-model", str(error)) from None

    async def _load(self, key: tuple[str, str]) -> Served:
        """Load and check a version, once for all who wait for it."""
        if served := self._served.get(key):
            return served
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(self._load_now(key))
            task.add_done_callback(lambda _: self._loading.pop(key))
        return await asyncio.shield(task)

    async def _load_now(self, key: tuple[str, str]) -> Served:
        name, digits = key
        async with self._one_at_a_time:  # two would take twice the memory, and slow each other down
            version = self._versions_of(name).get(digits)
            if version is None:
                raise Problem(503, "not-loaded", f"{name}@{digits}: this version has just gone", retry_after=1)
            self._make_room(int(version.description["weights"]["bytes"]))
            try:
                served = await asyncio.to_thread(self._open, version)
            except _RefusedError as error:
                self._refused[key] = str(error)
                logger.error("version %s of %s is refused: %s", digits, name, error)
                raise Problem(503, "version-refused", f"{name}@{digits}: this version is not served: {error}") from None
            except GenlabError as error:
                raise Problem(503, "not-loaded", f"{name}@{digits}: {error}", retry_after=REFRESH_SECONDS) from None
            except Exception as error:  # such as no memory on the GPU now
                logger.exception("version %s of %s cannot be loaded", digits, name)
                detail = f"{name}@{digits}: it cannot be loaded ({type(error).__name__}); the server's log says more"
                raise Problem(503, "not-loaded", detail, retry_after=REFRESH_SECONDS) from None
            self._served[key] = served
            self._tell_held(name)
            return served

    def _open(self, version: ModelVersion) -> Served:
        most_cost = EXACT_COST if self._exact is None else math.inf
        engine = Engine(version.directory, self._device, self._exact, most_cost, self._runtime)
        if version_of(model_directory.describe(version.directory)) != version.version:
            raise RunError("it was changed while it was read")
        try:
            report = engine.check_probes()
        except RunError as error:
            raise _RefusedError(str(error)) from None
        if report is None:
            add = "`genlab promote --add-probes` adds some, which the server sees when it starts again"
            without = f"it carries no probes to check it by; {add}"
            if self._require_probes:
                raise _RefusedError(without)
            logger.warning("version %s of %s is served unchecked: %s", version.version, version.name, without)
        engine.warm_up()
        return self._with_directions(Served(version, engine, {}))

    def _with_directions(self, served: Served) -> Served:
        """Return a version with the directions that lie beside it now, and the forms of what may be asked of it."""
        version, editing = served.version, self.editings.of(served.version)
        served.engine.directions = editing.directions
        offered = offered_operations(served.engine.info, editing)
        forms = {name: Form(name, version.name, options, self._limits) for name, options in offered.items()}
        return dataclasses.replace(served, forms=forms)

    def _make_room(self, size: int) -> None:
        """Put away the least recently used models, until ``size`` bytes more are within the limit."""
        if self._memory_bytes is None:
            return
        while self._served and size + sum(served.engine.bytes for served in self._served.values()) > self._memory_bytes:
            self._put_away(next(iter(self._served)))

    def _put_away(self, key: tuple[str, str]) -> None:
        served = self._served.pop(key)
        logger.info("version %s of %s is put away", key[1], key[0])
        self._forget(served.engine)
        self._tell_held(key[0])

    def _tell_held(self, name: str) -> None:
        self._held(name, sum(one.engine.bytes for (model, _), one in self._served.items() if model == name))


class _RefusedError(GenlabError):
    """A version that does not take traffic."""


def _require_servable(name: str, directory: UPath) -> None:
    """Refuse a name that a URL cannot hold.

    Raises:
        RunError: it is so.
    """
    if name in ("", ".", "..") or NOT_IN_NAMES & set(name):
        raise RunError(
            f"{directory} would be served as {name!r}, and a URL cannot hold this name: rename the directory to one "
            f"without any of {' '.join(sorted(NOT_IN_NAMES))}"
        )
