"""Export of a trained model's graphs to files for other runtimes, each compared with the model before it is written.

A file, ``NAME.onnx`` or ``NAME.pt2`` of ``torch.export``, holds one function from tensors to tensors with its weights;
pixels are uint8 [N, H, W, C]. ``export.json`` beside the files describes their inputs and outputs.
"""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from genlab.core.errors import RunError
from genlab.core.extras import EXTRAS, require_extra
from genlab.core.storage import locate, require_empty, sha256, write_atomic, write_json, writing
from genlab.models.graph import Graph, TensorSpec
from genlab.store import model_directory

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

Format = Literal["onnx", "torch-export"]
Tensors = tuple[Tensor, ...]
Run = Callable[[Tensors], Tensors]
"""Runs an exported graph."""

DESCRIPTION = "export.json"
SUFFIXES: Mapping[Format, str] = {"onnx": ".onnx", "torch-export": ".pt2"}
PACKAGES: Mapping[Format, tuple[str, ...]] = {"onnx": EXTRAS["onnx"], "torch-export": ()}
"""Packages that make and try the files of a format, whose versions are recorded."""
LONGEST = 2**16
"""Largest height or width of a network that takes multiples of some number alone."""
LEVELS = 1
"""Largest difference of a pixel from the model's, in levels of 0..255: a value halfway may round either way."""
TOLERANCE = 1e-4
"""Largest difference of a float from the model's, as a share of the largest of them, or of 1 where none is larger."""


def export_graphs(url: str, dest: str, to: Format) -> list[str]:
    """Export all graphs of a model.

    Args:
        url: a model directory, or a run directory that holds one.
        dest: the folder to write to; it must be empty or not there.
        to: the format.

    Returns:
        A line for each graph: its file, its inputs and outputs, and their largest difference from the model's.

    Raises:
        ConfigError: the packages that ``to`` needs are not installed.
        RunError: the model cannot be loaded, has no graphs, or an exported graph gives other outputs.
        DataError: ``dest`` is not empty, or cannot be written.
    """
    if to == "onnx":
        require_extra("onnx", "--format onnx")
    directory = model_directory.find_one(url)
    description = model_directory.describe(directory)
    folder = locate(dest)
    with writing(folder):
        require_empty(folder)
        graphs = model_directory.load(directory).graphs()
        if not graphs:
            raise RunError(f"{url}: this {description['family']} model has no graphs to export")
        exported = {name + SUFFIXES[to]: _export(graph, to, name + SUFFIXES[to]) for name, graph in graphs.items()}
        for file, one in exported.items():
            write_atomic(folder / file, one.data)
        write_json(
            folder / DESCRIPTION,
            {
                "format": to,
                "family": description["family"],
                "weights_sha256": description["weights"]["sha256"],
                "graphs": {
                    name: _describe(file, one) for name, (file, one) in zip(graphs, exported.items(), strict=True)
                },
                "tolerance": {"uint8": f"{LEVELS} level", "float32": f"{TOLERANCE} of the largest, or of 1"},
                "versions": {name: version(name) for name in ("genlab", "torch", *PACKAGES[to])},
            },
        )
    return [_say(file, one) for file, one in exported.items()]


@dataclass(frozen=True)
class _Exported:
    """A graph, the bytes of its file, facts for ``export.json``, and the largest difference of each output."""

    graph: Graph
    data: bytes
    facts: dict[str, Any]
    differences: dict[str, float]


def _export(graph: Graph, to: Format, file: str) -> _Exported:
    data, run, facts = (_to_onnx if to == "onnx" else _to_torch)(graph)
    return _Exported(graph, data, facts, compare(graph, run, file))


def _trace(graph: Graph) -> ExportedProgram:
    dimensions = {name: times * Dim(name, min=1, max=LONGEST // times) for name, times in graph.multiples.items()}
    free = tuple(
        {axis: dimensions.get(side, Dim.DYNAMIC) for axis, side in enumerate(spec.shape) if isinstance(side, str)}
        for spec in graph.inputs.values()
    )
    program = torch.export.export(graph.module.eval(), _inputs(graph, 0), dynamic_shapes=free)
    # A program that is loaded with its example inputs refuses sizes that would be laid out in memory in another way.
    program.example_inputs = None
    return program


def _to_torch(graph: Graph) -> tuple[bytes, Run, dict[str, Any]]:
    file = io.BytesIO()
    torch.export.save(_trace(graph), file)
    data = file.getvalue()
    module = torch.export.load(io.BytesIO(data)).module()
    return data, lambda inputs: _tuple(module(*inputs)), {}


def onnx_model(graph: Graph) -> "ModelProto":
    """Translate a graph into an ONNX model."""
    program = torch.onnx.export(
        _trace(graph), input_names=list(graph.inputs), output_names=list(graph.outputs), dynamo=True, verbose=False
    )
    assert program is not None
    model = program.model_proto
    del model.graph.value_info[:]  # shapes of intermediate tensors, with the tracer's names of sides
    for values, specs in ((model.graph.input, graph.inputs), (model.graph.output, graph.outputs)):
        for value, spec in zip(values, specs.values(), strict=True):
            for axis, side in enumerate(spec.shape):
                if isinstance(side, str):
                    value.type.tensor_type.shape.dim[axis].dim_param = side
    return model


def onnx_session(data: bytes, threads: int | None = None) -> "InferenceSession":
    """Open an ONNX model on the CPU by ONNX Runtime, which tells its makers nothing of it unless the environment's
    ``ORT_DISABLE_TELEMETRY`` is 0.

    Args:
        data: the ONNX model.
        threads: CPU threads that an operator may take; by default as many as there are cores.
    """
    # From 1.29 on it sends events of each session over the network, unless this is set before it is first imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads or 0
    # Threads that wait for the next operator must not take the time of others, such as those that encode pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # which would keep what the largest batch took
    return InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _to_onnx(graph: Graph) -> tuple[bytes, Run, dict[str, Any]]:
    model = onnx_model(graph)
    data = model.SerializeToString()
    session = onnx_session(data)

    def run(inputs: Tensors) -> Tensors:
        named = {name: tensor.numpy() for name, tensor in zip(graph.inputs, inputs, strict=True)}
        return tuple(torch.from_numpy(output) for output in session.run(list(graph.outputs), named))

    [opset] = [entry.version for entry in model.opset_import if not entry.domain]
    return data, run, {"opset": opset}


def compare(graph: Graph, run: Run, file: str, sizes: Sequence[int] = (0, 1)) -> dict[str, float]:
    """Compare an exported graph with its module, at its two sizes or one of them.

    Returns:
        The largest difference of each output from the model's: in levels for uint8, else as a share of the largest.

    Raises:
        RunError: an output has another form, or differs by more than :data:`LEVELS` or :data:`TOLERANCE`.
    """
    largest = dict.fromkeys(graph.outputs, 0.0)
    for size in sizes:
        inputs = _inputs(graph, size)
        with torch.inference_mode():
            pairs = zip(graph.outputs.items(), run(inputs), _tuple(graph.module(*inputs)), strict=True)
            for (name, spec), found, expected in pairs:
                if (found.dtype, found.shape) != (expected.dtype, expected.shape) or found.dtype != spec.dtype:
                    raise RunError(f"{file}: {name} is {_form(found)}, the model's {_form(expected)}")
                difference = (found.double() - expected.double()).abs().max().item()
                limit = float(LEVELS)
                if spec.dtype != torch.uint8:
                    difference /= max(1.0, expected.abs().max().item())
                    limit = TOLERANCE
                if not difference <= limit:
                    raise RunError(f"{file}: {name} is {difference:.3g} from the model's, allowed are {limit:g}")
                largest[name] = max(largest[name], difference)
    return largest


def _inputs(graph: Graph, size: int) -> Tensors:
    """Draw seeded inputs of one of the graph's two sizes: that to trace at (0), or the other (1)."""
    generator = torch.Generator().manual_seed(size)

    def draw(spec: TensorSpec) -> Tensor:
        shape = [graph.sizes[side][size] if isinstance(side, str) else side for side in spec.shape]
        if spec.dtype.is_floating_point:
            return torch.randn(shape, generator=generator, dtype=spec.dtype)
        return torch.randint(spec.below, shape, generator=generator, dtype=spec.dtype)

    return tuple(draw(spec) for spec in graph.inputs.values())


def _tuple(outputs: Tensor | Tensors) -> Tensors:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _dtype(spec: TensorSpec | Tensor) -> str:
    return str(spec.dtype).removeprefix("torch.")


def _form(tensor: Tensor) -> str:
    return f"{_dtype(tensor)} {list(tensor.shape)}"


def _describe(file: str, exported: _Exported) -> dict[str, Any]:
    def ports(specs: Mapping[str, TensorSpec]) -> list[dict[str, Any]]:
        return [
            {"name": name, "dtype": _dtype(spec), "shape": list(spec.shape)}
            | ({"below": spec.below} if spec.dtype == torch.int64 else {})
            for name, spec in specs.items()
        ]

    return {
        "file": file,
        "sha256": sha256(exported.data),
        "inputs": ports(exported.graph.inputs),
        "outputs": ports(exported.graph.outputs),
        **exported.facts,
        "largest_difference": exported.differences,
    }


def _say(file: str, exported: _Exported) -> str:
    def ports(specs: Mapping[str, TensorSpec]) -> str:
        return ", ".join(f"{name} {_dtype(spec)} [{', '.join(map(str, spec.shape))}]" for name, spec in specs.items())

    graph = exported.graph
    parts = [
        f"{difference:g} of 255 levels" if graph.outputs[name].dtype == torch.uint8 else f"{difference:.1e} ({name})"
        for name, difference in exported.differences.items()
    ]
    return (
        f"{file}: {ports(graph.inputs)} → {ports(graph.outputs)}; differs from the model by at most {', '.join(parts)}"
    )
