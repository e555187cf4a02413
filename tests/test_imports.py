"""Importing genlab changes nothing in the program that does so."""

import subprocess
import sys

import pytest

WATCHED = """
import atexit, gc, importlib, logging, multiprocessing, os, pkgutil, signal, sys, warnings
import torch

effects = []

def watch(owner, name):
    original = getattr(owner, name)

    def wrapper(*arguments, **options):
        importer = sys._getframe(1).f_globals.get("__name__", "")
        if importer.split(".")[0] == "genlab":
            effects.append(f"{importer}: {name}")
        return original(*arguments, **options)

    setattr(owner, name, wrapper)

for owner, names in [
    (atexit, ["register"]),
    (gc, ["freeze", "disable", "set_threshold"]),
    (logging, ["basicConfig", "disable"]),
    (logging.Logger, ["setLevel", "addHandler", "addFilter"]),
    (multiprocessing, ["set_start_method", "set_forkserver_preload"]),
    (multiprocessing.context.BaseContext, ["set_start_method", "set_forkserver_preload"]),
    (os, ["register_at_fork", "putenv", "umask", "nice", "chdir"]),
    (type(os.environ), ["__setitem__", "__delitem__", "setdefault", "update", "pop"]),
    (signal, ["signal"]),
    (sys, ["setswitchinterval", "setrecursionlimit"]),
    (warnings, ["filterwarnings", "simplefilter"]),
    (torch, ["set_num_threads", "set_default_dtype", "manual_seed", "use_deterministic_algorithms",
             "set_deterministic_debug_mode", "set_grad_enabled", "set_float32_matmul_precision"]),
]:
    for name in names:
        watch(owner, name)

flags = lambda: (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark, torch.get_default_dtype())
before = flags()
import genlab
names = [module.name for module in pkgutil.walk_packages(genlab.__path__, "genlab.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
assert len(names) > 100, names
assert flags() == before
assert not effects, effects
"""

FORKED = """
import gc, os
from genlab.core.storage import locate

def frozen():
    child = os.fork()
    if child == 0:
        os._exit(gc.get_freeze_count() > 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

assert not frozen()
locate("s3://bucket/file")
assert frozen()
"""


def run(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_no_module_has_an_effect_on_the_program_that_imports_it() -> None:
    run(WATCHED)


def test_forked_processes_are_as_python_makes_them_until_there_is_a_client_of_s3() -> None:
    run(FORKED)
