"""Trained models at work: pictures in and out, and graphs for other runtimes."""
