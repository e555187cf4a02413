"""Translate on a cluster: `ray job submit --working-dir . -- python jobs/translate.py MODEL IN OUT [options]`."""

from genlab.cli.translate import main

if __name__ == "__main__":
    main()
