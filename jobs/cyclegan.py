"""Train a CycleGAN between two domains: `ray job submit --working-dir . -- python jobs/cyclegan.py --help`."""

from genlab.cli.train import train_family

if __name__ == "__main__":
    train_family("cyclegan")
