"""The part of a report that a model family adds.

It is defined as ``REPORT`` in the module of ``genlab.reports`` that is named after the family. The report of a family
without one has its curves, each metric in a panel, what the model can do (``operations``), and the pictures that
training drew.
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
class ModelReport:
    """The part of a report that is about the trained model: sections, scores and notes."""

    sections: tuple[Section, ...]
    scores: dict[str, Any] = field(default_factory=dict)
    """Contents of ``RUN/scores.json``: plain values; empty for none."""
    notes: tuple[str, ...] = ()
    """Notes at the head of the report."""


@dataclass(frozen=True)
class FamilyReport:
    """The functions and panels of a family."""

    panels: tuple[Panel, ...]
    """Panels in which its losses are drawn."""
    report_model: Callable[[RunRecord, Any], ModelReport]
    """Reports on a run's trained model.

    Raises:
        DataError: when the run's data is gone.
    """
    scores: Callable[[Mapping[str, Manifest]], Iterable[str]] = lambda manifests: ()
    """Names the scores, dotted, that ``report_model`` will write to ``RUN/scores.json``: runs can be ranked by them.

    Args:
        manifests: the manifest of each domain's data set; nothing needs to be trained yet.
    """
    warnings: Callable[[RunRecord], Iterable[str]] = lambda run: ()
    """Finds signs in a run's metrics that training goes wrong, each a sentence; the run need not have a model yet."""


def family_report(family: str) -> FamilyReport | None:
    """Return the part of ``family``; ``None`` when it has none."""
    part: FamilyReport | None = defined("genlab.reports", family, "REPORT")
    return part
