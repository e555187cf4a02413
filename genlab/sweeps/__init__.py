"""Many runs that answer one question, under Ray Tune.

In: a search space. Out: a table, and the best run. Read ``space`` first.
"""
