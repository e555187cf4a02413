"""Sources of images, Arrow shards, ingest and the stream that feeds training."""
