"""The one training loop, and its parts. What of it is Ray's lies in ``ray``.

In: a family and its config. Out: a run directory. Read ``loop`` first: all of training, from top to bottom; ``plan`` is
what is checked before it, ``launch`` is who calls it.
"""
