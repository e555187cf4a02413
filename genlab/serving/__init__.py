"""Models over HTTP, under Ray Serve. The input is HTTP requests; the output is PNG files and JSON. Read ``api`` first:
it has the routes and their errors, and sends the work to a backend. ``schema`` holds the JSON bodies, ``uploads`` the
limits of a client's picture, ``generator`` the models of one process, each on an engine of ``genlab.inference``, and
``app`` builds from these the application that Ray Serve runs.
"""
