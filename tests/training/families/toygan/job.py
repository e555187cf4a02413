"""Train a toy GAN: `ray job submit --working-dir . -- python jobs/toygan.py --help`."""

from genlab.cli.train import train_family

if __name__ == "__main__":
    train_family("toygan")
