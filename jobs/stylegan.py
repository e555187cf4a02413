"""Train a StyleGAN: `ray job submit --working-dir . -- python jobs/stylegan.py --help`."""

from genlab.cli.train import train_family

if __name__ == "__main__":
    train_family("stylegan")
