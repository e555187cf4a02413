"""Checkpoints: self-describing folders, written behind training's back, trusted only when complete.

``checkpoints/step-00000100/`` holds ``state.safetensors`` and ``index.json``. The index, with the size and checksum of
each file, is written last: a folder without one was torn by a crash.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import safetensors.torch
import xxhash
from safetensors import SafetensorError
from torch import Tensor
from upath import UPath

from genlab import __version__
from genlab.errors import GenlabError, RunError
from genlab.storage import is_remote, read_json, write_atomic, write_json

FORMAT = "genlab-checkpoint"
VERSION = 1
INDEX = "index.json"
STATE = "state.safetensors"


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for the last write.

    Args:
        directory: the run's ``checkpoints`` folder.
        keep: how many of the newest complete checkpoints stay.
    """

    def __init__(self, directory: UPath, keep: int) -> None:
        self.directory = directory
        self.keep = keep
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self.wait()
        finally:
            self._executor.shutdown(wait=True)

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write a checkpoint of ``tensors`` (any device) as of now; returns once they are copied.

        At most one write is under way: a second one waits for the first, and raises what that one raised.
        """
        self.wait()
        copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        self._pending = self._executor.submit(self._write, step, copies, dict(facts))

    def wait(self) -> None:
        """Wait for the write under way, and raise what it raised."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _write(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        folder = self._folder(step)
        folder.mkdir(parents=True, exist_ok=True)
        state = safetensors.torch.save(dict(tensors))
        write_atomic(folder / STATE, state)
        write_json(
            folder / INDEX,
            {
                "format": FORMAT,
                "version": VERSION,
                "genlab": __version__,
                "step": step,
                **facts,
                "files": {STATE: {"bytes": len(state), "xxh3": xxhash.xxh3_128_hexdigest(state)}},
            },
        )
        for old in self.steps()[: -self.keep]:
            (self._folder(old) / INDEX).unlink()
            _remove(self._folder(old))

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first: those that have an index."""
        return sorted(step for step, folder in self._folders().items() if (folder / INDEX).exists())

    def newest(self) -> tuple[int, list[str]]:
        """The step of the newest checkpoint that can be trusted, 0 when there is none; for rank 0 at start.

        What a crash left half-written is swept; a damaged checkpoint is set aside (renamed ``damaged-...``; on an
        object store it loses its index). What was done is returned as messages.
        """
        said: list[str] = []
        complete = self.steps()
        for step, folder in self._folders().items():
            if step not in complete:
                _remove(folder)
                said.append(f"swept {folder}: a checkpoint whose write was cut short")
        for step in reversed(complete):
            try:
                self.read(step)
            except RunError as error:
                said.append(f"set aside a damaged checkpoint: {error}")
                folder = self._folder(step)
                if is_remote(folder):
                    (folder / INDEX).unlink()
                else:
                    aside = folder.with_name(f"damaged-{folder.name}")
                    if aside.exists():
                        _remove(aside)
                    folder.rename(aside)
                continue
            return step, said
        return 0, said

    def read(self, step: int) -> dict[str, Tensor]:
        """The tensors of a checkpoint, on the CPU.

        Raises:
            RunError: when a file is missing, damaged, or of another checkpoint format.
        """
        folder = self._folder(step)
        try:
            index = read_json(folder / INDEX)
            if index.get("format") != FORMAT or index.get("version") != VERSION or index.get("step") != step:
                raise RunError(f"{folder / INDEX}: not an index of checkpoint format {VERSION} for step {step}")
            state = (folder / STATE).read_bytes()
            if xxhash.xxh3_128_hexdigest(state) != index["files"][STATE]["xxh3"]:
                raise RunError(f"{folder / STATE}: damaged (its checksum does not match)")
            return safetensors.torch.load(state)
        except (OSError, KeyError, AttributeError, TypeError, SafetensorError, GenlabError) as error:
            raise error if isinstance(error, RunError) else RunError(f"{folder}: {error}") from None

    def _folder(self, step: int) -> UPath:
        return self.directory / f"step-{step:08d}"

    def _folders(self) -> dict[int, UPath]:
        if not self.directory.exists():
            return {}
        names = (folder.name for folder in self.directory.iterdir())
        steps = (int(name.removeprefix("step-")) for name in names if name.startswith("step-"))
        return {step: self._folder(step) for step in sorted(steps)}


def _remove(folder: UPath) -> None:
    folder.fs.rm(folder.path, recursive=True)
