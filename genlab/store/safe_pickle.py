"""Pickles and files of ``torch.save``, read without running anything that they name.

A pickle is a program: it names functions and calls them. Here it is interpreted by a machine that has no functions: a
name becomes a :class:`Name`, a call a :class:`Call`, and nothing is imported, called or given an attribute. Names that
the reader did not expect are refused, whatever is done with them.
"""

import io
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGEST = 4 * 2**30
"""Bytes of the largest file that is read; the largest published networks take 0.4 GB."""
NAMES = frozenset(
    {
        "builtins.set",
        "collections.OrderedDict",
        "numpy.dtype",
        "numpy.ndarray",
        *(
            f"numpy.{core}.{name}"
            for core in ("core", "_core")
            for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
        ),
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor_v2",
        "torch.storage._load_from_bytes",
    }
)
"""Names in pickles of NumPy's arrays, and of PyTorch's tensors outside of ``torch.save``."""
_STORAGE = "torch.storage._load_from_bytes"
_MARK = object()
_VALUES = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
"""Instructions whose argument is a value: a number, a text or bytes."""


class UnsafeError(ValueError):
    """A file that is damaged, or that holds or names something else than what is read."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names; it is not looked up."""

    name: str


@dataclass(eq=False)
class Call:
    """What a pickle makes by calling a name; it is not called."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None
    """What the pickle sets as its state."""
    items: dict[Any, Any] = field(default_factory=dict)
    """What the pickle puts into it by key."""


def read_pickle(data: bytes, names: Collection[str]) -> Any:
    """Read a pickle as plain values, :class:`Name` and :class:`Call`; PyTorch's storages are those of weights alone.

    Args:
        data: the pickle.
        names: names that may stand in it, beside :data:`NAMES`, as ``module.name``.

    Raises:
        UnsafeError: it is no pickle, damaged, or names anything else.
    """
    try:
        return _run(data, NAMES | frozenset(names))
    except UnsafeError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise UnsafeError(f"not a pickle, or a damaged one ({str(error) or type(error).__name__})") from None


def _run(data: bytes, names: Collection[str]) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def after_mark() -> list[Any]:
        values = []
        while (value := stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def name(found: str) -> Name:
        if found.startswith("__builtin__."):
            found = found.replace("__builtin__", "builtins", 1)
        if found not in names:
            raise UnsafeError(f"it names {found[:100]!r}, which no file of such weights does; nothing in it was run")
        return Name(found)

    def put(pairs: list[Any]) -> None:
        target = as_mapping(stack[-1])
        if target is None:
            raise UnsafeError("it puts items into what holds none")
        if not all(isinstance(key, str | int) for key in pairs[::2]):
            raise UnsafeError("it has a key that is neither text nor a number")
        target.update(zip(pairs[::2], pairs[1::2], strict=True))

    def extend(values: list[Any]) -> None:
        if not isinstance(stack[-1], list):
            raise UnsafeError("it appends to what is no list")
        stack[-1].extend(values)

    for opcode, given, _ in pickletools.genops(io.BytesIO(data)):
        argument: Any = given
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack[-1]
            case "MARK":
                stack.append(_MARK)
            case "POP":
                stack.pop()
            case "POP_MARK":
                after_mark()
            case "DUP":
                stack.append(stack[-1])
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_SET":
                stack.append([])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode.name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "TUPLE" | "FROZENSET":
                stack.append(tuple(after_mark()))
            case "LIST":
                stack.append(after_mark())
            case "DICT":
                pairs = after_mark()
                stack.append({})
                put(pairs)
            case "APPEND":
                value = stack.pop()
                extend([value])
            case "APPENDS" | "ADDITEMS":
                extend(after_mark())
            case "SETITEM":
                pair = stack[-2:]
                del stack[-2:]
                put(pair)
            case "SETITEMS":
                put(after_mark())
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[int(argument)] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[int(argument)])
            case "GLOBAL":
                stack.append(name(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                module, attribute = stack[-2:]
                if not isinstance(module, str) or not isinstance(attribute, str):
                    raise UnsafeError("it has a name that is no text")
                stack[-2:] = [name(f"{module}.{attribute}")]
            case "REDUCE" | "NEWOBJ":
                called, arguments = stack[-2:]
                if not isinstance(called, Name) or not isinstance(arguments, tuple):
                    raise UnsafeError("it calls what is no name")
                made = _storage(arguments) if called.name == _STORAGE else Call(called.name, arguments)
                stack[-2:] = [made]
            case "BUILD":
                state = stack.pop()
                if not isinstance(stack[-1], Call):
                    raise UnsafeError("it gives a state to what has none")
                stack[-1].state = state
            case found if found in _VALUES:
                stack.append(argument)
            case _:
                raise UnsafeError(f"it has an instruction that no file of such weights has ({opcode.name})")
    raise UnsafeError("it has no end")


def _storage(arguments: tuple[Any, ...]) -> Any:
    """Read the storage of a tensor, which lies in a pickle as the bytes that ``torch.save`` writes of it."""
    if len(arguments) != 1 or not isinstance(arguments[0], bytes):
        raise UnsafeError("it has a storage that is no bytes")
    found = read_torch(arguments[0])
    if not isinstance(found, torch.storage.TypedStorage):
        raise UnsafeError("it has a storage that is none")
    return found


def read_torch(data: bytes, ignored: Mapping[str, type] | None = None) -> Any:
    """Read what ``torch.save`` wrote, if it is tensors in plain containers alone.

    Args:
        data: the file.
        ignored: classes that stand in for others, by the names of these.

    Raises:
        UnsafeError: it is damaged, or holds anything else, or unpacks to more than itself.
    """
    if data[:2] == b"PK":
        _require_stored(data)
    stand_ins: list[Any] = [(kind, name) for name, kind in (ignored or {}).items()]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins) if stand_ins else nullcontext():
            warnings.simplefilter("ignore")  # of what other programs would write otherwise
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, KeyError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise UnsafeError(f"not a file of weights alone, as torch.save writes them ({reason})") from None
    except (AttributeError, AssertionError, OverflowError, MemoryError) as error:
        raise UnsafeError(f"a damaged file of torch.save ({str(error) or type(error).__name__})") from None


def _require_stored(data: bytes) -> None:
    """Check that a zip file unpacks to no more than itself: ``torch.save`` compresses nothing."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            entries = file.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise UnsafeError(f"a damaged file of torch.save ({error})") from None
    unpacked = sum(max(entry.file_size, entry.compress_size) for entry in entries)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or unpacked > len(data):
        raise UnsafeError(
            f"its {len(data):,} bytes unpack to {unpacked:,}; torch.save compresses nothing, so it did not write it"
        )


def as_mapping(value: Any) -> dict[Any, Any] | None:
    """Return the items of a dictionary of any kind that a pickle holds; ``None`` for anything else."""
    found = value.items if isinstance(value, Call) else value
    return found if isinstance(found, dict) else None


def as_tensor(value: Any) -> Tensor | None:
    """Return the tensor or array of numbers that a pickle holds, with full precision; ``None`` for anything else.

    Raises:
        UnsafeError: it is damaged, or larger than what the file has of it.
    """
    if isinstance(value, Call) and value.name == "torch._utils._rebuild_parameter" and value.arguments:
        value = value.arguments[0]
    if isinstance(value, Tensor):
        return _sound(value)
    if not isinstance(value, Call):
        return None
    kind = value.name.rpartition(".")[2]
    try:
        if kind == "_rebuild_tensor_v2":
            storage, offset, size, stride = value.arguments[:4]
            tensor = torch.empty(0, dtype=storage.dtype)
            last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
            # PyTorch would enlarge the storage, by numbers that are no one's.
            if all(size) and (last + 1) * tensor.element_size() > storage._untyped_storage.nbytes():
                raise UnsafeError("a tensor of more numbers than the file has of it")
            return _sound(tensor.set_(storage._untyped_storage, offset, size, stride))
        if kind == "_reconstruct":
            _, shape, dtype, fortran, content = value.state
            return _array(content, dtype, shape, "F" if fortran else "C")
        if kind == "_frombuffer":
            content, dtype, shape, order = value.arguments
            return _array(content, dtype, shape, order)
        if kind == "scalar":
            dtype, content = value.arguments
            return _array(content, dtype, (), "C")
    except (TypeError, ValueError, IndexError, RuntimeError, AttributeError, KeyError) as error:
        raise UnsafeError(f"a damaged array of numbers ({str(error).partition(chr(10))[0]})") from None
    return None


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> Tensor:
    """Return an array of NumPy's, of which a pickle has the bytes and the name of the dtype."""
    kind, byteorder = dtype.arguments[0], dtype.state[1] if dtype.state else "="
    if kind not in ("f2", "f4", "f8") or byteorder not in ("<", ">", "=") or not isinstance(content, bytes):
        raise UnsafeError("an array of something else than floating-point numbers")
    numbers = np.frombuffer(content, byteorder + kind).reshape(shape, order="F" if order == "F" else "C")
    return torch.from_numpy(numbers.astype(np.float32, order="C"))


def _sound(tensor: Tensor) -> Tensor:
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or not tensor.is_floating_point():
        raise UnsafeError("a tensor that is no plain one of floating-point numbers")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UnsafeError("a tensor of more numbers than the file has of it")
    return tensor.detach().float()
