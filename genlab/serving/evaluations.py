"""How good served models are, for their cards: what ``genlab evaluate`` measured of them. Nothing is measured here."""

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from genlab.core.errors import RunError
from genlab.serving.schema import Quality
from genlab.store.evaluation_file import evaluation_file, find_evaluation, parse_evaluation
from genlab.store.model_store import READERS, ModelVersion

logger = logging.getLogger(__name__)

MEASUREMENTS = ("kid", "fid_infinity")
"""Measurements that cards show; of a translator, those of each direction too."""
AGAIN_SECONDS = 60.0
"""Seconds after which it is looked again for the evaluation of a version."""


class Evaluations:
    """The evaluations of versions of models, read again about every minute. Thread-safe."""

    def __init__(self) -> None:
        self._found: Mapping[tuple[str, str], tuple[float, Sequence[Quality]]] = {}

    def look(self, versions: Iterable[ModelVersion]) -> None:
        """Read the evaluations of these versions, and forget others. One that is damaged is logged.

        Raises:
            StorageError: the storage cannot be reached.
        """
        now, found, due = time.monotonic(), {}, []
        for version in versions:
            read = self._found.get(_key(version))
            if read is not None and now - read[0] < AGAIN_SECONDS:
                found[_key(version)] = read
            else:
                due.append(version)
        with ThreadPoolExecutor(READERS, thread_name_prefix="evaluations") as readers:
            found |= {_key(one): (now, read) for one, read in zip(due, readers.map(_read, due), strict=True)}
        self._found = found

    def of(self, version: ModelVersion) -> Sequence[Quality]:
        """Return what was measured of a version; nothing if it was not evaluated."""
        return self._found.get(_key(version), (0.0, ()))[1]


def _key(version: ModelVersion) -> tuple[str, str]:
    return str(version.directory), version.version


def _read(version: ModelVersion) -> Sequence[Quality]:
    try:
        content = find_evaluation(version.directory, version.description)
        if content is None:
            return ()
        file = evaluation_file(version.directory)
        figures: Any = parse_evaluation(file, content).get("figures")
        try:
            return tuple(_quality(name, figures[name]) for name in _shown(figures))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{file}: damaged ({error}); evaluate the model again") from None
    except RunError as error:
        logger.warning("the card of %s shows no evaluation: %s", version.name, error)
        return ()


def _shown(figures: Mapping[str, Any]) -> list[str]:
    """Return the names of the measurements that cards show, those of both directions together first."""
    kinds = [(name, kind) for name in figures for kind in MEASUREMENTS if name == kind or name.startswith(f"{kind}_")]
    return [name for name, _ in sorted(kinds, key=lambda one: (one[0] != one[1], MEASUREMENTS.index(one[1]), one[0]))]


def _quality(name: str, figure: Mapping[str, Any]) -> Quality:
    settings, interval = figure["passport"], figure["interval"]
    return Quality(
        name=name,
        title=figure["title"],
        value=figure["value"] if math.isfinite(figure["value"]) else None,
        interval=interval if interval is not None and all(map(math.isfinite, interval)) else None,
        images=settings.get("samples"),
        extractor=settings["extractor"],
        caution=figure["caution"],
        settings=settings,
    )
