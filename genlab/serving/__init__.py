"""Models over HTTP, under Ray Serve.

In: HTTP requests. Out: PNG files and JSON. Nothing here knows how models are trained. Read ``api`` first; then ``app``.
``api`` has the routes and their errors, and sends the work to a backend. ``schema`` holds the JSON bodies, ``uploads``
finds and checks the pictures that clients send, ``answers`` encodes those that they get, ``served_models`` the models
of one process, each on an engine of ``genlab.inference``; ``app`` builds from these the application that Ray Serve
runs.
"""
