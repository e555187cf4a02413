"""Checkpoints: self-describing folders, written behind training's back, trusted only when complete.

``checkpoints/step-00000100/`` holds ``state.safetensors`` and ``index.json``. The index, with the size and checksum of
each file, is written last: a folder without one was torn by a crash.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import safetensors.torch
import torch
import xxhash
from safetensors import SafetensorError
from torch import Tensor
from upath import UPath

from genlab import __version__
from genlab.core.errors import GenlabError, RunError, StorageError
from genlab.core.storage import is_remote, read_bytes, read_json, write_atomic, write_json

FORMAT = "genlab-checkpoint"
VERSION = 1
INDEX = "index.json"
STATE = "state.safetensors"

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of dtypes in a safetensors header."""


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for the last write.

    A save copies the state once, into a buffer that has the layout of the file and is kept for the next save (pinned
    for a GPU). It is hashed and written as it is: beside the training's own state, memory holds one copy.

    Args:
        directory: the run's ``checkpoints`` folder.
        keep: how many of the newest complete checkpoints stay.
    """

    def __init__(self, directory: UPath, keep: int) -> None:
        self.directory = directory
        self.keep = keep
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._image: StateImage | None = None

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
        """Write a checkpoint of ``tensors`` (any device) as of now; returns once they are copied.

        At most one write is under way: a second one waits for the first, and raises what that one raised.

        Args:
            step: steps done.
            tensors: the state.
            facts: what else the index says.
            after: what must be on disk before it: the write waits for it, and fails with it.
        """
        self.wait()
        layout = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
        if self._image is None or self._image.layout != layout:
            self._image = StateImage(layout, pinned=any(tensor.is_cuda for tensor in tensors.values()))
        self._image.take(tensors)
        self._pending = self._executor.submit(self._write, step, self._image.file, dict(facts), after)

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
        """Steps of the complete checkpoints, oldest first: those that have an index."""
        return sorted(step for step, folder in self._folders().items() if (folder / INDEX).exists())

    def newest(self) -> tuple[int, dict[str, Tensor], list[str]]:
        """The newest checkpoint that can be trusted: its step and tensors, 0 and none when there is none.

        For rank 0 at start. What a crash left half-written is swept, with the parts of uploads that never ended on an
        object store; a damaged checkpoint is set aside (renamed ``damaged-...``; on an object store it loses its
        index). What was done is returned as messages.
        """
        said = [f"swept the parts of an upload that never ended: {key}" for key in _abort_uploads(self.directory)]
        complete = self.steps()
        for step, folder in self._folders().items():
            if step not in complete:
                remove_folder(folder)
                said.append(f"swept {folder}: a checkpoint whose write was cut short")
        for step in reversed(complete):
            try:
                return step, self.read(step), said
            except RunError as error:
                said.append(f"set aside a damaged checkpoint: {error}")
            folder = self._folder(step)
            if is_remote(folder):
                (folder / INDEX).unlink()
                continue
            aside = folder.with_name(f"damaged-{folder.name}")
            if aside.exists():
                remove_folder(aside)
            folder.rename(aside)
        return 0, {}, said

    def read(self, step: int) -> dict[str, Tensor]:
        """The tensors of a checkpoint, on the CPU.

        Raises:
            RunError: when a file is missing, damaged, or of another checkpoint format.
            StorageError: when the store cannot be reached, which says nothing of the checkpoint.
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
        """Delete a checkpoint, its index first: what is left is not one."""
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


class StateImage:
    """A buffer in the layout of a safetensors file, into which a state is copied again and again.

    The format is the length of a JSON header (8 bytes, little-endian), the header, and the tensors' bytes, which here
    start at a multiple of 8: https://github.com/huggingface/safetensors#format. Larger dtypes come first, so that each
    tensor is aligned.

    Args:
        layout: dtype and shape of each tensor by name.
        pinned: in page-locked memory, to which a GPU copies several times faster.
    """

    def __init__(self, layout: Mapping[str, tuple[torch.dtype, torch.Size]], pinned: bool) -> None:
        self.layout = dict(layout)
        header: dict[str, Any] = {}
        spans: dict[str, tuple[int, int]] = {}
        end = 0
        for name, (dtype, shape) in sorted(layout.items(), key=lambda item: (-item[1][0].itemsize, item[0])):
            begin, end = end, end + shape.numel() * dtype.itemsize
            spans[name] = (begin, end)
            header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        head = len(text).to_bytes(8, "little") + text
        buffer = torch.empty(len(head) + end, dtype=torch.uint8, pin_memory=pinned)
        self.file = memoryview(buffer.numpy())  # type: ignore[arg-type]
        """The bytes of the file."""
        self.file[: len(head)] = head
        body = buffer[len(head) :]
        self._tensors = {
            name: body[begin:end].view(layout[name][0]).view(layout[name][1]) for name, (begin, end) in spans.items()
        }

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors of that layout, from any device; returns when they are copied."""
        for name, tensor in tensors.items():
            self._tensors[name].copy_(tensor.detach(), non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()


def _abort_uploads(directory: UPath) -> list[str]:
    """Abort the multipart uploads into ``directory`` that a killed worker left on S3; their keys.

    They cost storage and are seen in no listing. Other object stores drop theirs by themselves.
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
    """Delete a folder with all that is in it, if it is there."""
    with contextlib.suppress(FileNotFoundError):  # An earlier try may have done it, and its answer been lost.
        folder.fs.rm(folder.path, recursive=True)
