"""Networks of a model computed by ONNX Runtime, which takes less time than PyTorch on a CPU.

A network is exported once and kept in the cache (:func:`genlab.core.storage.cache_folder`), by its weights and by the
versions of what exports it. Its results differ from PyTorch's by rounding.
"""

import contextlib
import logging
from importlib.metadata import version

import torch
import xxhash
from torch import Tensor, nn
from upath import UPath

from genlab.core.extras import EXTRAS
from genlab.core.storage import cache_folder, json_bytes, read_bytes, sha256, write_atomic
from genlab.inference.graph_export import Tensors, compare, onnx_model, onnx_session
from genlab.models.graph import Graph
from genlab.models.model import Model

logger = logging.getLogger(__name__)

FORMAT = 2
"""Changes where what is kept changes by a change of genlab."""
CHECKSUM_BYTES = 16
"""Bytes of the checksum (XXH3, 128 bits) that a kept file begins with: a damaged one is made anew."""
PACKAGES = ("torch", "onnx", "onnxscript")
"""What makes an ONNX model of a network."""


def use_onnx_runtime(model: Model, weights: str) -> None:
    """Have ONNX Runtime compute the networks of a model on a CPU (:meth:`genlab.models.model.Model.networks`).

    They are computed with as many threads as PyTorch has at this moment. A network that cannot be exported, or gives
    something else then, stays as it is.

    Args:
        model: the model, which is changed.
        weights: the SHA-256 of its file of weights.
    """
    for name, graph in model.networks().items():
        try:
            network = OnnxNetwork(_exported(graph, weights, name))
        except Exception:  # whatever stands against it, PyTorch can do the work
            logger.exception("%s is computed by PyTorch, since it cannot be exported", name)
        else:
            setattr(model, name, network)


class OnnxNetwork(nn.Module):
    """A network that ONNX Runtime computes: takes and returns the tensors of the module that it was exported from.

    Args:
        data: the ONNX model.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.on_cpu = nn.Parameter(torch.empty(0), requires_grad=False)  # by parameters a model knows its device
        self._session = onnx_session(data, torch.get_num_threads())
        self._inputs = [one.name for one in self._session.get_inputs()]

    def forward(self, *inputs: Tensor) -> Tensor | Tensors:
        """Compute the outputs: one tensor, or as many as the network has."""
        named = {name: tensor.contiguous().numpy() for name, tensor in zip(self._inputs, inputs, strict=True)}
        outputs = tuple(torch.from_numpy(output) for output in self._session.run(None, named))
        return outputs[0] if len(outputs) == 1 else outputs


def _exported(graph: Graph, weights: str, name: str) -> bytes:
    """Return the ONNX model of a network, from the cache if it is there."""
    file = _cache_file(weights, name)
    with contextlib.suppress(OSError):
        kept = read_bytes(file)
        checksum, data = kept[:CHECKSUM_BYTES], kept[CHECKSUM_BYTES:]
        if xxhash.xxh3_128_digest(data) == checksum:
            return data
    data = onnx_model(graph).SerializeToString()
    network = OnnxNetwork(data)

    def run(inputs: Tensors) -> Tensors:
        outputs = network(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    compare(graph, run, name, sizes=(1,))
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time alone
        write_atomic(file, xxhash.xxh3_128_digest(data) + data)
    return data


def _cache_file(weights: str, name: str) -> UPath:
    key = {"format": FORMAT, "weights": weights, "name": name} | {package: version(package) for package in PACKAGES}
    return cache_folder() / "onnx" / f"{sha256(json_bytes(key))}.onnx"


def is_installed() -> bool:
    """Return whether ONNX Runtime and what exports networks for it are installed."""
    from importlib.util import find_spec

    return all(find_spec(module) is not None for module in EXTRAS["onnx"])
