"""What every other package uses: errors with one message, typed configs, files on disk and on S3, seeds, processes.

In: paths, URLs, and the words of a command line. Out: values that were checked, and files that were read or written
whole. Nothing here knows images or networks. Read ``errors`` first; then ``config`` and ``storage``. Files go through
``storage``; below it are ``s3``, which makes the requests, and ``retries``, the one place that repeats them. ``claims``
keeps other processes out of a folder, ``families`` lists the model families, ``option_text`` describes the options that
a dataclass declares, ``extras`` the optional parts of genlab. ``seeds`` derives seeds, ``progress`` and ``text`` are
for the terminal, ``processes`` starts child processes, ``ray_cluster`` connects to Ray, ``adam`` is the optimiser.
"""
