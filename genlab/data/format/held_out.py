"""The one rule for held-out rows: which of them choices are made on, and which results are reported on.

Checkpoints are chosen on the split ``validation`` and reported on the test split. A data set without that split gives
half of its test split, by a hash of the keys; the halves are named like splits, ``test:validation`` and
``test:reporting``, see :meth:`genlab.data.format.shards.ShardSet.part`. Rows that are trained on are never touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from genlab.data.format.shards import ShardSet
from genlab.data.format.splits import VALIDATION, half_name, overlap, whole_split

FEWEST_OF_HALF = 25
"""The fewest rows of each half of a test split, in every domain; a smaller split is not divided."""


@dataclass(frozen=True)
class HeldOutSplits:
    """The splits, or halves of one, that a model is measured on; they hold for all of its domains."""

    choice: str | None
    """Where checkpoints are chosen; ``None`` where none is."""
    report: str
    """Where results are reported. Without a test split it is the split that is trained on."""
    sealed: Annotated[bool, Field(exclude_if=lambda sealed: not sealed)] = False
    """Whether nothing is read where results are reported: the run is one of several of which one is chosen, and only
    that one will be measured there."""

    @property
    def shown(self) -> str:
        """Where a run's own metrics, pictures and report are of."""
        return self.choice if self.sealed and self.choice is not None else self.report

    @property
    def shared(self) -> bool:
        """Whether results are reported on images that a checkpoint was chosen on."""
        return self.choice is not None and overlap(self.choice, self.report)

    def kind(self, test_split: str) -> str:
        """Return the first part of the names of metrics of the rows of ``choice``, as in ``val/kid``.

        Args:
            test_split: name of the test split.

        Returns:
            ``val`` where results are reported on other rows; else ``test``, or ``train`` where none are held out.
        """
        if not self.shared:
            return "val"
        return "test" if whole_split(self.report) == test_split else "train"


def held_out_splits(domains: Sequence[ShardSet], test_split: str, split: str, *, choosing: bool) -> HeldOutSplits:
    """Say which rows of data sets a model is chosen on, and which it is reported on.

    Args:
        domains: the data set of each domain, with all splits.
        test_split: the split that is held out from training.
        split: the split that is trained on.
        choosing: whether checkpoints are chosen. A test split is divided for that only.

    Returns:
        ``report`` is the test split where every domain has one, else ``split``. ``choice`` is the split
        ``validation`` where every domain has one. Else, for checkpoints to be chosen, both are halves of the test split
        where each half has :data:`FEWEST_OF_HALF` rows in every domain; and otherwise both are ``report``.

    Raises:
        DataError: a shard of a test split that is to be divided is missing or damaged.
    """

    def all_have(name: str) -> bool:
        return all(name in shards.manifest.splits for shards in domains)

    report = test_split if all_have(test_split) else split
    if split != VALIDATION and all_have(VALIDATION):
        return HeldOutSplits(VALIDATION, report)
    if not choosing:
        return HeldOutSplits(None, report)
    if report != split:
        choice, rest = half_name(report, "validation"), half_name(report, "reporting")
        if all(len(shards.part(half)) >= FEWEST_OF_HALF for shards in domains for half in (choice, rest)):
            return HeldOutSplits(choice, rest)
    return HeldOutSplits(report, report)
