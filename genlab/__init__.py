"""genlab: distributed training of image generators on Ray, from Arrow-streamed image shards."""

__version__ = "0.1.0"
