"""Sweeps: many runs of one model family that answer one question, side by side under Ray Tune.

In: a search space (which options vary, and the metrics that decide) and a config. Out: a run with its report for each
trial, and of all of them ``sweep.html``, ``results.parquet`` and ``sweep.json``, with the chosen trial's figure on rows
that no trial was measured on. Read ``space`` first; then ``sweep``. ``checks`` refuses what no trial could use,
``trials`` says which trials there are and where their runs lie, ``study`` has Optuna choose them, ``stopping`` ends
those early that do badly, ``tuning`` runs them under Ray Tune, ``progress`` writes the sweep's files as they end,
``live`` shows how far they are, ``disk`` bounds their size, ``hparams`` is for TensorBoard, ``results`` reads their
runs, ``ranking`` orders their points, ``chosen`` measures the best, ``commands`` says what to do with it, ``table`` and
``page`` show all of it, the latter with ``charts`` and ``importance``.
"""
