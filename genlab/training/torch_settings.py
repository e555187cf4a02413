"""PyTorch's settings for a run: threads, determinism, TF32, compiled networks and CUDA graphs."""

import os
from typing import Any

import torch
from torch import nn

from genlab.models.cpu import keep_freed_memory
from genlab.models.model import Model
from genlab.models.precision import allow_tf32
from genlab.recipes.recipe import Recipe

MOST_FORMS = 128
"""Compiled forms of a network's code; further ones run as they are. Networks that grow have some a resolution."""


def set_up_torch(exact: bool, threads: int | None, tf32: bool = False) -> None:
    """Set PyTorch's threads, determinism and precision of fp32 for this process.

    Args:
        exact: use deterministic algorithms only.
        threads: CPU threads to compute with; ``None`` leaves PyTorch's choice.
        tf32: let GPUs compute fp32 products in TF32, see :func:`genlab.models.precision.allow_tf32`.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The same as use_deterministic_algorithms, but without its import of torch.compile, which takes a second.
    torch.set_deterministic_debug_mode("error" if exact else "default")
    # Deterministic mode would also fill every new tensor, which exactness does not need and which costs much time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not exact
    allow_tf32(tf32)


def compile_networks(recipe: Recipe[Any], cuda_graphs: bool = False) -> None:
    """Have the recipe's networks compiled at their first call, with PyTorch's own random numbers for dropout.

    What is compiled depends on nothing that the process did before, so that a run that goes on has the same kernels.

    Args:
        recipe: the recipe.
        cuda_graphs: replay the compiled kernels as CUDA graphs.
    """
    import torch._dynamo  # a second

    torch._dynamo.reset()  # Other runs of this process do not count; their CUDA graphs are freed.
    torch._dynamo.config.recompile_limit = MOST_FORMS
    for network in recipe.networks.values():
        # A model, or a dictionary of networks, is not called itself.
        called_ones = network.children() if isinstance(network, Model | nn.ModuleDict) else [network]
        for called in called_ones:
            called.compile(dynamic=False, options={"fallback_random": True, "triton.cudagraphs": cuda_graphs})


def begin_cuda_graphs(cuda_graphs: bool) -> None:
    """Tell CUDA graphs, if they are used, that a new step begins and the tensors of the last one may be overwritten."""
    if cuda_graphs:
        torch.compiler.cudagraph_mark_step_begin()


def cpu_multiplies_bf16() -> bool:
    """Return whether this CPU has instructions for bf16."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
