"""Train a toy autoencoder: `ray job submit --working-dir . -- python jobs/toyae.py --help`."""

from genlab.cli.train import train_family

if __name__ == "__main__":
    train_family("toyae")
