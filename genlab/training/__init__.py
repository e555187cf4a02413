"""Training: the one loop for every model family, and its parts.

In: a family and its config. Out: a run directory, with checkpoints, metrics, pictures and the trained model. Read
``loop`` first, which is all of training from top to bottom; then ``launch``, the way from a config to a finished run:
``plan`` checks config and data, then the loop runs in this process or, by way of ``ray``, on the workers of a cluster.
The loop's parts are ``domain_data`` (a worker's batches, and the rows of a split), ``state`` (networks, optimisers,
averages of weights), ``step_context`` (what a recipe gets for a step), ``session`` (the loop's view of the other
workers), ``checkpoints``, ``tracking`` (the files in which a run is followed), ``console`` (the progress that the user
sees), ``meters`` (means of metrics, and speed), ``stopwatch`` (where the time goes), ``torch_settings`` (threads,
determinism, compilation) and ``candidates`` (evaluation beside training).
"""
