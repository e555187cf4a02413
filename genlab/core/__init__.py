"""What every other room uses: errors with one message, typed configs, files on disk and on S3, seeds, progress, and
the list of families. Core takes paths, URLs and the words of a command line, and returns values that were checked and
files that were read or written whole. Read ``errors`` first, then ``config`` and ``storage``; below ``storage`` are
``s3``, which makes the requests, and ``retries``, the one place that repeats them.
"""
