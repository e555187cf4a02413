"""One step of the VAE: the evidence lower bound, written down a second time."""

import numpy as np
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from genlab.core.config import override
from genlab.data.stream.batches import Batch
from genlab.imaging.sheets import sheet
from genlab.metrics.elbo import negative_log_likelihood
from genlab.models.vae import VAEArchitecture
from genlab.recipes.latent_pictures import decoded_plane
from genlab.recipes.latent_recipe import LatentObjective
from genlab.recipes.recipe import DomainInfo
from genlab.recipes.vae import VAEConfig, VAERecipe
from tests.recipes.support import RecordingStepContext, batch

ROWS = 5


def make(beta: float = 1.0, shape: tuple[int, int, int] = (8, 12, 1)) -> VAERecipe:
    torch.manual_seed(0)
    config = VAEConfig(model=VAEArchitecture(channels=(4, 8), hidden=8), objective=LatentObjective(beta))
    return VAERecipe(config, {"images": DomainInfo(100, shape, ())})


def test_the_loss_is_the_negative_evidence_lower_bound_in_nats_per_image() -> None:
    recipe, batches = make(), {"images": batch(ROWS, 8, 12, 1, seed=0)}
    step = RecordingStepContext(recipe, ROWS)
    metrics = step.take(batches)

    images = batches["images"].image.permute(0, 3, 1, 2) / 255
    mean, log_variance = recipe.vae.encoder(images)
    posterior = Normal(mean, torch.exp(log_variance / 2))
    latents = mean + posterior.stddev * step.noise("z", 2)
    likelihood = Bernoulli(logits=recipe.vae.decoder(latents), validate_args=False).log_prob(images)  # grey levels
    kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum(1).mean()
    reconstruction = -likelihood.sum((1, 2, 3)).mean()
    torch.testing.assert_close(metrics["kl"], kl)
    torch.testing.assert_close(metrics["reconstruction"], reconstruction)
    torch.testing.assert_close(metrics["neg_elbo"], reconstruction + kl)
    torch.testing.assert_close(step.losses["vae"], reconstruction + kl)
    assert not any(value.requires_grad for value in metrics.values())


def test_beta_weighs_the_kl_term_of_the_loss_and_not_of_the_figures() -> None:
    batches = {"images": batch(ROWS, 8, 12, 1, seed=0)}
    plain, heavy = make(), make(beta=3.0)
    steps = RecordingStepContext(plain, ROWS), RecordingStepContext(heavy, ROWS)
    figures = steps[0].take(batches), steps[1].take(batches)
    assert figures[0] == figures[1]
    torch.testing.assert_close(steps[1].losses["vae"] - steps[0].losses["vae"], 2 * figures[0]["kl"])


def test_the_gradient_goes_through_the_draw_to_every_weight() -> None:
    recipe = make(beta=0.0)  # the KL term has a way of its own to the encoder
    step = RecordingStepContext(recipe, ROWS)
    step.take({"images": batch(ROWS, 8, 12, 1, seed=0)})
    gradients = step.gradients["vae"]
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.any()] == []


def test_held_out_figures_are_those_of_a_step() -> None:
    recipe, batches = make(), {"images": batch(ROWS, 8, 12, 1, seed=0)}
    step = RecordingStepContext(recipe, ROWS)
    assert recipe.test_metrics(batches, step) == RecordingStepContext(recipe, ROWS).take(batches)
    assert step.losses == {}, "nothing is trained on held-out rows"


def test_pictures_show_reconstructions_samples_and_the_latent_plane() -> None:
    for channels in (1, 3):
        recipe = make(shape=(8, 12, channels))
        pictures = recipe.figures({"images": batch(ROWS, 8, 12, channels, seed=0)})
        assert pictures.keys() == {"reconstructions", "samples", "latent-scatter", "latent-plane"}
        assert all(picture.dtype == "uint8" for picture in pictures.values())
        height, width = 10 * (8 + 2) + 2, 10 * (12 + 2) + 2
        assert pictures["samples"].shape == pictures["latent-plane"].shape == (height, width, channels)
        assert pictures["latent-scatter"].shape[2] == 3


def test_inputs_stand_to_the_left_of_their_reconstructions() -> None:
    recipe = make()
    images = batch(12, 8, 12, 1, seed=0).image
    picture = recipe.figures({"images": Batch(images, None)})["reconstructions"]
    outputs = recipe.vae.reconstruct(images).numpy()
    for left, shown in ((0, images.numpy()), (picture.shape[1] - 142, outputs)):
        np.testing.assert_array_equal(picture[2:10, left + 2 :][:, :12], shown[0])
        np.testing.assert_array_equal(picture[12:20, left + 2 + 14 :][:, :12], shown[11])


def test_a_latent_line_has_no_plane_and_a_larger_space_shows_its_two_widest_dimensions() -> None:
    config = override(VAEConfig(), {"model.channels": [4], "model.latent_dim": 1})
    recipe = VAERecipe(config, {"images": DomainInfo(100, (8, 12, 1), ())})
    assert recipe.figures({"images": batch(ROWS, 8, 12, 1, seed=0)}).keys() == {"reconstructions", "samples"}
    recipe = VAERecipe(override(config, {"model.latent_dim": 5}), recipe.domains)
    with torch.no_grad():
        for factor, weight in zip((0, 2, 1, 5, 0), recipe.vae.encoder.mean.weight, strict=True):
            weight.fill_(0.1 * factor)
    drawn = recipe.figures({"images": batch(ROWS, 8, 12, 1, seed=0)})["latent-plane"]
    np.testing.assert_array_equal(drawn, sheet(decoded_plane(recipe.vae, (1, 3)), 10))


def test_as_many_rows_are_asked_for_as_make_a_scatter_of_small_images() -> None:
    assert make().figure_rows == 2000
    assert make(shape=(512, 512, 3)).figure_rows == 100, "and no more than a sheet of large ones"


def test_the_model_served_is_the_one_trained() -> None:
    recipe = make()
    assert dict(recipe.model().named_parameters()).keys() == dict(recipe.networks["vae"].named_parameters()).keys()
    assert next(recipe.model().parameters()) is next(recipe.networks["vae"].parameters())
    assert set(recipe.averaged) <= set(recipe.networks), "what is served is averaged"


def test_the_model_has_the_architecture_of_the_config() -> None:
    config = override(VAEConfig(), {"model.latent_dim": 7, "model.channels": [3, 5], "model.hidden": 11})
    recipe = VAERecipe(config, {"images": DomainInfo(100, (28, 28, 3), ())})
    assert recipe.model().architecture == VAEArchitecture(7, (3, 5), 11)
    assert recipe.model().image_shape == (28, 28, 3)


def test_the_kl_term_warms_up_over_the_images_seen() -> None:
    objective = LatentObjective(beta=2.0, warmup_images=1000)
    assert [objective.weight(images) for images in (0, 250, 1000, 5000)] == [0, 0.5, 2, 2]
    assert LatentObjective(beta=2.0).weight(0) == 2
    recipe, batches = make(), {"images": batch(ROWS, 8, 12, 1, seed=0)}
    recipe.config = override(recipe.config, {"objective.warmup_images": 1280, "run.batch": 128})
    step = RecordingStepContext(recipe, ROWS)
    step.index = 5
    metrics = step.take(batches)
    torch.testing.assert_close(step.losses["vae"], metrics["reconstruction"] + metrics["kl"] / 2)


def test_a_gaussian_likelihood_learns_its_sigma_and_counts_nats_of_8_bit_images() -> None:
    torch.manual_seed(0)
    config = override(VAEConfig(), {"model.channels": [4], "model.likelihood": "gaussian"})
    recipe = VAERecipe(config, {"images": DomainInfo(100, (8, 12, 3), ())})
    batches = {"images": batch(ROWS, 8, 12, 3, seed=0)}
    step = RecordingStepContext(recipe, ROWS)
    metrics = step.take(batches)
    assert step.gradients["vae"]["log_sigma"] is not None
    images = batches["images"].image.permute(0, 3, 1, 2) / 255
    mean, log_variance = recipe.vae.encoder(images)
    logits = recipe.vae.decoder(mean + (log_variance / 2).exp() * step.noise("z", 2))
    sigma = (0.1**2 + 1 / 255**2) ** 0.5
    level = Normal(logits.sigmoid(), sigma).log_prob(images) + torch.tensor(1 / 255).log()
    torch.testing.assert_close(metrics["reconstruction"], -level.sum((1, 2, 3)).mean())


class Drawing(RecordingStepContext):
    """Other noise each time."""

    generator = torch.Generator().manual_seed(0)

    def noise(self, name: str, *shape: int) -> torch.Tensor:
        self.drawn = torch.randn(self._rows, *shape, generator=self.generator)
        return self.drawn


def test_the_gradient_of_a_step_is_that_of_the_expected_loss_and_far_less_noisy_than_the_score_functions() -> None:
    """With respect to the bias of the mean, the score is (z - mean) / variance."""
    draws, recipe = 500, make()
    image = batch(1, 8, 12, 1, seed=0).image.expand(draws, -1, -1, -1)
    with torch.no_grad():
        mean, log_variance = recipe.vae.encoder(image.permute(0, 3, 1, 2) / 255)
    deviation = (0.5 * log_variance).exp()
    pathwise, score = [], []
    for _ in range(40):
        step = Drawing(recipe, draws)
        step.take({"images": Batch(image, None)})
        gradient = step.gradients["vae"]["encoder.mean.bias"]
        assert gradient is not None
        pathwise.append(gradient)
        with torch.no_grad():
            logits = recipe.vae.decoder(mean + deviation * step.drawn)
        error = negative_log_likelihood("bernoulli", logits, image.permute(0, 3, 1, 2) / 255)
        score.append((error[:, None] * step.drawn / deviation).mean(0) + mean[0])  # the KL term's own is the mean
    one, other = torch.stack(pathwise), torch.stack(score)
    spread = (one.var(0) + other.var(0)).div(len(one)).sqrt()
    assert ((one.mean(0) - other.mean(0)).abs() < 4 * spread).all()
    assert (other.var(0) > 100 * one.var(0)).all()
