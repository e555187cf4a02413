"""What every room may use: errors with one message, typed configs, files on disk and on S3, seeds, progress, families.

In: paths, URLs, command-line words. Out: values that were checked, bytes that were read or written whole. Read
``errors`` first, then ``config`` and ``storage``.
"""
