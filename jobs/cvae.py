"""Train a conditional variational autoencoder: `ray job submit --working-dir . -- python jobs/cvae.py --help`."""

from genlab.training.launch import main

if __name__ == "__main__":
    main("cvae")
