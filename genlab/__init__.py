"""genlab: distributed training of image generators on Ray, from Arrow-streamed image shards.

In: images from folders, archives or tables, as data sets; the config of a model family. Out: runs with checkpoints and
reports, trained models, and what these make of pictures, on the command line and over HTTP. Each package opens with a
paragraph of this form; docs/architecture.md lists the packages, says which may import which, and where to find what.
Read that first; then ``cli.main``, where every command starts, and ``training.loop``, which trains every model.
"""

__version__ = "0.1.0"
