"""Run a sweep: `python jobs/sweep.py --help`."""

from genlab.sweeps.sweep import main

if __name__ == "__main__":
    main()
