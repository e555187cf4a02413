"""Features of data sets, computed once and cached, and of images that a model makes; FID and KID between them."""

import contextlib
import math
import os
from collections.abc import Iterable

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from upath import UPath

from genlab.core.progress import progress
from genlab.core.seeds import derived_seed
from genlab.core.storage import json_bytes, locate, read_bytes, sha256, write_atomic
from genlab.evaluation.extractors import Extractor
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.measurements import Measurement, Settings
from genlab.metrics.distances import (
    FID_RESAMPLES,
    KID_SUBSETS,
    frechet_distance,
    frechet_standard_error,
    kernel_distance,
)
from genlab.metrics.intervals import normal_interval
from genlab.store.tensor_file import tensor_file

FEWEST = 4
"""The fewest images on each side: KID compares halves of both."""
DISTINCT = 1 - 1 / math.e
"""Fraction of the rows that are in a resample of the bootstrap: these must span the features."""


def cache_folder() -> UPath:
    """Return the folder of cached features: ``$GENLAB_CACHE``, else ``~/.cache/genlab``. It may be deleted."""
    return locate(os.environ.get("GENLAB_CACHE") or "~/.cache/genlab")


def held_out_features(held_out: HeldOut, extractor: Extractor) -> Tensor:
    """Return features of held-out rows, float32 [rows, D], on the CPU, from the cache if it has them."""
    shape = (len(held_out), extractor.dimension)
    key = held_out.settings | extractor.settings
    for name in ("genlab", "chosen"):  # features do not depend on them
        key.pop(name, None)
    file = cache_folder() / "features" / f"{sha256(json_bytes(key))}.safetensors"
    with contextlib.suppress(OSError, SafetensorError, KeyError):
        features: Tensor = safetensors.torch.load(read_bytes(file))["features"]
        if features.shape == shape:
            return features
    features = extract(extractor, (batch.image for batch in held_out.batches()), len(held_out), "features of the data")
    with contextlib.suppress(OSError):  # A cache that cannot be written costs time, not the measurement.
        write_atomic(file, tensor_file({"features": features}))
    return features


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
    """Measure ``fid`` and ``kid`` of the images that a model made.

    Args:
        extractor: the network of the features.
        reference: features of real images, [N, D].
        reference_settings: the settings of the real images.
        samples: features of the model's images, [M, D].
        seed: seed of the model's draws; those of the intervals are derived from it.
    """
    settings = reference_settings | extractor.settings | {"samples": len(samples), "seed": seed}
    fewest = min(len(samples), len(reference))
    caution = ""
    if fewest <= extractor.dimension:
        caution = f"{fewest:,} images for {extractor.dimension:,} features: singular covariance, FID far too high"
    elif DISTINCT * fewest <= extractor.dimension:
        caution = f"{fewest:,} images for {extractor.dimension:,} features: too few for an interval, FID too high"
    fid = frechet_distance(reference, samples)
    interval = None
    if not caution:
        error = frechet_standard_error(reference, samples, derived_seed(seed, "fid"))
        interval = normal_interval(fid, error)
    kid = kernel_distance(reference, samples, derived_seed(seed, "kid"))
    return {
        "fid": Measurement(
            f"FID in {extractor.label} features",
            fid,
            settings | {"fid_resamples": FID_RESAMPLES},
            better="lower",
            interval=interval,
            caution=caution,
        ),
        "kid": Measurement(
            f"KID in {extractor.label} features",
            kid.mean,
            settings | {"kid_subsets": KID_SUBSETS, "kid_subset_rows": kid.rows},
            better="lower",
            interval=normal_interval(kid.mean, kid.standard_error),
        ),
    }
