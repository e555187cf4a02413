"""Search spaces: plain declarations of what varies and what is measured."""

import importlib.util
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from genlab.core.errors import ConfigError
from genlab.recipes.recipe import preset_values


@dataclass(frozen=True)
class Space:
    """A grid over some options of a family's config. The file of a search space assigns one to ``SPACE``."""

    family: str
    """Name of the model family."""
    vary: Mapping[str, Sequence[Any]]
    """The values each option takes, by its dotted name; every combination is a trial. ``preset`` stands for the names
    of presets of the family, whose options no option beside it changes back."""
    metric: str
    """The number that trials are compared by: a metric of the trained model, such as ``val/neg_elbo`` or
    ``test/neg_elbo``, or a score of its report, such as ``score/translation.a_to_b.gain``."""
    mode: Literal["min", "max"]
    """Whether the lowest or the highest number is the best."""
    base: Mapping[str, Any] = field(default_factory=dict)
    """Options that are the same in all trials and differ from the family's defaults; ``preset`` as in ``vary``."""

    def points(self) -> Iterator[dict[str, Any]]:
        """Yield every combination of values; the last option varies fastest."""
        for values in itertools.product(*self.vary.values()):
            yield dict(zip(self.vary, values, strict=True))

    def options(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a point or of ``base``, by dotted name, those of its preset among them.

        Raises:
            ConfigError: when the family has no such preset.
        """
        options = dict(point)
        preset = options.pop("preset", None)
        return options if preset is None else dict(preset_values(self.family, preset)) | options


def load_space(path: str) -> Space:
    """Load the ``SPACE`` of a Python file.

    Raises:
        ConfigError: when there is no such file, or it declares no space.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"{path}: no such file; give the path of a search space, which genlab sweep --help explains")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    space = getattr(module, "SPACE", None)
    if not isinstance(space, Space):
        raise ConfigError(f"{path}: declares no SPACE = Space(...)")
    return space
