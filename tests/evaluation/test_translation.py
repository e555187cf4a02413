"""A CycleGAN's measurements, on models whose errors can be told beforehand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genlab.data.format.shards import ShardSet
from genlab.data.ingest.ingest import IngestConfig, ingest
from genlab.data.ingest.sources.synthetic import counterparts
from genlab.evaluation.extractors import EfficientNetLite
from genlab.evaluation.features import extract, features_of, measure_distances
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.translation import (
    COLOUR_CURVE,
    counterparts_are_known,
    measure_direction,
    measure_translations,
)
from genlab.metrics.distances import FeaturePair, mean_kernel_distance
from genlab.metrics.image import apply_colour_curve, best_colour_curve, perceptual_distance, psnr, ssim
from genlab.models.cyclegan import CycleGAN
from genlab.models.pixels import to_signed
from tests.evaluation.support import Levels, cyclegan, scenes


class Scaled(nn.Module):
    """x → factor · x."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * images


@pytest.fixture(scope="module")
def scene_rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HeldOut]:
    """Eight drawn scenes of each domain."""
    root = tmp_path_factory.mktemp("domains")
    return {domain: scenes(root / domain, domain) for domain in ("a", "b")}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))


def scaling(a_to_b: float, b_to_a: float) -> CycleGAN:
    model = cyclegan()
    model.a_to_b, model.b_to_a = Scaled(a_to_b), Scaled(b_to_a)  # type: ignore[assignment]
    return model


def images(held_out: HeldOut) -> Tensor:
    return torch.from_numpy(held_out.shards.read(held_out.rows).image)


@pytest.mark.slow
def test_a_model_of_one_direction_has_no_measurements_of_the_other(scene_rows: dict[str, HeldOut]) -> None:
    both = cyclegan()
    alone = CycleGAN(both.image_shape, replace(both.architecture, directions=("b_to_a",))).eval()
    alone.b_to_a.load_state_dict(both.b_to_a.state_dict())
    found = measure_translations(alone, scene_rows, Levels(), images=6, seed=0)
    whole = measure_translations(both, scene_rows, Levels(), images=6, seed=0)
    missing = {name for name in whole if "a_to_b" in name} | {"kid", "cycle_a", "cycle_b", "identity_a", "identity_b"}
    assert found == {name: measurement for name, measurement in whole.items() if name not in missing}
    assert {"fid_b_to_a", "kid_b_to_a", "psnr_b_to_a", "untranslated_fid_b_to_a"} <= found.keys()


@pytest.mark.slow
def test_cycle_and_identity_errors_are_those_of_training(scene_rows: dict[str, HeldOut]) -> None:
    """The error of a generator's output is not cut to the range of pixels before the other sees it."""
    model, contrast = scaling(3, -0.5), to_signed(images(scene_rows["a"])).abs().mean().item()
    measurements = measure_direction(model, "a_to_b", scene_rows["a"], scene_rows["b"], Levels(), seed=0).measurements
    assert measurements["cycle_a"].value == pytest.approx(2.5 * contrast, rel=1e-5)
    assert measurements["identity_a"].value == pytest.approx(1.5 * contrast, rel=1e-5)
    assert measurements["cycle_a"].settings == measurements["identity_a"].settings == scene_rows["a"].settings
    assert measurements["cycle_a"].better is None, "a model that changes nothing has none"
    other = measure_direction(model, "b_to_a", scene_rows["b"], scene_rows["a"], Levels(), seed=0).measurements
    contrast = to_signed(images(scene_rows["b"])).abs().mean().item()
    assert other["cycle_b"].value == pytest.approx(2.5 * contrast, rel=1e-5)
    assert other["identity_b"].value == pytest.approx(2 * contrast, rel=1e-5)


def test_translations_and_untranslated_images_are_measured_against_the_other_domain(
    scene_rows: dict[str, HeldOut],
) -> None:
    model, extractor = cyclegan(), Levels()
    source, target = scene_rows["b"], scene_rows["a"]
    measurements = measure_direction(model, "b_to_a", source, target, extractor, seed=3).measurements
    made = extract(extractor, [model.translate(images(source), "b_to_a")], len(source), "translations")
    real = {domain: features_of(held_out, extractor) for domain, held_out in scene_rows.items()}
    for prefix, features in (("", made), ("untranslated_", real["b"])):
        for kind, expected in measure_distances(extractor, real["a"], target.settings, features, seed=3).items():
            measurement = measurements[f"{prefix}{kind}_b_to_a"]
            assert measurement.value == pytest.approx(expected.value, rel=1e-3)
            assert measurement.interval is None, "eight images are too few"
            assert measurement.better == (None if prefix else "lower"), "no model is ranked by what it did not make"
            own = {"source_data": source.shards.checksum, "source_split": "test", "source_rows": len(source)}
            assert measurement.settings == expected.settings | own
    assert measurements["untranslated_fid_b_to_a"].title == "FID in mean-level features, b untranslated"


@pytest.mark.slow
def test_the_error_of_the_mean_kid_is_that_of_both_directions_together(
    scene_rows: dict[str, HeldOut], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when some images only are translated: they are found again among the others."""
    model, extractor = cyclegan(), Levels()
    monkeypatch.setattr("genlab.evaluation.features.FEWEST_FOR_INTERVAL", 6)
    features = {domain: features_of(held_out, extractor) for domain, held_out in scene_rows.items()}
    for count in (8, 6):
        found = measure_translations(model, scene_rows, extractor, images=count, seed=0)
        drawn = {domain: held_out.drawn(count, 0) for domain, held_out in scene_rows.items()}
        made = {
            source: extract(extractor, [model.translate(images(drawn[source]), direction)], count, "translations")
            for source, direction in (("a", "a_to_b"), ("b", "b_to_a"))
        }
        rows = {domain: torch.from_numpy(held_out.rows) for domain, held_out in drawn.items()}
        everything = torch.arange(8)
        expected = mean_kernel_distance(
            FeaturePair(made["a"], rows["a"], features["b"], everything),
            FeaturePair(features["a"], everything, made["b"], rows["b"]),
        )
        kid = found["kid"]
        assert kid.value == pytest.approx((found["kid_a_to_b"].value + found["kid_b_to_a"].value) / 2, rel=1e-9)
        assert kid.value == pytest.approx(expected.value, rel=1e-3)
        assert kid.interval == pytest.approx(expected.interval, rel=1e-2)
    monkeypatch.undo()
    assert measure_translations(model, scene_rows, extractor, images=6, seed=0)["kid"].interval is None


@pytest.mark.slow
def test_a_model_that_changes_nothing_gains_nothing(scene_rows: dict[str, HeldOut]) -> None:
    measurements = measure_direction(
        scaling(1, 1), "a_to_b", scene_rows["a"], scene_rows["b"], Levels(), seed=0
    ).measurements
    for kind in ("fid", "kid", "psnr", "ssim", "perceptual"):
        assert measurements[f"{kind}_a_to_b"].value == pytest.approx(measurements[f"untranslated_{kind}_a_to_b"].value)
    assert measurements["cycle_a"].value == measurements["identity_a"].value == 0


@pytest.mark.slow
def test_features_of_both_data_sets_are_taken_once(scene_rows: dict[str, HeldOut]) -> None:
    extractor = Levels()
    for direction, source, target in (("a_to_b", "a", "b"), ("b_to_a", "b", "a")):
        measure_direction(cyclegan(), direction, scene_rows[source], scene_rows[target], extractor, seed=0)
    assert extractor.seen == sum(2 * len(held_out) for held_out in scene_rows.values())


@pytest.mark.slow
def test_drawn_scenes_are_measured_against_their_true_counterparts(scene_rows: dict[str, HeldOut]) -> None:
    """A part of them too, which lies scattered among the rows."""
    model, source = cyclegan(), scene_rows["a"].drawn(5, seed=1)
    measurements = measure_direction(model, "a_to_b", source, scene_rows["b"], Levels(), seed=0).measurements
    hidden, network = counterparts(source.shards, source.rows), EfficientNetLite("cpu")
    assert hidden is not None
    truth = torch.from_numpy(hidden)
    for prefix, shown in (("", model.translate(images(source), "a_to_b")), ("untranslated_", images(source))):
        expected = {
            "psnr": psnr(shown, truth),
            "ssim": ssim(shown, truth),
            "perceptual": perceptual_distance(network.layers(shown), network.layers(truth)),
        }
        for kind, values in expected.items():
            measurement = measurements[f"{prefix}{kind}_a_to_b"]
            assert measurement.value == pytest.approx(values.mean().item(), rel=1e-3)
            assert measurement.settings.items() >= {"rows": 5, "subset": "random by seed 1"}.items()
            assert measurement.values is not None
            assert measurement.values.tolist() == pytest.approx(values.tolist(), rel=1e-3)
            assert measurement.interval is None, "five images are too few"
    curve = best_colour_curve([(images(source), truth)])
    bound = psnr(apply_colour_curve(curve, images(source)), truth).mean().item()
    assert measurements["curve_psnr_a_to_b"].value == pytest.approx(bound, rel=1e-6)
    assert measurements["curve_psnr_a_to_b"].settings == source.settings | {"colour_curve": COLOUR_CURVE}
    assert measurements["curve_psnr_a_to_b"].better is None, "no model is ranked by what it did not make"
    gain = measurements["gain_a_to_b"]
    assert gain.value == measurements["psnr_a_to_b"].value - measurements["untranslated_psnr_a_to_b"].value
    gained = psnr(model.translate(images(source), "a_to_b"), truth) - psnr(images(source), truth)
    assert gain.values is not None
    assert gain.values.tolist() == pytest.approx(gained.tolist(), rel=1e-3, abs=1e-6)
    assert gain.better == "higher"
    assert measurements["psnr_a_to_b"].better == measurements["ssim_a_to_b"].better == "higher"
    assert measurements["perceptual_a_to_b"].better == "lower"
    assert measurements["perceptual_a_to_b"].settings["extractor_weights"] == network.weights
    assert measurements["psnr_a_to_b"].unit == "dB"


def test_only_scenes_of_both_domains_have_counterparts(scene_rows: dict[str, HeldOut], tmp_path: Path) -> None:
    a, b = scene_rows["a"], scene_rows["b"]
    ingest(IngestConfig("synthetic:scenes-b", str(tmp_path / "grey"), size=32, count=4, test_fraction=0.5, channels=1))
    grey = HeldOut(ShardSet.open(str(tmp_path / "grey")).split("test"), "test")
    assert counterparts_are_known(a, b)
    assert not counterparts_are_known(a, a)
    assert not counterparts_are_known(a, grey)
    measurements = measure_direction(cyclegan(), "a_to_b", a, a, Levels(), seed=0).measurements
    assert not any("psnr" in name or "gain" in name for name in measurements)
    np.testing.assert_allclose(measurements["untranslated_fid_a_to_b"].value, 0, atol=1e-4)
