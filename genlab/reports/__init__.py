"""Reports: the page that shows what a run did.

In: a run directory, finished or not. Out: ``report.html`` with its pictures, and ``scores.json``. Curves and notes come
from the run's metrics, measurements of the model from the functions of ``evaluation``. Read ``report`` first, which
puts the page together; then ``page``, which defines its parts and makes HTML of them, for a sweep's page, too. ``run``
reads a run directory, ``curves`` draws metrics, ``warning_signs`` looks for failures of training. What a family adds is
in the module of its name (``family`` says how): ``cyclegan``, ``stylegan``, ``vae`` and ``cvae``; the last two share
``latent_space``. ``operations`` shows what any other model can do, ``ledger`` what the run cost.
"""
