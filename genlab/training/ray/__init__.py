"""Training on a Ray cluster: the loop of :mod:`genlab.training.loop` on many workers, under Ray Train.

In: a plan. Out: the run directory that the loop writes, and the run's messages on the driver's terminal. The driver
(``driver``, the process that the user started) sizes and starts the workers; each runs ``worker``, gets its input as
``task`` says, and sends messages back through the actor of ``messages``. ``alone`` trains a run of one worker in
a process that Ray gave it, without all of these. Read ``driver`` first.
"""
