"""Run a sweep: `python jobs/sweep.py tune_spaces/vae_latent.py [--data.images DIR ...]`."""

from genlab.sweeps.sweep import main

if __name__ == "__main__":
    main()
