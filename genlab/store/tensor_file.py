"""Files of named tensors in the safetensors format, written from one buffer.

The format is the length of a JSON header (8 bytes, little-endian), the header, and the tensors' bytes, which here start
at a multiple of 8: https://github.com/huggingface/safetensors#format.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from upath import UPath

from genlab.core.storage import read_range

DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of dtypes in the header, in the order in which the safetensors library writes tensors: large dtypes
first, which aligns each tensor."""


class TensorFile:
    """A buffer with the content of a safetensors file, into which tensors of one layout are copied again and again.

    Args:
        layout: dtype and shape of each tensor by name.
        pinned: whether the buffer is page-locked memory, to which a GPU copies several times faster.
    """

    def __init__(self, layout: Mapping[str, tuple[torch.dtype, torch.Size]], pinned: bool = False) -> None:
        self.layout = dict(layout)
        order = list(DTYPES)
        header: dict[str, Any] = {}
        spans: dict[str, tuple[int, int]] = {}
        end = 0
        for name, (dtype, shape) in sorted(layout.items(), key=lambda item: (order.index(item[1][0]), item[0])):
            begin, end = end, end + shape.numel() * dtype.itemsize
            spans[name] = (begin, end)
            header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        head = len(text).to_bytes(8, "little") + text
        buffer = torch.empty(len(head) + end, dtype=torch.uint8, pin_memory=pinned)
        self.content = memoryview(buffer.numpy())  # type: ignore[arg-type]
        """The bytes of the file."""
        self.content[: len(head)] = head
        body = buffer[len(head) :]
        self._tensors = {
            name: body[begin:end].view(layout[name][0]).view(layout[name][1]) for name, (begin, end) in spans.items()
        }

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy in tensors of the buffer's layout, from any device; returns when they are copied."""
        for name, tensor in tensors.items():
            self._tensors[name].copy_(tensor.detach(), non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()


def layout_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    """Return dtype and shape of each tensor by name."""
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def tensor_file(tensors: Mapping[str, Tensor]) -> memoryview:
    """Return the content of a safetensors file of ``tensors``, which may be on any device."""
    file = TensorFile(layout_of(tensors))
    file.fill(tensors)
    return file.content


def read_tensor_bytes(file: UPath, name: str) -> bytes:
    """Read the bytes of one tensor out of a file, and nothing of the others.

    Raises:
        OSError: the file is not there.
        EOFError: it ends early.
        KeyError, ValueError: it is no such file, or has no such tensor.
        StorageError: the storage cannot be reached.
    """
    length = int.from_bytes(read_range(file, 0, 8), "little")
    begin, end = json.loads(read_range(file, 8, length))[name]["data_offsets"]
    return read_range(file, 8 + length + begin, end - begin)
