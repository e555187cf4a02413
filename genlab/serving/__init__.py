"""The Ray Serve app."""
