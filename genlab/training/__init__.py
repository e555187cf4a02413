"""Training: the one loop for every model family, and its parts.

In: a family and its config. Out: a run directory, with checkpoints, metrics, pictures and the trained model. ``launch``
is the way from a config to a finished run: ``plan`` checks config and data, then the loop runs in this process or, by
way of ``ray``, on the workers of a cluster. ``loop`` is all of training from top to bottom: read it first. It works
with ``state`` (networks, optimisers, averages), ``step_context`` (what a recipe gets for a step), ``checkpoints``,
``tracking``, ``candidates`` (evaluation beside training) and ``session`` (the loop's view of the other workers).
"""
