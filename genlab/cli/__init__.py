"""The command line: ``genlab COMMAND``, a module for each command, imported when it is called.

In: words. Out: calls of the rooms below, and lines for a terminal. Read ``main`` first.
"""
