"""Train an encoder of pictures for a StyleGAN: `ray job submit --working-dir . -- python jobs/encoder.py --help`."""

from genlab.cli.train import train_family

if __name__ == "__main__":
    train_family("encoder")
