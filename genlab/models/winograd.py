"""3x3 convolution with a quarter of the multiplications, on a CPU: F(4x4, 3x3) of Lavin & Gray 2015, arXiv:1509.09308.

A tile of 4x4 outputs is a bilinear map of 6x6 inputs and 3x3 weights. Written as Aᵀ[(G w Gᵀ) ⊙ (Bᵀ x B)]A it takes 36
multiplications for each pair of channels instead of 144, and the sums over the channels are 36 matrix products. The
backward pass is the adjoint of the same map, so it saves as much.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

OUT, IN = 4, 6
"""Sides of a tile of outputs, and of the inputs that they depend on."""
FEWEST_CHANNELS = 64
"""With fewer, the transforms cost what the products save."""
CHUNK_BYTES = 24 * 2**20
"""Transformed inputs at a time, to bound the memory and stay near the caches."""

_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_WEIGHT = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


class Conv3x3(nn.Conv2d):
    """``nn.Conv2d(channels, out, 3)``: 3x3, stride 1, unpadded.

    On a CPU in fp32 and fp64 it takes half as long. In fp32 its error is some 2e-6 of the result, ten times that of
    PyTorch's own sums.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 3)

    def forward(self, input: Tensor) -> Tensor:
        """Float [N, channels, H, W] → [N, out, H - 2, W - 2]."""
        if not self._pays(input):
            return super().forward(input)
        height, width = input.shape[2] - 2, input.shape[3] - 2
        whole = F.pad(input, (0, -width % OUT, 0, -height % OUT))
        output: Tensor = _Winograd.apply(whole, self.weight, self.bias)
        return output[:, :, :height, :width]

    def _pays(self, input: Tensor) -> bool:
        return (
            input.device.type == "cpu"
            and min(self.in_channels, self.out_channels) >= FEWEST_CHANNELS
            and input.dtype in (torch.float32, torch.float64)
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        )


class _Winograd(torch.autograd.Function):
    """[N, C, 4h + 2, 4w + 2], [O, C, 3, 3] and [O] → [N, O, 4h, 4w]."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        pixels = input.permute(0, 2, 3, 1).contiguous()
        ctx.save_for_backward(pixels, weight)
        outputs = len(weight)
        transformed = _transformed(weight).transpose(1, 2)
        images, height, width = pixels.shape[0], pixels.shape[1] - 2, pixels.shape[2] - 2
        output = pixels.new_empty(images, height, width, outputs)
        for chunk in _chunks(pixels):
            products = torch.bmm(_read(pixels, chunk), transformed)
            tiles = _transform(_OUTPUT, products.dtype) @ products.view(IN * IN, -1)
            out = _output_tiles(output, chunk)
            torch.add(tiles.view(out.shape), bias, out=out)
        return output.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        pixels, weight = ctx.saved_tensors
        outputs, channels = weight.shape[:2]
        gradient = gradient.permute(0, 2, 3, 1).contiguous()
        spread = _transform(_OUTPUT, gradient.dtype).T
        gather = _transform(_INPUT, gradient.dtype).T
        wants_input, wants_weight, wants_bias = ctx.needs_input_grad
        to_input = torch.zeros_like(pixels) if wants_input else None
        transformed = _transformed(weight) if wants_input else None
        to_weight = None
        for chunk in _chunks(pixels):
            tiles = _output_tiles(gradient, chunk).reshape(OUT * OUT, -1)
            products = (spread @ tiles).view(IN * IN, -1, outputs)
            if wants_weight:
                factors = products.transpose(1, 2), _read(pixels, chunk)
                to_weight = torch.bmm(*factors) if to_weight is None else to_weight.baddbmm_(*factors)
            if to_input is not None and transformed is not None:
                inputs = gather @ torch.bmm(products, transformed).view(IN * IN, -1)
                _add_input_tiles(to_input, chunk, inputs)
        if to_weight is not None:
            flat = _transform(_WEIGHT, gradient.dtype).T @ to_weight.view(IN * IN, -1)
            to_weight = flat.view(3, 3, outputs, channels).permute(2, 3, 0, 1)
        to_bias = gradient.sum((0, 1, 2)) if wants_bias else None
        return None if to_input is None else to_input.permute(0, 3, 1, 2), to_weight, to_bias


Chunk = tuple[slice, slice]
"""Images, and rows of tiles in them."""


def _chunks(pixels: Tensor) -> Iterator[Chunk]:
    """All tiles of [N, 4h + 2, 4w + 2, C], so many at a time as CHUNK_BYTES allows."""
    images, rows = pixels.shape[0], pixels.shape[1] // OUT
    row = IN * IN * (pixels.shape[2] // OUT) * pixels.shape[3] * pixels.element_size()
    many = max(1, CHUNK_BYTES // row)
    for image in range(0, images, max(1, many // rows)):
        for first in range(0, rows, many):
            yield slice(image, image + max(1, many // rows)), slice(first, min(first + many, rows))


def _input_tiles(pixels: Tensor, chunk: Chunk) -> Tensor:
    """The overlapping tiles of inputs, a view [6, 6, N, h, w, C]."""
    images, rows = chunk
    part = pixels[images, OUT * rows.start : OUT * rows.stop + 2]
    image, row, column, _ = part.stride()
    shape = (IN, IN, part.shape[0], part.shape[1] // OUT, part.shape[2] // OUT, part.shape[3])
    return part.as_strided(shape, (row, column, image, OUT * row, OUT * column, 1))


def _output_tiles(output: Tensor, chunk: Chunk) -> Tensor:
    """The tiles of outputs, a view [4, 4, N, h, w, O]."""
    images, rows = chunk
    part = output[images, OUT * rows.start : OUT * rows.stop]
    return part.unflatten(2, (-1, OUT)).unflatten(1, (-1, OUT)).permute(2, 4, 0, 1, 3, 5)


def _read(pixels: Tensor, chunk: Chunk) -> Tensor:
    """Bᵀ x B of each tile, [36, tiles, C]."""
    tiles = _input_tiles(pixels, chunk).reshape(IN * IN, -1)
    return (_transform(_INPUT, pixels.dtype) @ tiles).view(IN * IN, -1, pixels.shape[3])


def _add_input_tiles(pixels: Tensor, chunk: Chunk, tiles: Tensor) -> None:
    """Add [36, tiles * C] to the pixels they are of, tile position by position, within which none overlap."""
    views = _input_tiles(pixels, chunk)
    for ours, theirs in zip(views, tiles.view(views.shape), strict=True):
        for view, tile in zip(ours, theirs, strict=True):
            view.add_(tile)


def _transformed(weight: Tensor) -> Tensor:
    """G w Gᵀ, [36, O, C]."""
    flat = weight.permute(2, 3, 0, 1).reshape(9, -1)
    return (_transform(_WEIGHT, weight.dtype) @ flat).view(IN * IN, *weight.shape[:2])


@cache
def _transform(matrix: tuple[tuple[float, ...], ...], dtype: torch.dtype) -> Tensor:
    """Both sides' transform of a flattened tile: matrix ⊗ matrix."""
    rows = torch.tensor(matrix, dtype=torch.float64, device="cpu")
    return torch.kron(rows, rows).to(dtype)
