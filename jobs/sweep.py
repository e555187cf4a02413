"""Run a sweep: `python jobs/sweep.py --help`."""

import sys

from genlab.cli.sweep import main

if __name__ == "__main__":
    main(sys.argv[1:])
