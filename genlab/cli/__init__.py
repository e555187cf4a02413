"""The command line, ``genlab COMMAND``: a module for each command. The input is the words of a command line; the output
is calls of the other rooms, lines for a terminal, and an exit status. A command parses its options into a dataclass,
whose fields are its documentation, and runs in ``genlab.core.errors.run_command``. Read ``main`` first: it lists the
commands and imports the one that is called.
"""
