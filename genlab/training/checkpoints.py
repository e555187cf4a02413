"""Checkpoints: self-describing folders that a thread writes beside training and that are read only when complete.

``checkpoints/step-00000100/`` holds ``state.safetensors`` and ``index.json``. The index, with the size and checksum of
each file, is written last: a folder without one was torn by a crash.
"""

import contextlib
import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import safetensors.torch
import xxhash
from safetensors import SafetensorError
from torch import Tensor
from upath import UPath

from genlab import __version__
from genlab.core.errors import GenlabError, RunError, StorageError
from genlab.core.storage import is_remote, read_bytes, read_json, write_atomic, write_json
from genlab.store.tensor_file import TensorFile, layout_of

FORMAT = "genlab-checkpoint"
VERSION = 1
INDEX = "index.json"
STATE = "state.safetensors"


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for the last write.

    A save copies the state once, into a buffer with the content of the file, which is kept for the next save (and
    pinned for a GPU). The buffer itself is hashed and written, so memory holds the state and one copy of it.

    Args:
        directory: the run's ``checkpoints`` folder.
        keep: how many of the newest complete checkpoints stay.
    """

    def __init__(self, directory: UPath, keep: int) -> None:
        self.directory = directory
        self.keep = keep
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._file: TensorFile | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self.wait()
        finally:
            self._executor.shutdown(wait=True)

    def save(
        self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], after: Future[None] | None = None
    ) -> None:
        """Write a checkpoint of ``tensors`` (on any device) as they are now; return when they are copied.

        At most one write is under way: a second save waits for it, and raises what it raised.

        Args:
            step: steps done.
            tensors: the state.
            facts: further fields of the index.
            after: another write, which must end before this one: this write waits for it, and fails if it failed.
        """
        self.wait()
        layout = layout_of(tensors)
        if self._file is None or self._file.layout != layout:
            self._file = TensorFile(layout, pinned=any(tensor.is_cuda for tensor in tensors.values()))
        self._file.fill(tensors)
        self._pending = self._executor.submit(self._write, step, self._file.content, dict(facts), after)

    def wait(self) -> None:
        """Wait for the write under way, and raise what it raised."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _write(self, step: int, state: memoryview, facts: Mapping[str, Any], after: Future[None] | None) -> None:
        if after is not None:
            after.result()
        folder = self._folder(step)
        folder.mkdir(parents=True, exist_ok=True)
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
            self._delete(old)

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, which are those with an index, oldest first."""
        return sorted(step for step, folder in self._folders().items() if (folder / INDEX).exists())

    def newest(self) -> tuple[int, dict[str, Tensor], list[str]]:
        """Read the newest checkpoint that is complete and undamaged. Rank 0 calls it when a run starts.

        Checkpoints that a crash left incomplete are deleted, as are the parts of unfinished uploads to an object store.
        A damaged checkpoint is set aside: it is renamed ``damaged-...``; on an object store its index is deleted.

        Returns:
            Its step and tensors (0 and none when there is no such checkpoint), and messages for the user.
        """
        messages = [f"swept the parts of an upload that never ended: {key}" for key in _abort_uploads(self.directory)]
        complete = self.steps()
        for step, folder in self._folders().items():
            if step not in complete:
                remove_folder(folder)
                messages.append(f"swept {folder}: a checkpoint whose write was cut short")
        for step in reversed(complete):
            try:
                return step, self.read(step), messages
            except RunError as error:
                messages.append(f"set aside a damaged checkpoint: {error}")
            folder = self._folder(step)
            if is_remote(folder):
                (folder / INDEX).unlink()
                continue
            aside = folder.with_name(f"damaged-{folder.name}")
            if aside.exists():
                remove_folder(aside)
            folder.rename(aside)
        return 0, {}, messages

    def read(self, step: int) -> dict[str, Tensor]:
        """Read the tensors of a checkpoint to the CPU.

        Raises:
            RunError: when a file is missing, damaged, or of another checkpoint format.
            StorageError: when the storage cannot be reached; the checkpoint may be good.
        """
        folder = self._folder(step)
        try:
            index = read_json(folder / INDEX)
            if index.get("format") != FORMAT or index.get("version") != VERSION or index.get("step") != step:
                raise RunError(f"{folder / INDEX}: not an index of checkpoint format {VERSION} for step {step}")
            state = read_bytes(folder / STATE)
            if xxhash.xxh3_128_hexdigest(state) != index["files"][STATE]["xxh3"]:
                raise RunError(f"{folder / STATE}: damaged (its checksum does not match)")
            return safetensors.torch.load(state)
        except StorageError:
            raise
        except (FileNotFoundError, KeyError, AttributeError, TypeError, SafetensorError, GenlabError) as error:
            raise error if isinstance(error, RunError) else RunError(f"{folder}: {error}") from None

    def _delete(self, step: int) -> None:
        """Delete a checkpoint, its index first: without it the rest does not count as a checkpoint."""
        folder = self._folder(step)
        (folder / INDEX).unlink(missing_ok=True)
        remove_folder(folder)

    def _folder(self, step: int) -> UPath:
        return self.directory / f"step-{step:08d}"

    def _folders(self) -> dict[int, UPath]:
        if not self.directory.exists():
            return {}
        names = (re.fullmatch(r"step-(\d{8,})", folder.name) for folder in self.directory.iterdir())
        return {step: self._folder(step) for step in sorted(int(name[1]) for name in names if name)}


def _abort_uploads(directory: UPath) -> list[str]:
    """Abort the multipart uploads into ``directory`` that a killed worker left on S3, and return their keys.

    Such uploads cost storage and appear in no listing. Other object stores delete them by themselves.
    """
    if not is_remote(directory) or not hasattr(directory.fs, "list_multipart_uploads"):
        return []
    bucket, _, prefix = directory.path.strip("/").partition("/")
    uploads = [
        upload for upload in directory.fs.list_multipart_uploads(bucket) if upload["Key"].startswith(f"{prefix}/")
    ]
    for upload in uploads:
        directory.fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    return [upload["Key"] for upload in uploads]


def remove_folder(folder: UPath) -> None:
    """Delete a folder with its content, if it is there."""
    with contextlib.suppress(FileNotFoundError):  # An earlier request may have deleted it and its answer been lost.
        folder.fs.rm(folder.path, recursive=True)
