"""``genlab promote MODEL ROOT --as ALIAS``: put a model under an alias of a folder of models, or roll it back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from upath import UPath

from genlab.core.config import parse
from genlab.core.errors import ConfigError, RunError, run_command
from genlab.core.storage import exists, require_absolute
from genlab.store import aliases, model_directory, probes
from genlab.store.evaluation_file import evaluation_file, find_evaluation
from genlab.store.model_store import DEFAULT_ALIAS, ModelStore, require_name


@dataclass(frozen=True)
class PromoteConfig:
    """Put a model under an alias of a folder of models, or roll an alias back.

    The model is copied into the folder as a version, if it is not there, and replays its probes: one that makes other
    pictures than training's own model did is refused. What `genlab evaluate` measured of it goes with it.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Directory or s3:// URL of a model, or of the run that trained it; or a version that is in ROOT already, as
    NAME@ALIAS or NAME@VERSION. With --back, the NAME of a model in ROOT."""
    root: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ROOT")]
    """Folder or s3:// URL of models; it is made if it is not there."""
    alias: Annotated[str, tyro.conf.arg(name="as")] = DEFAULT_ALIAS
    """The alias. What asks for NAME without one gets NAME@prod."""
    name: str | None = None
    """Name of the model in ROOT; by default that of its run."""
    add_probes: bool = False
    """Have a model without probes, an imported one or one of an earlier version, make them now."""
    back: bool = False
    """Roll the alias back to the version that it had before its last promotion, which replays its probes as a new one
    does; again, to the one before that."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``genlab promote``."""
    run_command(lambda: promote(parse(PromoteConfig, arguments, prog="genlab promote")))


def promote(config: PromoteConfig) -> None:
    """Promote a model or roll an alias back, and print what changed.

    Raises:
        ConfigError: a name or an alias that cannot be one.
        RunError: there is no such model, version or alias; or it is damaged, has no probes, or makes other pictures.
        ClaimError: other processes promote there all the time.
    """
    require_absolute("root", config.root)
    store = ModelStore(config.root)
    if config.back:
        _roll_back(config, store)
        return
    aliases.require_alias(config.alias)
    if "@" in config.model and "/" not in config.model:
        if config.name is not None:
            raise ConfigError(f"--name {config.name}: {config.model} is a model in {store.root} already")
        version = store.resolve(config.model)
        name, directory = version.name, version.directory
    else:
        require_absolute("model", config.model)
        [(found, directory)] = model_directory.find([config.model]).items()
        name = found if config.name is None else config.name
        require_name(name)
    made = _replay(directory, config.add_probes)
    version, new = store.add(name, directory, made)
    if new:
        print(f"{name}: version {version.version} copied to {version.directory}")
    _say_evaluation(name, directory)
    before = aliases.set_alias(store.root, name, config.alias, version.version)
    print(f"{name}@{config.alias}: {_change(before, version.version)}")


def _roll_back(config: PromoteConfig, store: ModelStore) -> None:
    if config.name is not None or config.add_probes:
        raise ConfigError("--back goes with NAME, ROOT and --as alone")
    require_name(config.model)

    def check(version: str) -> None:
        _replay(store.resolve(f"{config.model}@{version}").directory, False)

    before, now = aliases.roll_back(store.root, config.model, config.alias, check)
    print(f"{config.model}@{config.alias}: {_change(before, now)}")


def _replay(directory: UPath, add: bool) -> probes.Probes | None:
    """Check the probes of a model, and print how; make them where there are none and ``add`` says so."""
    model = model_directory.load(directory)
    report = probes.check(directory, model)
    if report is not None:
        print(f"{directory}: {report}")
        return None
    if not add:
        raise RunError(
            f"{directory}: has no probes, by which it is seen that a copy makes the same pictures; --add-probes makes "
            "them, of what it makes on this machine"
        )
    made = probes.make(model)
    print(f"{directory}: {len(made.cases)} probes made, on this machine")
    return made


def _say_evaluation(name: str, directory: UPath) -> None:
    """Print whether what was measured of a model went with it."""
    file = evaluation_file(directory)
    if find_evaluation(directory, model_directory.describe(directory)) is not None:
        print(f"{name}: with its evaluation")
    elif exists(file):
        print(f"{name}: without {file}, which is of other weights; evaluate the model and promote it again")


def _change(before: str | None, now: str) -> str:
    if before == now:
        return f"{now}, as before"
    return now if before is None else f"{now}, before {before}"
