"""Proofs of genlab's promises that users can run on their own config and data, and the description of a model.

In: a family with its config, a run, or a model directory. Out: printed lines, and whether the promise holds: a killed
run resumes bit for bit (``verify_resume``), and results do not depend on the number of workers (``verify_ddp``); both
compare runs by ``compare_runs``. ``describe`` lists the layers of a model. Read ``verify_resume`` first.
"""
