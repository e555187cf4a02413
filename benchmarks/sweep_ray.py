"""The sweep of ``sweep.py`` as Ray Tune's guide writes it: a TorchTrainer in each trial's function.

See "Hyperparameter Tuning with Ray Tune" in Ray Train's user guides. Workers train by genlab's loop, in their process.
"""

import argparse
import os
import tempfile
from typing import Any

import ray
from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback


def train_loop(config: dict[str, Any]) -> None:
    """Train one VAE; what each worker runs."""
    import ray.train

    from genlab.core.config import override
    from genlab.recipes.recipe import recipe_type
    from genlab.store import model_directory
    from genlab.training.launch import launch

    plan = launch("vae", override(recipe_type("vae").config_type(), config["options"]))
    ray.train.report(model_directory.describe(f"{plan.directory}/model")["provenance"]["metrics"])


def train_driver(config: dict[str, Any]) -> None:
    """Start the trainer of one trial, and wait for it."""
    trainer = TorchTrainer(
        train_loop,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name=f"trial-{tune.get_context().get_trial_id()}",
            storage_path=config["ray_storage"],
            callbacks=[TuneReportCallback()],
        ),
    )
    trainer.fit()


def main() -> None:
    """Train all trials, two at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--latents", type=int, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    given = parser.parse_args()
    points = [
        {
            "data.images": given.data,
            "run.storage": given.storage,
            "run.steps": given.steps,
            "run.log_every": 5,
            "run.workers": 0,
            "run.threads": 1,
            "model.latent_dim": latent,
            "run.seed": seed,
            "run.name": f"{latent}-{seed}",
        }
        for latent in given.latents
        for seed in given.seeds
    ]
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    with tempfile.TemporaryDirectory(prefix="gl-ray-", ignore_cleanup_errors=True) as folder:
        # One CPU more than there are: what the drivers reserve would otherwise keep a second worker from starting.
        ray.init(num_cpus=(os.cpu_count() or 1) + 1, include_dashboard=False, _temp_dir=folder, log_to_driver=False)
        tuner = tune.Tuner(
            tune.with_resources(train_driver, {"cpu": 0.01}),
            param_space={"options": tune.grid_search(points), "ray_storage": f"{folder}/storage"},
            tune_config=tune.TuneConfig(max_concurrent_trials=2),
            run_config=tune.RunConfig(name="sweep", storage_path=f"{folder}/tune", verbose=0),
        )
        results = tuner.fit()
        ray.shutdown()
    if results.errors:
        raise SystemExit(str(results.errors[0]))


if __name__ == "__main__":
    main()
