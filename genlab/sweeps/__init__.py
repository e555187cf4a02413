"""Sweeps: many runs of one model family that answer one question, side by side under Ray Tune.

In: a search space (which options vary, and the metrics that decide) and a config. Out: a run with its report for each
trial, a table of the points as ``sweep.json``, and the chosen trial's figure on rows that no trial was measured on.
Read ``space`` first; then ``sweep``. ``checks`` refuses what no trial could use, ``trials`` says which trials there are
and where their runs lie, ``tuning`` runs them under Ray Tune, ``ranking`` orders their points, and ``chosen`` measures
the best.
"""
