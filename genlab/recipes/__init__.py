"""What one training step means, one file a model family."""
