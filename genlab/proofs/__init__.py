"""Proofs of genlab's promises that users can run on their own config and data, and the description of a model.

In: a family with its config, a run, or a model directory. Out: printed lines, and whether the promise holds. Read
``verify_resume`` first: a killed run resumes bit for bit; then ``verify_ddp``: results do not depend on the number of
workers. Both train and compare runs with ``compare_runs``. ``describe`` lists the layers of a model.
"""
