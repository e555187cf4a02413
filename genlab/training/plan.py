"""The plan of a run: all that can be checked and decided before a worker starts."""

import dataclasses
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from upath import UPath

from genlab import __version__
from genlab.core.claims import Claim, claimed, is_claim_file
from genlab.core.config import differences, from_dict, to_dict, validate
from genlab.core.errors import ConfigError, DataError, RunError
from genlab.core.storage import exists, is_remote, locate, names, read_json, require_absolute, write_json
from genlab.data.format.held_out import HeldOutSplits, held_out_splits
from genlab.data.format.manifest import FILE_NAME as MANIFEST
from genlab.data.format.shards import ShardSet
from genlab.data.format.splits import whole_split
from genlab.data.format.writer import BLOCK_BYTES
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.stream.cache import BlockCache
from genlab.data.stream.order import RULE, evenly_spaced
from genlab.data.stream.readahead import order_constants
from genlab.evaluation.checkpoint_evaluations import best_step
from genlab.evaluation.features import FEWEST
from genlab.imaging.value_range import ValueRange
from genlab.recipes.options import Data, Run
from genlab.recipes.recipe import DomainInfo, Recipe, Spread, check_networks, recipe_type
from genlab.recipes.workers import least_of
from genlab.store import model_directory
from genlab.training.beginning import Beginning, beginning_at, state_of_beginning
from genlab.training.branch import BRANCHED_FROM, Branch, recorded_branch
from genlab.training.checkpoints import Checkpoints
from genlab.training.step_context import NUMBERS_AT_ONCE

SYNTHETIC = "synthetic:"
SYNTHETIC_FOLDER = "data"
"""Folder in the runs folder for the data sets that genlab draws itself (``synthetic:...``)."""
REMOTE_WINDOW, LARGEST_REMOTE_WINDOW = 256 * 2**20, 1024 * 2**20
"""Default size, in bytes, of the shuffle window for a data set on an object store: as many blocks as a global batch has
rows, so that each worker reads blocks of its own, but not less and not more than these."""
NOISE = "noise"
"""The key in ``config.json`` under which stands how a run draws row noise."""
HELD_OUT = "held_out"
"""The key in ``config.json`` under which stand the held-out rows of a run."""
SPREAD_ROWS = 4096
"""The most rows that the spread of a column is measured on."""
TEST_FRACTION = 0.1
"""Fraction of such a data set that is its test split."""
WORK = "training"
"""What the claim on a run directory is for, see :mod:`genlab.core.claims`."""


@dataclass(frozen=True)
class DomainPlan:
    """The data set of one domain, with the checksum that its manifest had when the run was planned."""

    url: str
    checksum: str
    info: DomainInfo
    window: int
    """Bytes of the shuffle window, see :class:`genlab.data.stream.shard_stream.ShardStream`; 0 shuffles all rows."""
    order: int = RULE
    """The rule of the order of rows, see :data:`genlab.data.stream.order.RULE`."""
    value_range: ValueRange | None = None
    """The values that became 0 and 255 in images of more than 8 bits; ``None``: it was ingested without a range."""

    @property
    def provenance(self) -> dict[str, Any]:
        """The entry of the data set in a model's description: path, checksum and range of values."""
        value_range = {} if self.value_range is None else {"value_range": list(self.value_range)}
        return {"path": self.url, "checksum": self.checksum, **value_range}

    def open(self, split: str, *, threads: int = 2, cache: BlockCache | None = None) -> ShardSet | None:
        """Open the rows of ``split``; ``None`` when the data set has no such split.

        A process reads the manifest once.

        Args:
            split: name of the split, or of one half of it.
            threads: see :meth:`ShardSet.open`.
            cache: see :meth:`ShardSet.open`.

        Raises:
            DataError: when the data set has changed since the run was planned.
        """
        shards = _opened(self.url, self.checksum).reader(threads=threads, cache=cache)
        return shards.part(split) if whole_split(split) in shards.manifest.splits else None


@lru_cache(maxsize=16)
def _opened(url: str, checksum: str) -> ShardSet:
    """Open a data set that has this checksum; see :meth:`DomainPlan.open`."""
    shards = ShardSet.open(url)
    if shards.checksum != checksum:
        raise DataError(f"{url}: the data set was changed while the run was using it")
    return shards


@dataclass(frozen=True)
class Plan:
    """All that a worker needs to know of a run."""

    family: str
    config: Any
    """The family's config dataclass."""
    directory: str
    """URL of the run directory."""
    domains: dict[str, DomainPlan]
    steps: int
    """Steps of the whole run."""
    held_out: HeldOutSplits
    """The rows that checkpoints are chosen on, and those that results are reported on."""
    group: int = 1
    """Neighbouring rows of a global batch that belong together, see :class:`genlab.recipes.recipe.Recipe`."""
    init: Beginning | None = None
    """The weights that the run begins with; ``None`` for new ones."""
    branch: Branch | None = None
    """The checkpoint of another run that the run goes on from while it has none of its own."""
    advice: tuple[str, ...] = ()
    """Sentences for the user as the run starts."""
    numbers_at_once: int | None = NUMBERS_AT_ONCE
    """How row noise is drawn, see :class:`genlab.training.step_context.LoopStepContext`."""
    rungs: tuple[int, ...] = ()
    """Steps before the last, multiples of ``run.log_every``, after which the run is measured, writes a checkpoint and
    may be told to stop there, see :meth:`genlab.training.session.Session.reach`."""
    spared: tuple[int, ...] = ()
    """Steps whose checkpoints stay beside the newest ones, since other runs branch off them."""
    claim: Claim | None = None
    """The claim on the run directory, see :func:`owned`; ``None`` if nothing else can write there."""

    @property
    def run(self) -> Run:
        """The config's run section."""
        run: Run = self.config.run
        return run

    @property
    def rows(self) -> int:
        """The rows of an epoch: those of the longest domain."""
        return max(domain.info.rows for domain in self.domains.values())

    @property
    def held_out_split(self) -> str:
        """The split, or half of one, whose rows pictures are of."""
        return self.held_out.shown

    @property
    def has_test_rows(self) -> bool:
        """Whether results are reported on rows of the test split, by this run."""
        test_split: str = self.config.data.test_split
        return whole_split(self.held_out.report) == test_split and not self.held_out.sealed

    @property
    def measured_splits(self) -> dict[str, str]:
        """The splits, or halves of one, that the recipe's test metrics are of, by the kind of metric.

        ``test``: the rows that results are reported on. ``val``: those that choices are made on, where there are such.
        """
        choice = self.held_out.choice
        found = {} if choice is None or self.held_out.shared else {"val": choice}
        return found | ({"test": self.held_out.report} if self.has_test_rows else {})

    @property
    def evaluation_kind(self) -> str:
        """First part of the names of what evaluated checkpoints are measured at: ``val``, as in ``val/kid``."""
        return self.held_out.kind(self.config.data.test_split)

    def accumulate(self, world_size: int) -> int:
        """Return the number of parts that each of ``world_size`` workers computes its rows of a global batch in.

        Where the number of workers may fall, parts follow: a worker computes no more rows at once than it does when
        there are most workers, so that its memory is bounded. Where that is a single row or group of rows, it may be
        two, as each part of each worker needs one.
        """
        run, groups = self.run, self.run.batch // self.group
        if least_of(run.workers) == run.workers:
            return run.accumulate
        at_once = math.ceil(groups / (run.workers * run.accumulate))
        parts = math.ceil(math.ceil(groups / world_size) / at_once)
        return min(parts, groups // world_size)

    def epoch(self, step: int) -> float:
        """Return the number of epochs that ``step`` steps make."""
        return step * self.run.batch / self.rows

    def ends_epoch(self, step: int) -> bool:
        """Return whether an epoch ends with step number ``step``, counted from 1."""
        batch, rows = self.run.batch, self.rows
        return step * batch // rows > (step - 1) * batch // rows


def default_storage() -> str:
    """Return the default folder of runs: ``$GENLAB_RUNS``, else ``genlab-runs`` in the home folder."""
    return os.environ.get("GENLAB_RUNS") or "~/genlab-runs"


def check_name(name: str) -> None:
    """Refuse the name of a run or sweep that would not lie in the folder of runs, or where data sets lie there.

    Raises:
        ConfigError: with the reason.
    """
    if "/" in name or name.startswith("."):
        raise ConfigError(f"run.name = {name!r}: a name, not a path; run.storage is the folder it lies in")
    if name == SYNTHETIC_FOLDER:
        raise ConfigError(f"run.name = {name!r}: taken, drawn data sets lie there; choose another")


def make_plan(family: str, config: Any, *, sealed: bool = False, branch: Branch | None = None) -> Plan:
    """Check a config and its data, and make the plan of its run.

    The order of its rows, the noise of these and the held-out rows are those that it began with, or the run that it
    branched off.

    Args:
        family: the family.
        config: its config.
        sealed: whether the run is one of several of which one is chosen: it is measured on the rows that choices are
            made on, and not on those that results are reported on, see :class:`HeldOutSplits`.
        branch: the checkpoint of another run that it branches off, unless its ``config.json`` names one.

    Raises:
        ConfigError, DataError: when they do not allow a run; the message names the option or file.
    """
    config = validate(config)
    run: Run = config.run
    storage = run.storage or default_storage()
    require_absolute("run.storage", storage)
    root = locate(storage)
    name = run.name or f"{family}-{time.strftime('%Y%m%d-%H%M%S')}"
    check_name(name)
    if config.data.cache:
        require_absolute("data.cache", config.data.cache)
    branch = recorded_branch(root / name) or branch
    begun = _begun(root / name, branch)
    domains = {}
    for domain, url in config.data.domains.items():
        if not url.startswith(SYNTHETIC):
            require_absolute(f"data.{domain}", url)
        measured = recipe_type(family).measured_columns(config)
        domains[domain] = _plan_domain(domain, url, config, measured, root, begun)
    infos = {domain: data_set.info for domain, data_set in domains.items()}
    recipe = build_on_meta(family, config, infos)
    group = recipe.group
    init = beginning_at(root / name, run.init, family)
    if init is not None and not exists(root / name / "config.json"):
        state_of_beginning(init, recipe)  # raises for another architecture
    for domain, info in infos.items():
        if run.batch > info.rows:
            raise ConfigError(
                f"run.batch = {run.batch} is larger than data.{domain}, which has {info.rows} rows "
                f"in split {config.data.split!r}; use a smaller batch"
            )
    if run.batch % group:
        raise ConfigError(f"run.batch = {run.batch}: must be a multiple of {group}, the rows of a group of {family}")
    if run.batch < max(1, run.workers) * run.accumulate * group:
        parts = f", in each of run.accumulate = {run.accumulate} parts" if run.accumulate > 1 else ""
        least = "a row" if group == 1 else f"a group of {group} rows"
        raise ConfigError(
            f"run.batch = {run.batch}: a global batch needs {least} for each of {max(1, run.workers)} workers{parts}"
        )
    rows = max(info.rows for info in infos.values())
    if run.steps is None and run.epochs is None:
        raise ConfigError("run.epochs, run.steps: give one of them, a run must end")
    steps = run.steps if run.steps is not None else math.ceil((run.epochs or 0) * rows / run.batch)
    config = dataclasses.replace(config, run=dataclasses.replace(run, name=name, storage=str(root)))
    held_out = _held_out(config, domains, begun, sealed)
    advice = tuple(recipe.advice())
    plan = Plan(family, config, str(root / name), domains, steps, held_out, group, init, branch, advice)
    if begun:  # Runs of earlier versions drew the noise of a global batch with one seed, and go on so.
        plan = dataclasses.replace(plan, numbers_at_once=begun.get(NOISE, {}).get("numbers_at_once"))
    if run.evaluate_every:
        _check_evaluation(plan)
    return plan


def _begun(directory: UPath, branch: Branch | None) -> dict[str, Any]:
    """Return the ``config.json`` of a run, or else of the run that it branches off; an empty one if it begins anew."""
    for one in (directory, *([locate(branch.path)] if branch else ())):
        if exists(one / "config.json"):
            found: dict[str, Any] = read_json(one / "config.json")
            return found
    return {}


def _check_evaluation(plan: Plan) -> None:
    """Refuse ``run.evaluate_every`` where checkpoints cannot be evaluated beside training."""
    if not recipe_type(plan.family).ranked_by:
        raise ConfigError(f"run.evaluate_every: not for {plan.family}, whose test metrics are measured every epoch")
    split = plan.held_out.choice or plan.held_out.report
    for name, domain in plan.domains.items():
        if len(domain.open(split) or ()) < FEWEST:
            raise ConfigError(
                f"run.evaluate_every: data.{name} has too few images in split {split!r}; {FEWEST} are needed"
            )


def build_on_meta(family: str, config: Any, domains: Mapping[str, DomainInfo]) -> Recipe[Any]:
    """Build the recipe with its networks on the meta device: with shapes, but without values.

    Raises:
        ConfigError: when config and data do not fit each other, or the recipe lacks what training needs.
    """
    try:
        with torch.device("meta"), _WithoutInitialisation():
            recipe = recipe_type(family)(config, domains)
    except ValueError as error:
        raise ConfigError(f"{', '.join(f'data.{domain}' for domain in domains)}: {error}") from None
    check_networks(family, recipe)
    return recipe


class _WithoutInitialisation(TorchFunctionMode):
    """A context without weight initialisation, which on the meta device takes longer than on a CPU."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__module__", None) == "torch.nn.init":
            return (args or (kwargs["tensor"],))[0]
        return function(*args, **(kwargs or {}))


def _plan_domain(
    domain: str, url: str, config: Any, measured: Sequence[str], storage: UPath, begun: Mapping[str, Any]
) -> DomainPlan:
    options: Data = config.data
    if url.startswith(SYNTHETIC):
        url = _ingest_synthetic(url, storage)
    url = str(locate(url))
    try:
        shards = ShardSet.open(url).split(options.split)
    except DataError as error:
        raise DataError(f"data.{domain}: {error}") from None
    if shards.shape is None:
        raise DataError(f"data.{domain}: {url} holds images of different sizes; ingest it with --size")
    info = DomainInfo.of(shards.manifest, len(shards))
    info = dataclasses.replace(info, spreads=_spreads(shards, measured))
    earlier = begun.get("data", {}).get(domain, {}) if begun else None
    window = _window(shards.remote, options, config.run.batch, earlier)
    rule = RULE if earlier is None else earlier.get("order", {}).get("rule", 1)
    return DomainPlan(url, shards.checksum, info, window, rule, shards.manifest.value_range)


def _spreads(shards: ShardSet, names: Sequence[str]) -> dict[str, Spread]:
    """Return mean and deviation of the columns of numbers that are named, over rows all over the split."""
    numbers = [one.name for one in shards.manifest.attributes if one.name in names and one.kind != "category"]
    if not numbers:
        return {}
    columns = shards.columns(evenly_spaced(len(shards), SPREAD_ROWS))
    return {name: Spread(float(columns[name].mean()), float(columns[name].std())) for name in numbers}


def _window(remote: bool, options: Data, batch: int, earlier: Mapping[str, Any] | None) -> int:
    """Return the size in bytes of the shuffle window: the option, else that of the run so far, else the default.

    Args:
        remote: whether the data set is on an object store.
        options: the options of the data.
        batch: rows of a global batch.
        earlier: what ``config.json`` says of the data set, if there is one.
    """
    if options.window is not None:
        return int(options.window * 2**20)
    if earlier is not None:
        return int(earlier.get("window", 0))
    return remote_window(batch) if remote else 0


def remote_window(batch: int) -> int:
    """Return the default size of the shuffle window in bytes, for a data set on an object store and a global batch."""
    return min(max(REMOTE_WINDOW, batch * BLOCK_BYTES), LARGEST_REMOTE_WINDOW)


def _held_out(config: Any, domains: Mapping[str, DomainPlan], begun: Mapping[str, Any], sealed: bool) -> HeldOutSplits:
    """Return the held-out rows of a run: those it began with, else those of the rule.

    A run that evaluated checkpoints before there was a rule chose them on the rows that its results are of.
    """
    run, data = config.run, config.data
    data_sets = [ShardSet.open(domain.url) for domain in domains.values()]

    def by_rule(choosing: bool) -> HeldOutSplits:
        found = held_out_splits(data_sets, data.test_split, data.split, choosing=choosing or sealed)
        return dataclasses.replace(found, sealed=sealed)

    before = {name: one["checksum"] for name, one in begun.get("data", {}).items()}
    if before != {name: domain.checksum for name, domain in domains.items()}:
        return by_rule(bool(run.evaluate_every))
    if HELD_OUT in begun:
        earlier = HeldOutSplits(**begun[HELD_OUT])
        return by_rule(choosing=True) if run.evaluate_every and earlier.choice is None else earlier
    if any(attempt["run"].get("evaluate_every") for attempt in begun["attempts"]):
        report = by_rule(choosing=False).report
        return HeldOutSplits(report, report)
    return by_rule(bool(run.evaluate_every))


def _ingest_synthetic(source: str, storage: UPath) -> str:
    """Ingest a ``synthetic:`` source into the runs folder, unless it is there; return the data set's URL."""
    destination = storage / SYNTHETIC_FOLDER / source.removeprefix(SYNTHETIC)
    if not exists(destination / MANIFEST):
        ingest(IngestConfig(source=source, dest=str(destination), test_fraction=TEST_FRACTION))
    return str(destination)


def finished_step(plan: Plan) -> int | None:
    """Return the step at which an earlier run of this name ended, its last checkpoint and its model written.

    Return ``None`` when there is no such run, it has not ended, or ``plan`` has more steps.
    """
    directory = locate(plan.directory)
    steps = Checkpoints(directory / "checkpoints", plan.run.keep).steps()
    if not steps or steps[-1] < plan.steps:
        return None
    try:
        exported = model_directory.describe(directory / "model")["provenance"]["step"]
    except RunError:  # the run was killed before it wrote its model
        return None
    complete = exported == steps[-1] or (
        plan.run.evaluate_every and exported == best_step(directory, recipe_type(plan.family).ranked_by, steps[-1])
    )
    return steps[-1] if complete else None


def earlier_config(plan: Plan) -> dict[str, Any] | None:
    """Return the ``config.json`` of an earlier run of this name; ``None`` when there is none.

    Raises:
        RunError: when that run is of another family, config or data, or the folder holds something else.
    """
    directory = locate(plan.directory)
    file = directory / "config.json"
    if not exists(file):
        # Some files do not count: a run that was killed while it wrote its config.json leaves a hidden part of one.
        there = [] if is_remote(directory) else names(directory)
        if any(name[0] != "." and not is_claim_file(name, WORK) for name in there):
            raise RunError(f"{directory} holds something else than a run; choose another run.name")
        return None
    found: dict[str, Any] = read_json(file)
    for fault in _conflicts(plan, found):
        raise RunError(f"run.name = {plan.run.name!r} is taken: {directory} {fault}; choose another run.name")
    return found


@contextmanager
def owned(plan: Plan, otherwise: str = "choose another run.name") -> Iterator[Plan]:
    """Hold the claim on the run directory: one process at a time starts the run or goes on with it.

    Args:
        plan: the run.
        otherwise: what a user may do instead of waiting until another process ends, for the message of a refusal.

    Yields:
        The plan with the claim, by which the workers know whether their driver still holds it.

    Raises:
        ClaimError: another process holds the claim.
    """
    with claimed(locate(plan.directory), WORK, otherwise) as claim:
        yield dataclasses.replace(plan, claim=claim)


def start_or_resume(plan: Plan) -> list[str]:
    """Start the run, or resume an earlier one of its name: write its ``config.json`` with this attempt added.

    Returns:
        Messages for the user: whether the run starts or goes on, and what changed.

    Raises:
        RunError: when the name belongs to a run of another family, config or data.
    """
    before = earlier_config(plan)
    directory = locate(plan.directory)
    attempt = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "genlab": __version__,
        "torch": torch.__version__,
        "steps": plan.steps,
        "run": to_dict(plan.run),
    }
    attempts = [*before["attempts"], attempt] if before else [attempt]
    content = {
        "family": plan.family,
        "config": to_dict(plan.config),
        "data": _data(plan),
        HELD_OUT: to_dict(plan.held_out),
        **({NOISE: {"numbers_at_once": plan.numbers_at_once}} if plan.numbers_at_once else {}),
        **({"init": to_dict(plan.init)} if plan.init else {}),
        **({BRANCHED_FROM: to_dict(plan.branch)} if plan.branch else {}),
        "attempts": attempts,
    }
    write_json(directory / "config.json", content)
    if before is None:
        return [f"run {directory}"]
    begun = Checkpoints(directory / "checkpoints", plan.run.keep).steps()
    messages = [
        f"run {directory}: " + ("goes on where it stopped" if begun else "starts anew, it has no checkpoint yet")
    ]
    version = before["attempts"][-1]["genlab"]
    if version != __version__:
        messages.append(f"it was last run by genlab {version}, this is {__version__}")
    return messages


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _data(plan: Plan) -> dict[str, dict[str, Any]]:
    """Return what ``config.json`` says of the data sets, by domain.

    With it stand the constants of genlab that the order of its rows depends on.
    """
    return {
        name: {
            "path": domain.url,
            "checksum": domain.checksum,
            "window": domain.window,
            **({"order": constants} if (constants := order_constants(bool(domain.window), domain.order)) else {}),
        }
        for name, domain in plan.domains.items()
    }


def _conflicts(plan: Plan, found: dict[str, Any]) -> list[str]:
    """Return the first reason why the run whose ``config.json`` is ``found`` cannot go on as ``plan``, if any."""
    if found["family"] != plan.family:
        return [f"is a run of family {found['family']!r}"]
    before = from_dict(type(plan.config), found["config"])
    changed = differences(before, plan.config)
    if changed:
        shown = ", ".join(f"{name} was {old!r}, now {new!r}" for name, (old, new) in changed.items())
        return [f"was started with another config ({shown})"]
    for name, facts in _data(plan).items():
        if facts["checksum"] != found["data"][name]["checksum"]:
            return [f"was trained on other data (data.{name} was {found['data'][name]['path']}, of another checksum)"]
        if facts["window"] != found["data"][name].get("window", 0):
            before_mib, now_mib = (one / 2**20 for one in (found["data"][name].get("window", 0), facts["window"]))
            return [f"was shuffled otherwise (data.window of {name} was {before_mib:g} MiB, now {now_mib:g})"]
        order, their_order = facts.get("order", {}), found["data"][name].get("order")
        if their_order not in (None, order):  # Runs from before they were recorded have none.
            version = found["attempts"][-1]["genlab"]
            return [
                f"was shuffled otherwise by genlab {version} (order of data.{name}: {_listed(their_order)}, now "
                f"{_listed(order)})"
            ]
    steps = found["attempts"][-1]["steps"]
    if steps != plan.steps and plan.config.optimization.schedule != "constant":
        return [f"was to end after {steps} steps, on which its learning-rate schedule depends, now {plan.steps}"]
    return []
