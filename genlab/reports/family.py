"""What a model family adds to the report of a run.

That is a module of ``genlab.reports`` named after the family that defines ``REPORT``. A family without one has its
curves, each metric in a panel, and the pictures that training drew.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from genlab.core.families import defined
from genlab.data.format.manifest import Manifest
from genlab.reports.curves import Panel
from genlab.reports.page import Section
from genlab.reports.run import RunRecord


@dataclass(frozen=True)
class Findings:
    """What a look at a trained model brought."""

    sections: tuple[Section, ...]
    scores: dict[str, Any] = field(default_factory=dict)
    """For ``RUN/scores.json``; plain values, empty for none."""
    notes: tuple[str, ...] = ()
    """What a reader must know before the rest."""


@dataclass(frozen=True)
class FamilyReport:
    """A family's part of the report."""

    panels: tuple[Panel, ...]
    """How its losses are drawn."""
    examine: Callable[[RunRecord, Any], Findings]
    """Looks at a run and its trained model.

    Raises:
        DataError: when the run's data is gone.
    """
    scores: Callable[[Mapping[str, Manifest]], Iterable[str]] = lambda manifests: ()
    """Dotted names of the scores in ``RUN/scores.json`` that ``examine`` will find, by which runs can be compared.

    Args:
        manifests: of each domain's data set; nothing needs to be trained yet.
    """
    warnings: Callable[[RunRecord], Iterable[str]] = lambda run: ()
    """Signs in a run's metrics that training goes wrong, each a sentence; the run need not have a model yet."""


def family_report(family: str) -> FamilyReport | None:
    """The part of ``family``; ``None`` when it has none."""
    part: FamilyReport | None = defined("genlab.reports", family, "REPORT")
    return part
