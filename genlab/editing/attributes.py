"""What a trained classifier reads of pictures, as one number for each axis."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from genlab.core.errors import ConfigError
from genlab.data.format.shards import ShardSet
from genlab.data.stream.batches import read_batch
from genlab.models.classifier import LABEL, Classifier
from genlab.models.model import images_per_pass
from genlab.store.directions import Axis

Read = Callable[[Tensor], Tensor]
"""A function from pixels, uint8 [N, H, W, C], to what is read on A axes, float64 [N, A] on the CPU."""


def axes_of(attribute: str, classes: Sequence[str]) -> list[Axis]:
    """Return the axes of an attribute.

    Args:
        attribute: its name.
        classes: names of its classes; none for a number.

    Returns:
        One for a number or for two classes, of which it is the second; one for each of more classes.
    """
    if not classes:
        return [Axis(attribute, attribute)]
    if len(classes) == 2:
        return [Axis(attribute, attribute, classes[1], classes[0])]
    return [Axis(f"{attribute}={name}", attribute, name) for name in classes]


class AttributeReader:
    """Reads attributes of pictures by a classifier.

    Args:
        classifier: what predicts them.
        columns: name of the column of each attribute, by the attribute's name.
        label_names: names of the classes of the label.
        mirrored: whether the mean of what is read of a picture and of its mirror image is what is read, which errs
            less: for a classifier that was trained on mirror images, too.

    Raises:
        ConfigError: the classifier does not predict one of the columns.
    """

    def __init__(
        self,
        classifier: Classifier,
        columns: Mapping[str, str],
        label_names: Sequence[str],
        *,
        mirrored: bool = False,
    ) -> None:
        self.classifier = classifier
        self.columns = dict(columns)
        self.mirrored = mirrored
        self.classes: dict[str, tuple[str, ...]] = {}
        """Names of the classes of each attribute; none for a number."""
        known = {LABEL: tuple(label_names)} if classifier.architecture.classes else {}
        known |= {target.name: target.classes for target in classifier.architecture.targets}
        for attribute, column in columns.items():
            if column not in known:
                raise ConfigError(f"classifier: it does not predict {attribute!r}; it does: {', '.join(known)}")
            self.classes[attribute] = known[column]
        self.axes: list[Axis] = [axis for name, classes in self.classes.items() for axis in axes_of(name, classes)]
        """The axes of all attributes."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """Read uint8 [N, H, W, C]: float64 [N, axes] on the CPU, in the units of the axes."""
        found = self._on_axes(self.classifier.predict(pixels))
        if self.mirrored:
            found = (found + self._on_axes(self.classifier.predict(pixels.flip(2)))) / 2
        return found.cpu()

    def of_images(self, images: Tensor) -> Tensor:
        """Read float [N, C, H, W], black at -1 and white at 1: float64 [N, axes] on their device, with gradients."""
        return self._on_axes(self.classifier.by_target(self.classifier((images.clamp(-1, 1) + 1) / 2)))

    def _on_axes(self, found: Mapping[str, Tensor]) -> Tensor:
        """Return what is predicted of each column as a number for each axis, float64 [N, axes]."""
        parts = []
        for attribute, classes in self.classes.items():
            predicted = found[self.columns[attribute]].double()
            if not classes:
                parts.append(predicted[:, None])
                continue
            odds = [_log_odds(predicted, number) for number in range(len(classes))]
            parts.append(torch.stack(odds[1:] if len(classes) == 2 else odds, dim=1))
        return torch.cat(parts, dim=1)

    def errors(self, shards: ShardSet) -> dict[str, float]:
        """Measure it on rows that it was not trained on.

        Returns:
            By attribute: mean absolute error of a number, share of wrong ones of a class.
        """
        totals = dict.fromkeys(self.columns, 0.0)
        for rows in shards.row_ranges(images_per_pass(shards.fixed_shape())):
            batch = read_batch(shards, rows, self.classifier.device)
            found = self.classifier.predict(batch.image)
            for attribute, column in self.columns.items():
                truth = batch.label if column == LABEL else batch.attributes[column]
                assert truth is not None  # the classifier has learnt it of such data
                predicted = found[column]
                wrong = predicted.argmax(1) != truth if self.classes[attribute] else (predicted - truth).abs()
                totals[attribute] += float(wrong.sum())
        return {attribute: total / len(shards) for attribute, total in totals.items()}


def _log_odds(logits: Tensor, number: int) -> Tensor:
    """Return the log-odds of one class against all others, [N], of logits [N, classes]."""
    others = [other for other in range(logits.shape[1]) if other != number]
    return logits[:, number] - logits[:, others].logsumexp(1)
