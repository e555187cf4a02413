"""A model as genlab runs it on a CPU, beside torch.compile and ONNX Runtime.

``python benchmarks/model_forms.py RUN [RUN ...]`` takes the graphs that ``genlab export`` writes of each model
(encoder, decoder, a translator's directions) and runs each in three forms, in one process with ``--threads`` threads:

* PyTorch: the module with genlab's own CPU kernels
* torch.compile: the same module, compiled by Inductor for the shape
* ONNX Runtime: the exported file, with as many threads

Forms take turns, round by round, on the same random inputs.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rig import alternate, command, figure, machine, ratio, say, spread, table, versions
from torch import Tensor

from genlab.inference.graph_export import export_graphs, onnx_session
from genlab.models.graph import Graph, TensorSpec
from genlab.store import model_directory

LEAST_SECONDS = 0.5
"""A turn runs a form at least this long."""


def main() -> None:
    """Take turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="runs or model directories")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cores = sorted(os.sched_getaffinity(0))
    print(f"`{command()}`\n\n{machine(cores)}. {versions('torch', 'onnxruntime')}. {options.threads} thread(s).\n")
    rows = []
    for run in options.runs:
        model = model_directory.load(model_directory.find_one(run))
        with tempfile.TemporaryDirectory() as folder:
            export_graphs(run, folder, "onnx")
            for name, graph in model.graphs().items():
                for batch in options.batches:
                    file = str(Path(folder) / f"{name}.onnx")
                    forms = _forms(graph, _inputs(graph, batch, model.image_shape), file, options.threads)
                    title = f"{Path(run).name}, {name}, {batch}"
                    rows += _measure(title, forms, batch, options.rounds)
    print(table(["model, graph, batch", "", "images/s: median (min–max)", "of PyTorch's"], rows))


def _measure(title: str, forms: dict[str, Callable[[], object]], batch: int, rounds: int) -> list[list[str]]:
    """Measure the forms of one graph at one batch size; return the lines of the table."""
    began = time.perf_counter()
    for run in forms.values():
        run()
        run()
    say(f"{title}: ready after {figure(time.perf_counter() - began)} s")
    rates = alternate({name: _turn(run, batch) for name, run in forms.items()}, rounds)
    return [[title, name, spread(found), ratio(found, rates["PyTorch"])] for name, found in rates.items()]


def _turn(run: Callable[[], object], batch: int) -> Callable[[], float]:
    def turn() -> float:
        seconds: list[float] = []
        while sum(seconds) < LEAST_SECONDS or len(seconds) < 3:
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
        return batch / statistics.median(seconds)

    return turn


def _forms(graph: Graph, inputs: Sequence[Tensor], file: str, threads: int) -> dict[str, Callable[[], object]]:
    module = graph.module.eval()
    compiled = torch.compile(module, dynamic=False)
    session = onnx_session(Path(file).read_bytes(), threads)
    named = {name: tensor.numpy() for name, tensor in zip(graph.inputs, inputs, strict=True)}

    def eagerly() -> object:
        with torch.inference_mode():
            return module(*inputs)

    def by_inductor() -> object:
        with torch.inference_mode():
            return compiled(*inputs)

    return {
        "PyTorch": eagerly,
        "torch.compile": by_inductor,
        "ONNX Runtime": lambda: session.run(list(graph.outputs), named),
    }


def _inputs(graph: Graph, batch: int, image_shape: tuple[int, int, int]) -> list[Tensor]:
    lengths = {"N": batch, "H": image_shape[0], "W": image_shape[1]}
    generator = torch.Generator().manual_seed(0)

    def random(spec: TensorSpec) -> Tensor:
        shape = [side if isinstance(side, int) else lengths[side] for side in spec.shape]
        if spec.dtype.is_floating_point:
            return torch.randn(shape, generator=generator, dtype=spec.dtype)
        return torch.randint(spec.below, shape, generator=generator, dtype=spec.dtype)

    return [random(spec) for spec in graph.inputs.values()]


if __name__ == "__main__":
    main()
