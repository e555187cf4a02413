"""The loop under Ray Train: the driver that starts workers, what a worker runs, and how they send messages home.

In: a plan. Out: the same loop on many workers. Read ``driver`` first.
"""
