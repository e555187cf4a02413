"""Child processes that do not outlive their parent."""

import multiprocessing
import os
from multiprocessing.process import BaseProcess
from threading import Thread


def end_with_parent() -> None:
    """Make this process, started by ``multiprocessing``, end as soon as its parent has ended, however that ended.

    A worker of a process pool would otherwise wait for work for ever after its parent was killed.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_exit_after, args=(parent,), name="genlab-parent", daemon=True).start()


def _exit_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
