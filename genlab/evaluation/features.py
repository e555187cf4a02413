"""Features of data sets, computed once and cached, and of images that a model makes; FID and KID between them."""

import contextlib
from collections.abc import Iterable

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from upath import UPath

from genlab.core.progress import progress
from genlab.core.seeds import derived_seed
from genlab.core.storage import cache_folder, json_bytes, read_bytes, sha256, write_atomic
from genlab.data.stream.order import permutation
from genlab.evaluation.extractors import Extractor
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.measurements import Measurement, Settings
from genlab.metrics.distances import (
    FEWEST_ROWS,
    FRECHET_GROUPS,
    ROWS_PER_FEATURE,
    frechet_distance,
    kernel_distance,
    unbiased_frechet_distance,
)
from genlab.metrics.intervals import FEWEST as FEWEST_FOR_INTERVAL
from genlab.store.tensor_file import tensor_file

FEWEST = FEWEST_ROWS
"""The fewest images on each side."""


def features_of(rows: HeldOut, extractor: Extractor) -> Tensor:
    """Return features of the rows of a split, float32 [rows, D], on the CPU, from the cache if it has them."""
    features = cached_features(rows, extractor)
    if features is None:
        features = extract(extractor, (batch.image for batch in rows.batches()), len(rows), f"features of {rows.split}")
        with contextlib.suppress(OSError):  # A cache that cannot be written costs time, not the measurement.
            write_atomic(_cache_file(rows, extractor), tensor_file({"features": features}))
    return features


def cached_features(rows: HeldOut, extractor: Extractor) -> Tensor | None:
    """Return features of the rows of a split, float32 [rows, D], on the CPU, if they were taken before."""
    with contextlib.suppress(OSError, SafetensorError, KeyError):
        features: Tensor = safetensors.torch.load(read_bytes(_cache_file(rows, extractor)))["features"]
        if features.shape == (len(rows), extractor.dimension):
            return features
    return None


def _cache_file(rows: HeldOut, extractor: Extractor) -> UPath:
    key = rows.settings | extractor.settings | {"torch": torch.__version__}
    for name in ("genlab", "chosen"):  # features do not depend on them, unless the extractor's version says so
        key.pop(name, None)
    return cache_folder() / "features" / f"{sha256(json_bytes(key))}.safetensors"


def extract(extractor: Extractor, images: Iterable[Tensor], count: int, what: str) -> Tensor:
    """Compute features of ``count`` images: float32 [count, D], on the CPU.

    Args:
        extractor: the network.
        images: uint8 [N, H, W, C] each, with any N.
        count: the number of images in all.
        what: what is being done, for the progress bar.
    """
    found = []
    with progress(what, count, "images") as advance:
        for pixels in images:
            for part in pixels.split(extractor.batch):
                found.append(extractor.features(part).cpu())
                advance(len(part))
    return torch.cat(found)


def measure_distances(
    extractor: Extractor, reference: Tensor, reference_settings: Settings, samples: Tensor, seed: int
) -> dict[str, Measurement]:
    """Measure ``kid``, ``fid`` and, where both sides have enough images for it, ``fid_infinity`` of a model's images.

    ``fid`` is the FID as it is published, which is too high by about 1/N: it has no interval. ``fid_infinity``
    estimates without that bias what ``fid`` tends to as images become many.

    Args:
        extractor: the network of the features.
        reference: features of real images, [N, D].
        reference_settings: the settings of the real images.
        samples: features of the model's images, [M, D].
        seed: seed of the model's draws; that of the groups that the jackknife leaves out is derived from it.
    """
    settings = reference_settings | extractor.settings | {"samples": len(samples), "seed": seed}
    fewest, title = min(len(samples), len(reference)), f"in {extractor.label} features"
    kid = kernel_distance(reference, samples)
    interval = kid.interval if fewest >= FEWEST_FOR_INTERVAL else None
    measurements = {
        "kid": Measurement(f"KID {title}", kid.value, settings | {"kid": "all pairs"}, "", "lower", interval)
    }
    caution = ""
    if fewest <= extractor.dimension:
        caution = f"{fewest:,} images for {extractor.dimension:,} features: singular covariance, FID far too high"
    elif fewest < ROWS_PER_FEATURE * extractor.dimension:
        caution = f"{fewest:,} images for {extractor.dimension:,} features: too few, FID too high"
    fid = frechet_distance(reference, samples)
    measurements["fid"] = Measurement(f"FID {title}", fid, settings, better="lower", caution=caution)
    if not caution and fewest >= FEWEST_FOR_INTERVAL:
        shuffled = [
            side[torch.from_numpy(permutation(derived_seed(seed, "fid", name), 0, len(side)))]
            for name, side in (("reference", reference), ("samples", samples))
        ]
        unbiased = unbiased_frechet_distance(*shuffled)
        measurements["fid_infinity"] = Measurement(
            f"FID∞ {title}",
            unbiased.value,
            settings | {"fid_groups": FRECHET_GROUPS},
            better="lower",
            interval=unbiased.interval,
        )
    return measurements
