"""What genlab promises, tried on a user's own model and data: exact resume, equal results on any number of workers.

In: a family and its config, or a run. Out: a result and where the first difference is. Read ``verify_resume`` first.
"""
