"""How good served models are, for their cards: what ``genlab evaluate`` measured of them. Nothing is measured here."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from genlab.core.errors import RunError
from genlab.serving.beside import Beside
from genlab.serving.schema import Quality
from genlab.store.evaluation_file import evaluation_file, find_evaluation, parse_evaluation
from genlab.store.model_store import ModelVersion

logger = logging.getLogger(__name__)

MEASUREMENTS = ("kid", "fid_infinity")
"""Measurements that cards show; of a translator, those of each direction too."""


class Evaluations(Beside[Sequence[Quality]]):
    """What was measured of versions of models; nothing of those that were not evaluated."""

    def __init__(self) -> None:
        super().__init__(_read, ())


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
