"""The command line, ``genlab COMMAND``: a module for each command.

In: the words of a command line. Out: calls of the other packages, lines for a terminal, and an exit status. Read
``main`` first, which lists the commands and imports the one that is called; then ``sample``, a short one. A command
parses its options into a dataclass, whose fields are its documentation, and runs in ``genlab.core.errors.run_command``.
Three modules are no commands: ``family_options`` reads a family with its options for ``describe``, ``verify_ddp`` and
``verify_resume``, ``model_options`` a model with the options of its operation for ``sample`` and its like, and
``classifier_training`` trains the classifier that ``evaluate`` and ``directions`` need.
"""
