"""Train a classifier of labelled images: `ray job submit --working-dir . -- python jobs/classifier.py --help`."""

from genlab.training.launch import main

if __name__ == "__main__":
    main("classifier")
