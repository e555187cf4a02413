"""Measurements of latent models, where they can be known otherwise."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from genlab.data.stream.batches import Batch
from genlab.evaluation.held_out import HeldOut
from genlab.evaluation.latent_models import (
    BOUND_SAMPLES,
    measure_bounds,
    measure_consistency,
    measure_elbo,
    measure_reconstructions,
    observe_rows,
)
from genlab.evaluation.samples import classes_to_sample
from genlab.metrics.elbo import gaussian_kl
from genlab.models.latent_model import Likelihood
from tests.evaluation.support import TEN, blind, cvae, held_out, sorted_by_class, trained_classifier, vae

COIN = 28 * 28 * math.log(2)


@pytest.fixture(scope="module")
def digit_rows(tmp_path_factory: pytest.TempPathFactory) -> HeldOut:
    return held_out(tmp_path_factory.mktemp("latent") / "digits")


@pytest.mark.parametrize("likelihood", ["bernoulli", "binary"])
def test_a_model_that_learned_nothing_pays_a_bit_a_pixel(likelihood: Likelihood, digit_rows: HeldOut) -> None:
    """Its posterior is the prior and its decoder a coin, so the bounds are equal and exact for every K."""
    model = blind(vae(likelihood))
    measurements = measure_elbo(model, digit_rows, 0) | measure_bounds(model, digit_rows.drawn(2, seed=0), 0)
    for name in ("neg_elbo", "reconstruction", *(f"nll_{draws}" for draws in BOUND_SAMPLES)):
        assert measurements[name].value == pytest.approx(COIN, rel=1e-6)
    assert measurements["kl"].value == 0
    assert measurements["active_units"].value == 0
    assert measurements["nll_50"].settings["rows"] == 2
    assert measurements["neg_elbo"].settings["rows"] == len(digit_rows)


@pytest.mark.slow
@pytest.mark.parametrize("make", [vae, cvae])
def test_the_bounds_close_a_gap_that_is_known(make: type, digit_rows: HeldOut) -> None:
    """The decoder does not look at z, so −log p(x) is known, but q is not the prior, and the ELBO pays for that."""
    model = blind(make())
    model.encoder.mean.bias += 1
    model.encoder.log_variance.bias -= 0.1
    kl = model.architecture.latent_dim * 0.5 * (1 + math.exp(-0.1) - 1 + 0.1)
    measurements = measure_elbo(model, digit_rows, 0) | measure_bounds(model, digit_rows, 0)
    assert measurements["kl"].value == pytest.approx(kl, rel=1e-5)
    assert measurements["neg_elbo"].value == pytest.approx(COIN + kl, abs=1e-3)
    # Over all images, one draw strays by about 0.25 nats and the mean of 1,000 weights by about 0.015.
    assert measurements["nll_1"].value == pytest.approx(COIN + kl, abs=0.75)
    assert measurements["nll_1000"].value == pytest.approx(COIN, abs=0.05)


@pytest.mark.parametrize("make", [vae, cvae])
def test_the_elbo_has_its_two_parts_and_the_bounds_tighten(make: type, digit_rows: HeldOut) -> None:
    model = make()
    model.encoder.mean.bias += 1.5  # An untrained posterior is the prior, more or less: there is nothing to tighten.
    measurements = measure_elbo(model, digit_rows, 0) | measure_bounds(model, digit_rows.drawn(4, seed=0), 0)
    assert measurements["neg_elbo"].value == pytest.approx(
        measurements["reconstruction"].value + measurements["kl"].value
    )
    (rows,) = digit_rows.batches()
    kl = gaussian_kl(*model.encode(rows.image, rows.label if model.classes else None)).mean()
    assert measurements["kl"].value == pytest.approx(float(kl), rel=1e-5)
    assert measurements["nll_1000"].value < measurements["nll_50"].value < measurements["nll_1"].value
    assert measurements["neg_elbo"].settings["density"] == ("p(x|class)" if model.classes else "p(x)")
    x = "x|y" if model.classes else "x"
    assert measurements["nll_50"].title == f"−log p({x}) at most (in expectation), K = 50"
    assert measurements["kl"].title == ("KL(q(z|x,y) ‖ p(z))" if model.classes else "KL(q(z|x) ‖ p(z))")


@pytest.mark.parametrize("make", [vae, cvae])
def test_the_nearest_neighbour_accuracy_is_of_the_posterior_means(make: type, digit_rows: HeldOut) -> None:
    model = make()
    measurement = measure_elbo(model, digit_rows, 0)["nearest_neighbour_accuracy"]
    (rows,) = digit_rows.batches()
    assert rows.label is not None
    means, _ = model.encode(rows.image, rows.label if model.classes else None)
    nearest = cKDTree(means).query(means, k=2)[1][:, 1]
    assert measurement.value == pytest.approx(float((rows.label[nearest] == rows.label).double().mean()))
    assert measurement.interval is not None
    assert measurement.interval[0] < measurement.value < measurement.interval[1]
    assert measurement.settings == digit_rows.settings | {
        "seed": 0,
        "told_class": "yes" if model.classes else "no",
    }
    assert measurement.better == (None if model.classes else "higher")


def test_all_noise_comes_from_the_seed(digit_rows: HeldOut) -> None:
    model = vae("binary")
    few = digit_rows.drawn(2, seed=0)
    values = [
        [
            measurement.value
            for measurement in (measure_elbo(model, digit_rows, seed) | measure_bounds(model, few, seed)).values()
        ]
        for seed in (1, 1, 2)
    ]
    assert values[0] == values[1]
    assert values[0] != values[2]


def test_a_digit_is_drawn_the_same_whichever_others_are_measured(digit_rows: HeldOut) -> None:
    part = digit_rows.drawn(3, seed=4)
    (everything,), (few,) = digit_rows.batches(), part.batches()
    drawn, _ = observe_rows(vae("binary"), everything, seed=7)
    alone, _ = observe_rows(vae("binary"), few, seed=7)
    assert torch.equal(alone, drawn[torch.from_numpy(part.rows)])
    grey = Batch(torch.full((2, 28, 28, 1), 128, dtype=torch.uint8), None, rows=np.array([3, 4]))
    one, other = observe_rows(vae("binary"), grey, seed=7)[0]
    assert not torch.equal(one, other)


def test_a_model_without_classes_is_given_no_labels(digit_rows: HeldOut) -> None:
    model = vae()
    (rows,) = digit_rows.batches()
    expected = (model.reconstruct(rows.image).double() - rows.image.double()).div(255).square().mean()
    measurements = measure_reconstructions(model, digit_rows, None)
    assert measurements.keys() == {"mse"}
    assert measurements["mse"].value == pytest.approx(float(expected))


def test_consistency_counts_what_the_classifier_sees(digit_rows: HeldOut) -> None:
    model, threes = cvae(), trained_classifier(always=3)
    assert digit_rows.labels is not None
    share = float((digit_rows.labels == 3).double().mean())
    measurements = measure_reconstructions(model, digit_rows, threes)
    for name in ("reconstruction_consistency", "classifier_accuracy"):
        assert measurements[name].value == share
        assert measurements[name].settings["classifier_weights"] == "f" * 64
        assert measurements[name].caution == ""
    assert measurements["reconstruction_consistency"].settings["told_class"] == "yes"
    sampled = measure_consistency(model, digit_rows, threes, count=57, seed=0)["sample_consistency"]
    assert sampled.value == 0.1
    assert sampled.settings["samples"] == 50
    assert sampled.interval is not None
    assert 0 < sampled.interval[0] < 0.1 < sampled.interval[1] < 0.25


def test_samples_are_of_classes_that_the_classifier_can_name(digit_rows: HeldOut) -> None:
    """The model has room for ten."""
    sampled = measure_consistency(
        cvae(), digit_rows, trained_classifier(always=3, label_names=TEN[:5]), count=57, seed=0
    )
    assert sampled["sample_consistency"].value == 1 / 5
    assert sampled["sample_consistency"].settings["classes"] == 5


def test_what_a_classifier_sees_in_its_own_training_images_is_marked(digit_rows: HeldOut) -> None:
    measurements = measure_reconstructions(vae(), digit_rows, trained_classifier(trained_on=digit_rows))
    assert measurements["reconstruction_consistency"].settings["told_class"] == "no"
    for name in ("reconstruction_consistency", "classifier_accuracy"):
        assert "trained on these images" in measurements[name].caution
    assert measurements["mse"].caution == ""
    half = HeldOut(digit_rows.shards.part("test:reporting"), "test:reporting")
    assert "trained on these images" in trained_classifier(trained_on=digit_rows).caution(half)


def test_what_is_drawn_from_a_set_sorted_by_class_is_of_all_of_them(tmp_path: Path) -> None:
    digit_rows = sorted_by_class(tmp_path / "animals", ("cat", "dog"), each=40)
    few = digit_rows.drawn(20, seed=0)
    assert len(few) == 20
    assert few.labels is not None
    assert 4 <= few.labels.sum() <= 16
    (rows,) = few.batches()
    assert torch.equal(rows.image[:, 0, 0, 0], torch.from_numpy(few.rows % 40)), "the pictures of these rows"
    assert rows.label is not None
    assert torch.equal(rows.label, few.labels)
    assert few.settings == digit_rows.settings | {"rows": 20, "subset": "random by seed 0"}
    assert few.rows.tolist() == digit_rows.drawn(20, seed=0).rows.tolist()
    assert few.rows.tolist() != digit_rows.drawn(20, seed=1).rows.tolist()
    assert digit_rows.drawn(80, seed=0) is digit_rows

    for count, dogs in ((20, range(4, 17)), (80, [40]), (160, [80])):
        told = classes_to_sample(digit_rows, count, seed=0)
        assert told is not None
        assert len(told) == count
        assert int(told.sum()) in dogs
