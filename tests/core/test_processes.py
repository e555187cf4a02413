import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

PARENT = """
import multiprocessing, time
from genlab.core.processes import end_with_parent

def work(number):
    end_with_parent()
    number.value = multiprocessing.process.current_process().pid
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    number = context.Value("i", 0)
    context.Process(target=work, args=(number,)).start()
    while not number.value:
        time.sleep(0.01)
    print(number.value, flush=True)
    time.sleep(600)
"""


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 30
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
