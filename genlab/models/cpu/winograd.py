"""3x3 convolution with fewer multiplications, on a CPU: the minimal algorithms of Lavin & Gray 2015, arXiv:1509.09308.

A tile of outputs is a bilinear map of the inputs that it depends on and of 3x3 weights. F(4x4, 3x3) writes that of 4x4
outputs as Aᵀ[(G w Gᵀ) ⊙ (Bᵀ x B)]A, which takes 36 multiplications for each pair of channels instead of 144; the sums
over the channels are 36 matrix products. The backward pass is the adjoint of the same map, so it saves as much. Its
coefficients amplify rounding too much for bf16, where F(2x2, 3x3) takes its place: 16 multiplications instead of 36.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CHUNK_BYTES = 24 * 2**20
"""Transformed inputs at a time, to bound the memory and stay near the caches."""

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Form:
    """F(out x out, 3x3), by the transforms of one dimension."""

    input: Matrix
    """Bᵀ [out + 2, out + 2]."""
    weight: Matrix
    """G [out + 2, 3]."""
    output: Matrix
    """Aᵀ [out, out + 2]."""
    fewest_channels: int
    """With fewer, the transforms cost what the products save."""

    @property
    def out(self) -> int:
        """Side of a tile of outputs."""
        return len(self.output)

    @property
    def side(self) -> int:
        """Side of the tile of inputs that they depend on."""
        return len(self.input)

    @property
    def products(self) -> int:
        """Multiplications of a tile, for each pair of channels."""
        return self.side**2


F4 = Form(
    input=(
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    weight=(
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    output=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    fewest_channels=64,
)
"""For fp32 and fp64."""
F2 = Form(
    input=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    weight=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    output=((1, 1, 1, 0), (0, 1, -1, -1)),
    fewest_channels=256,
)
"""For bf16: its transforms only add."""
FORMS = {torch.float32: F4, torch.float64: F4, torch.bfloat16: F2}


class Conv3x3(nn.Conv2d):
    """``nn.Conv2d(channels, out, 3)``: 3x3, stride 1, unpadded; on a CPU faster, from some number of channels on.

    Its error is some 2e-6 of the result in fp32, ten times that of PyTorch's own sums, and 5e-3 in bf16, twice theirs.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 3)

    def forward(self, input: Tensor) -> Tensor:
        """Float [N, channels, H, W] → [N, out, H - 2, W - 2]."""
        dtype = self.weight.dtype
        if torch.is_autocast_enabled("cpu") and dtype == torch.float32:
            dtype = torch.get_autocast_dtype("cpu")
        form = FORMS.get(dtype)
        if form is None or input.dtype not in (dtype, self.weight.dtype) or not self._pays(form, input):
            return super().forward(input)
        height, width = input.shape[2] - 2, input.shape[3] - 2
        whole = F.pad(input.to(dtype), (0, -width % form.out, 0, -height % form.out))
        with torch.autocast("cpu", enabled=False):
            output: Tensor = _Winograd.apply(whole, self.weight, self.bias, form)
        return output[:, :, :height, :width]

    def _pays(self, form: Form, input: Tensor) -> bool:
        return (
            input.device.type == "cpu"
            and min(self.in_channels, self.out_channels) >= form.fewest_channels
            and input.dim() == 4
            and min(input.shape[2:]) > 2
            and not torch.compiler.is_compiling()
        )


class _Winograd(torch.autograd.Function):
    """[N, C, out * h + 2, out * w + 2], [O, C, 3, 3] and [O] → [N, O, out * h, out * w], as the input is."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, form: Form) -> Tensor:
        pixels = input.permute(0, 2, 3, 1).contiguous()
        ctx.save_for_backward(pixels, weight)
        ctx.form = form
        outputs = len(weight)
        transformed = _transformed(form, weight).to(pixels.dtype).transpose(1, 2)
        bias = bias.to(pixels.dtype)
        images, height, width = pixels.shape[0], pixels.shape[1] - 2, pixels.shape[2] - 2
        output = pixels.new_empty(images, height, width, outputs)
        for chunk in _chunks(form, pixels):
            products = torch.bmm(_read(form, pixels, chunk), transformed)
            tiles = _transform(form.output, products.dtype) @ products.view(form.products, -1)
            out = _output_tiles(form, output, chunk)
            torch.add(tiles.view(out.shape), bias, out=out)
        return output.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        pixels, weight = ctx.saved_tensors
        form: Form = ctx.form
        outputs, channels = weight.shape[:2]
        gradient = gradient.permute(0, 2, 3, 1).contiguous()
        spread = _transform(form.output, gradient.dtype).T
        gather = _transform(form.input, gradient.dtype).T
        wants_input, wants_weight, wants_bias, _ = ctx.needs_input_grad
        to_input = torch.zeros_like(pixels) if wants_input else None
        transformed = _transformed(form, weight).to(pixels.dtype) if wants_input else None
        to_weight = None
        for chunk in _chunks(form, pixels):
            tiles = _output_tiles(form, gradient, chunk).reshape(form.out**2, -1)
            products = (spread @ tiles).view(form.products, -1, outputs)
            if wants_weight:
                factors = products.transpose(1, 2), _read(form, pixels, chunk)
                if to_weight is None:
                    to_weight = torch.bmm(*factors).to(weight.dtype)  # The chunks' sum is no place to round.
                elif to_weight.dtype == pixels.dtype:
                    to_weight.baddbmm_(*factors)
                else:
                    to_weight += torch.bmm(*factors)
            if to_input is not None and transformed is not None:
                inputs = gather @ torch.bmm(products, transformed).view(form.products, -1)
                _add_input_tiles(form, to_input, chunk, inputs)
        if to_weight is not None:
            flat = _transform(form.weight, weight.dtype).T @ to_weight.view(form.products, -1)
            to_weight = flat.view(3, 3, outputs, channels).permute(2, 3, 0, 1)
        to_bias = gradient.sum((0, 1, 2), dtype=weight.dtype) if wants_bias else None
        return None if to_input is None else to_input.permute(0, 3, 1, 2), to_weight, to_bias, None


Chunk = tuple[slice, slice]
"""Images, and rows of tiles in them."""


def _chunks(form: Form, pixels: Tensor) -> Iterator[Chunk]:
    """All tiles of [N, out * h + 2, out * w + 2, C], so many at a time as CHUNK_BYTES allows."""
    images, rows = pixels.shape[0], (pixels.shape[1] - 2) // form.out
    row = form.products * ((pixels.shape[2] - 2) // form.out) * pixels.shape[3] * pixels.element_size()
    many = max(1, CHUNK_BYTES // row)
    for image in range(0, images, max(1, many // rows)):
        for first in range(0, rows, many):
            yield slice(image, image + max(1, many // rows)), slice(first, min(first + many, rows))


def _input_tiles(form: Form, pixels: Tensor, chunk: Chunk) -> Tensor:
    """The overlapping tiles of inputs, a view [side, side, N, h, w, C]."""
    images, rows = chunk
    out, side = form.out, form.side
    part = pixels[images, out * rows.start : out * rows.stop + 2]
    image, row, column, _ = part.stride()
    shape = (side, side, part.shape[0], (part.shape[1] - 2) // out, (part.shape[2] - 2) // out, part.shape[3])
    return part.as_strided(shape, (row, column, image, out * row, out * column, 1))


def _output_tiles(form: Form, output: Tensor, chunk: Chunk) -> Tensor:
    """The tiles of outputs, a view [out, out, N, h, w, O]."""
    images, rows = chunk
    part = output[images, form.out * rows.start : form.out * rows.stop]
    return part.unflatten(2, (-1, form.out)).unflatten(1, (-1, form.out)).permute(2, 4, 0, 1, 3, 5)


def _read(form: Form, pixels: Tensor, chunk: Chunk) -> Tensor:
    """Bᵀ x B of each tile, [products, tiles, C]."""
    tiles = _input_tiles(form, pixels, chunk).reshape(form.products, -1)
    return (_transform(form.input, pixels.dtype) @ tiles).view(form.products, -1, pixels.shape[3])


def _add_input_tiles(form: Form, pixels: Tensor, chunk: Chunk, tiles: Tensor) -> None:
    """Add [products, tiles * C] to the pixels they are of, tile position by position, within which none overlap."""
    views = _input_tiles(form, pixels, chunk)
    for ours, theirs in zip(views, tiles.view(views.shape), strict=True):
        for view, tile in zip(ours, theirs, strict=True):
            view.add_(tile)


def _transformed(form: Form, weight: Tensor) -> Tensor:
    """G w Gᵀ, [products, O, C]."""
    flat = weight.permute(2, 3, 0, 1).reshape(9, -1)
    return (_transform(form.weight, weight.dtype) @ flat).view(form.products, *weight.shape[:2])


@cache
def _transform(matrix: Matrix, dtype: torch.dtype) -> Tensor:
    """Both sides' transform of a flattened tile: matrix ⊗ matrix."""
    rows = torch.tensor(matrix, dtype=torch.float64, device="cpu")
    return torch.kron(rows, rows).to(dtype)
