"""Models over HTTP, under Ray Serve.

In: HTTP requests. Out: PNG files, JSON. Read ``api`` first: the routes; ``app`` is what Ray Serve builds.
"""
