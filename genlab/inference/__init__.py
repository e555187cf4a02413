"""Models at work on pictures: the one engine under command line, batch translation and server.

In: a model directory and the bytes of image files, or a folder or data set of them. Out: PNG files, or graphs for other
runtimes. Read ``engine`` first.
"""
