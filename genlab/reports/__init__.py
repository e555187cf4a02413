"""Reports: a run directory comes in, finished or not; ``report.html`` with its pictures and ``scores.json`` come out.

A report draws what was measured and measures nothing itself: metrics come from the run, scores from ``evaluation``.
Read ``report`` first, which puts the page together of the parts in ``page``. ``run`` reads a run directory, ``curves``
draws its metrics, ``warning_signs`` looks for failures of training in them. What a family adds is in the module of its
name (``family`` says how): ``cyclegan``, ``vae`` and ``cvae``; the last two share ``latent_space``.
"""
