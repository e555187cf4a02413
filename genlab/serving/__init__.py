"""Models over HTTP: in one process, or as replicas of Ray Serve.

In: HTTP requests. Out: pictures and JSON. Nothing here knows how models are trained. Read ``service`` first, which puts
the parts together; then ``api``. A request goes through ``intake`` (id, limits of its body, errors, log) and ``guard``
(hosts, origins, ``tokens``) to its route in ``api``; ``library`` has the models, ``operations`` what may be asked of
them, ``uploads`` the pictures that come, ``computing`` a batcher of ``genlab.inference`` for an event loop, ``answers``
the pictures that go. ``problems`` are errors, ``limits`` and ``settings`` what can be set, ``telemetry`` metrics,
``schema``, ``cards`` and ``openapi`` descriptions; ``evaluations`` and ``edits`` find what lies ``beside`` models.
``jobs`` are operations on many pictures, kept in a ``job_store``. ``pages`` are for people; programs that ask use
``genlab.client``. ``connections`` is for the server of one process, ``app`` for Ray Serve, ``haproxy`` for the proxy in
front of it.
"""
