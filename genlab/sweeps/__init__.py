"""Sweeps: many runs of one model family that answer one question, side by side under Ray Tune.

In: a search space (which options vary, and the metric that decides) and a config. Out: a run with its report for each
trial, a table of the results as ``sweep.json``, and the command that trains the best one again. Read ``space`` first;
then ``sweep``. ``checks`` refuses what no trial could use, ``trials`` says which trials there are and where their runs
lie, ``tuning`` runs them under Ray Tune.
"""
