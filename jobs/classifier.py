"""Train a classifier of labelled images: `ray job submit --working-dir . -- python jobs/classifier.py --help`."""

from genlab.cli.train import train_family

if __name__ == "__main__":
    train_family("classifier")
