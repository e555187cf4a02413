"""Train a variational autoencoder: `ray job submit --working-dir . -- python jobs/vae.py --help`."""

from genlab.training.launch import main

if __name__ == "__main__":
    main("vae")
