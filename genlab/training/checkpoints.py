"""Checkpoints: self-describing folders that a thread writes beside training and that are read only when complete.

``checkpoints/step-00000100/`` holds ``state-00001.safetensors``, numbered by the attempt that wrote it
(:mod:`genlab.training.attempts`), and ``index.json``. The index, with the attempt and the size and checksum of the
file, is written last: a folder without one was torn by a crash.
"""

import contextlib
import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import safetensors.torch
import xxhash
from safetensors import SafetensorError
from torch import Tensor
from upath import UPath

from genlab import __version__
from genlab.core.errors import GenlabError, RunError, StorageError
from genlab.core.storage import (
    create_exclusive,
    delete,
    delete_folder,
    exists,
    is_remote,
    json_bytes,
    names,
    read_bytes,
    read_json,
    write_atomic,
    write_json,
)
from genlab.store.tensor_file import TensorFile, layout_of
from genlab.training.attempts import Attempt

FORMAT = "genlab-checkpoint"
VERSION = 2
READABLE_VERSIONS = (1, 2)
"""Version 1 has no attempts, and its file is called ``state.safetensors``."""
INDEX = "index.json"
FOLDERS_OF_UPLOADS = ("checkpoints", "candidates", "model")
"""Folders of a run directory whose files only the last attempt writes, and in parts when they are large."""


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for the last write.

    A save copies the state once, into a buffer with the content of the file, which is kept for the next save (and
    pinned for a GPU). The buffer itself is hashed and written, so memory holds the state and one copy of it.

    Args:
        directory: the run's ``checkpoints`` folder.
        keep: how many of the newest complete checkpoints stay.
        attempt: the attempt that writes them; ``None`` if nothing else can, or to read them only.
        spared: steps whose checkpoints stay beside these.
    """

    def __init__(
        self, directory: UPath, keep: int, attempt: Attempt | None = None, spared: Collection[int] = ()
    ) -> None:
        self.directory = directory
        self.keep = keep
        self._spared = spared
        self._attempt = attempt
        self._kept: list[int] | None = None  # Another attempt may add to those in the folder.
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
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, Any],
        after: Sequence[Future[None] | None] = (),
    ) -> None:
        """Write a checkpoint of ``tensors`` (on any device) as they are now; return when they are copied.

        At most one write is under way: a second save waits for it, and raises what it raised.

        Args:
            step: steps done.
            tensors: the state.
            facts: further fields of the index.
            after: other writes, which must end before this one: this write waits for them, and fails if one failed.
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

    def _write(
        self, step: int, state: memoryview, facts: Mapping[str, Any], after: Sequence[Future[None] | None]
    ) -> None:
        for other in after:
            if other is not None:
                other.result()
        if self._kept is None:
            self._kept = self.steps()
        folder = self._folder(step)
        number = self._attempt.number if self._attempt else 0
        file = folder / f"state-{number:05d}.safetensors"
        write_atomic(file, state)
        index = {
            "format": FORMAT,
            "version": VERSION,
            "genlab": __version__,
            "step": step,
            "attempt": number,
            **facts,
            "files": {file.name: {"bytes": len(state), "xxh3": xxhash.xxh3_128_hexdigest(state)}},
        }
        self._require_last_attempt()
        if not create_exclusive(folder / INDEX, json_bytes(index)):
            # That of an earlier attempt, which does not count; or this attempt is over, and it is that of a later one.
            self._require_last_attempt()
            write_json(folder / INDEX, index)
        self._kept = sorted({*self._kept, step})
        for old in [one for one in self._kept if one not in self._spared][: -self.keep]:
            self._delete(old)
            self._kept.remove(old)

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, which are those with an index, oldest first."""
        return sorted(step for step, folder in self._folders().items() if exists(folder / INDEX))

    def newest(self) -> tuple[int, dict[str, Tensor], list[str]]:
        """Read the newest checkpoint that is complete and undamaged. Rank 0 calls it when a run starts.

        Checkpoints that a crash left incomplete are deleted, as are the parts of the run's unfinished uploads to an
        object store: of checkpoints, candidates and the model.
        A damaged checkpoint, and one that an attempt wrote when a later one had taken over, is set aside: it is renamed
        ``damaged-...``; on an object store its index is deleted.

        Returns:
            Its step and tensors (0 and none when there is no such checkpoint), and messages for the user.

        Raises:
            SupersededError: a later attempt goes on with the run.
        """
        # All that is found while this attempt is the last is older than it: a later one will name its files otherwise.
        complete = self.steps()
        torn = {folder: names(folder) for step, folder in self._folders().items() if step not in complete}
        uploads, messages = _unfinished_uploads(self.directory.parent)
        self._require_last_attempt()
        messages += _abort(self.directory.parent, uploads)
        for folder, files in torn.items():
            _remove(folder, files)
            messages.append(f"swept {folder}: a checkpoint whose write was cut short")
        found, tensors = 0, dict[str, Tensor]()
        for step in reversed(complete):
            if self._is_released(step):
                self._require_last_attempt()
                self._delete(step)
                messages.append(f"the run starts anew: the tensors of its checkpoint of step {step:,} were deleted")
                continue
            try:
                self._require_not_overruled(step)
                found, tensors = step, self.read(step)
                break
            except RunError as error:
                messages.append(f"set aside a damaged checkpoint: {error}")
            self._require_last_attempt()
            self._set_aside(step)
        if self._attempt:
            self._attempt.resume_from(found)
        self._kept = [step for step in complete if step <= found]
        return found, tensors, messages

    def release(self) -> None:
        """Delete the tensors of all checkpoints of a run that has ended; the last index stays and says so."""
        steps = self.steps()
        if not steps or self._is_released(steps[-1]):
            return
        *earlier, last = steps
        for step in earlier:
            self._delete(step)
        write_json(self._folder(last) / INDEX, self._index(last) | {"files": {}})
        _remove(self._folder(last), [name for name in names(self._folder(last)) if name != INDEX])

    def _is_released(self, step: int) -> bool:
        try:
            return self._index(step).get("files") == {}
        except RunError:
            return False

    def read(self, step: int) -> dict[str, Tensor]:
        """Read the tensors of a checkpoint to the CPU.

        Raises:
            RunError: when a file is missing, damaged, or of another checkpoint format.
            StorageError: when the storage cannot be reached; the checkpoint may be good.
        """
        folder = self._folder(step)
        try:
            index = self._index(step)
            if self._is_released(step):
                raise RunError(
                    f"{folder}: its tensors were deleted, since its sweep keeps those of the best trials only"
                )
            ((name, facts),) = index["files"].items()
            if "/" in name:
                raise RunError(f"{folder / INDEX}: {name!r} is not the name of a file in its folder")
            state = read_bytes(folder / name)
            if xxhash.xxh3_128_hexdigest(state) != facts["xxh3"]:
                raise RunError(f"{folder / name}: damaged (its checksum does not match)")
            return safetensors.torch.load(state)
        except StorageError:
            raise
        except (FileNotFoundError, KeyError, ValueError, AttributeError, TypeError, SafetensorError) as error:
            raise RunError(f"{folder}: {error}") from None

    def _index(self, step: int) -> dict[str, Any]:
        """Read the index of a checkpoint.

        Raises:
            RunError: when it is missing, damaged, or of another checkpoint format.
        """
        file = self._folder(step) / INDEX
        try:
            index: dict[str, Any] = read_json(file)
            expected = index.get("format") == FORMAT and index.get("step") == step
            if not expected or index.get("version") not in READABLE_VERSIONS:
                raise RunError(f"{file}: not an index of checkpoint format {VERSION} for step {step}")
        except StorageError:
            raise
        except (AttributeError, GenlabError) as error:
            raise error if isinstance(error, RunError) else RunError(str(error)) from None
        return index

    def _require_not_overruled(self, step: int) -> None:
        """Raise a RunError if an attempt wrote the checkpoint of ``step`` when a later one had taken over."""
        number = self._index(step).get("attempt", 0)
        if self._attempt and self._attempt.overrules(number, step):
            raise RunError(f"{self._folder(step)}: attempt {number} wrote it when a later one had taken over")

    def _require_last_attempt(self) -> None:
        if self._attempt:
            self._attempt.require_last()

    def _set_aside(self, step: int) -> None:
        folder = self._folder(step)
        if is_remote(folder):
            delete(folder / INDEX)
            return
        aside = folder.with_name(f"damaged-{folder.name}")
        delete_folder(aside)
        folder.rename(aside)

    def _delete(self, step: int) -> None:
        """Delete a checkpoint, its index first: without it the rest does not count as a checkpoint."""
        folder = self._folder(step)
        files = [name for name in names(folder) if name != INDEX]
        self._require_last_attempt()
        _remove(folder, [INDEX, *files])

    def _folder(self, step: int) -> UPath:
        return self.directory / f"step-{step:08d}"

    def _folders(self) -> dict[int, UPath]:
        found = (re.fullmatch(r"step-(\d{8,})", name) for name in names(self.directory))
        return {step: self._folder(step) for step in sorted(int(name[1]) for name in found if name)}


def _unfinished_uploads(run: UPath) -> tuple[list[dict[str, str]], list[str]]:
    """List the multipart uploads of a ``run`` directory that have not ended, and messages for the user.

    Such uploads, which a killed worker leaves on S3, cost storage and appear in no listing. Other object stores delete
    them by themselves.
    """
    if not is_remote(run) or not hasattr(run.fs, "list_multipart_uploads"):
        return [], []
    bucket, _, prefix = run.path.strip("/").partition("/")
    folders = tuple(f"{prefix}/{folder}/" for folder in FOLDERS_OF_UPLOADS)
    uploads: list[dict[str, str]] = []
    page: dict[str, str] = {}
    try:
        while True:
            answer = run.fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/", **page)
            uploads += [upload for upload in answer.get("Uploads", []) if upload["Key"].startswith(folders)]
            if not answer.get("IsTruncated"):
                return uploads, []
            page = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}
    except PermissionError:
        return [], [_not_swept(run)]


def _abort(run: UPath, uploads: list[dict[str, str]]) -> list[str]:
    """Abort unfinished uploads, and return messages for the user."""
    messages: list[str] = []
    bucket = run.path.strip("/").partition("/")[0]
    for upload in uploads:
        try:
            run.fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        except FileNotFoundError:  # It has ended meanwhile.
            continue
        except PermissionError:
            return [*messages, _not_swept(run)]
        messages.append(f"swept the parts of an upload that never ended: {upload['Key']}")
    return messages


def _not_swept(run: UPath) -> str:
    return (
        f"{run}: may not look for uploads that never ended (access denied); a lifecycle rule of the bucket can "
        "abort them"
    )


def _remove(folder: UPath, files: list[str]) -> None:
    """Delete the files of these names in a folder, and the folder if nothing else is in it."""
    for file in files:
        delete(folder / file)
    if not is_remote(folder):
        with contextlib.suppress(OSError):
            folder.rmdir()
