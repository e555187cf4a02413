"""Train a CycleGAN between two domains: `ray job submit --working-dir . -- python jobs/cyclegan.py --help`."""

from genlab.training.launch import main

if __name__ == "__main__":
    main("cyclegan")
