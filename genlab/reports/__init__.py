"""The HTML report of a run: draws what was measured.

In: a run directory. Out: ``report.html``, its pictures and ``scores.json``. Read ``report`` first.
"""
