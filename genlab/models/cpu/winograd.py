"""3x3 convolution with fewer multiplications, on a CPU: Winograd's minimal filtering (Lavin & Gray 2016, CVPR).

Equations and matrices are those of the paper (arXiv:1509.09308). A tile of outputs is a bilinear map of the inputs that
it depends on and of the 3x3 weights. F(4x4, 3x3) writes a tile of 4x4 outputs as Aᵀ[(G w Gᵀ) ⊙ (Bᵀ x B)]A, which takes
36 multiplications for each pair of channels instead of 144; the sums over the channels are 36 matrix products. The
backward pass is the adjoint of the same map, so it saves as much. The coefficients of F(4x4, 3x3) amplify rounding too
much for bf16, where F(2x2, 3x3) takes its place: 16 multiplications instead of 36.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.models.cpu import bilinear
from genlab.models.cpu.bilinear import Gradients, Wanted

CHUNK_BYTES = 24 * 2**20
"""Bytes of transformed inputs that are held at a time: to bound the memory, and to stay near the caches."""

Matrix = tuple[tuple[float, ...], ...]
"""The rows of a matrix."""


@dataclass(frozen=True)
class Form:
    """The algorithm F(out x out, 3x3), given by its transforms of one dimension."""

    input: Matrix
    """Bᵀ, [out + 2, out + 2]: transforms inputs."""
    weight: Matrix
    """G, [out + 2, 3]: transforms weights."""
    output: Matrix
    """Aᵀ, [out, out + 2]: transforms products into outputs."""
    fewest_channels: int
    """Number of channels, both in and out, below which the transforms cost as much as the products save."""

    @property
    def out(self) -> int:
        """Side of a tile of outputs, in pixels."""
        return len(self.output)

    @property
    def side(self) -> int:
        """Side of the tile of inputs that a tile of outputs depends on, in pixels."""
        return len(self.input)

    @property
    def products(self) -> int:
        """Number of multiplications a tile, for each pair of channels."""
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
"""F(4x4, 3x3), for fp32 and fp64."""
F2 = Form(
    input=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    weight=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    output=((1, 1, 1, 0), (0, 1, -1, -1)),
    fewest_channels=256,
)
"""F(2x2, 3x3), for bf16: its transforms only add and subtract."""
FORMS = {torch.float32: F4, torch.float64: F4, torch.bfloat16: F2}
"""The algorithm for each dtype that a convolution may compute in."""


def suits(layer: nn.Conv2d, input: Tensor) -> bool:
    """Say whether :func:`convolve` can take the place of ``layer`` for ``input``, and is faster."""
    if torch.compiler.is_compiling() or input.device.type != "cpu":
        return False
    shape = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups
    if shape != ((3, 3), (1, 1), (0, 0), (1, 1), 1):
        return False
    dtype = _dtype(layer.weight)
    form = FORMS.get(dtype)
    return (
        form is not None
        and input.dtype in (dtype, layer.weight.dtype)
        and input.dim() == 4
        and min(input.shape[2:]) > 2
        and min(layer.in_channels, layer.out_channels) >= form.fewest_channels
    )


def convolve(layer: nn.Conv2d, input: Tensor) -> Tensor:
    """Apply ``layer`` to a float [N, in, H, W] that :func:`suits` it: [N, out, H - 2, W - 2].

    The error is some 2e-6 of the result in fp32, ten times that of PyTorch's own sums, and 5e-3 in bf16, twice theirs.
    The result has autocast's dtype where that is on.
    """
    dtype = _dtype(layer.weight)
    form = FORMS[dtype]
    height, width = input.shape[2] - 2, input.shape[3] - 2
    padded = F.pad(input.to(dtype), (0, -width % form.out, 0, -height % form.out))
    pixels = padded.permute(0, 2, 3, 1).contiguous()
    output = bilinear.convolve(Winograd(form), pixels, layer.weight, layer.bias)
    return output.permute(0, 3, 1, 2)[:, :, :height, :width]


def _dtype(weight: Tensor) -> torch.dtype:
    """Return the dtype that a convolution with ``weight`` computes in: autocast's, where that is on."""
    if torch.is_autocast_enabled("cpu") and weight.dtype == torch.float32:
        return torch.get_autocast_dtype("cpu")
    return weight.dtype


@dataclass(frozen=True)
class Winograd:
    """Convolution: [N, out * h + 2, out * w + 2, C], [O, C, 3, 3], [O] or ``None`` → [N, out * h, out * w, O].

    The output has the dtype of the pixels, which weight and bias need not have.
    """

    form: Form

    def value(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output."""
        form, pixels, outputs = self.form, input.contiguous(), len(weight)
        transformed = _transformed_weights(form, weight).to(pixels.dtype).transpose(1, 2)
        bias = pixels.new_zeros(outputs) if bias is None else bias.to(pixels.dtype)
        images, height, width = pixels.shape[0], pixels.shape[1] - 2, pixels.shape[2] - 2
        output = pixels.new_empty(images, height, width, outputs)
        for chunk in _chunks(form, pixels):
            products = torch.bmm(_transformed_inputs(form, pixels, chunk), transformed)
            tiles = _two_sided(form.output, products.dtype) @ products.view(form.products, -1)
            out = _output_tiles(form, output, chunk)
            torch.add(tiles.view(out.shape), bias, out=out)
        return output

    def gradients(self, gradient: Tensor, input: Tensor, weight: Tensor, wanted: Wanted) -> Gradients:
        """Return the gradients of pixels, weight and bias for a gradient [N, out * h, out * w, O]."""
        form, pixels, gradient = self.form, input.contiguous(), gradient.contiguous()
        outputs, channels = weight.shape[:2]
        spread = _two_sided(form.output, gradient.dtype).T
        gather = _two_sided(form.input, gradient.dtype).T
        wants_input, wants_weight, wants_bias = wanted
        to_input = torch.zeros_like(pixels) if wants_input else None
        transformed = _transformed_weights(form, weight).to(pixels.dtype) if wants_input else None
        to_weight = None
        for chunk in _chunks(form, pixels):
            tiles = _output_tiles(form, gradient, chunk).reshape(form.out**2, -1)
            products = (spread @ tiles).view(form.products, -1, outputs)
            if wants_weight:
                factors = products.transpose(1, 2), _transformed_inputs(form, pixels, chunk)
                if to_weight is None:
                    to_weight = torch.bmm(*factors).to(weight.dtype)  # The sum over chunks is kept unrounded.
                elif to_weight.dtype == pixels.dtype:
                    to_weight.baddbmm_(*factors)
                else:
                    to_weight += torch.bmm(*factors)
            if to_input is not None and transformed is not None:
                inputs = gather @ torch.bmm(products, transformed).view(form.products, -1)
                _add_input_tiles(form, to_input, chunk, inputs)
        if to_weight is not None:
            flat = _two_sided(form.weight, weight.dtype).T @ to_weight.view(form.products, -1)
            to_weight = flat.view(3, 3, outputs, channels).permute(2, 3, 0, 1)
        to_bias = gradient.sum((0, 1, 2), dtype=weight.dtype) if wants_bias else None
        return to_input, to_weight, to_bias

    def broadcast(self, bias: Tensor, like: Tensor) -> Tensor:
        """Return a bias [O] in the shape and dtype of an output ``like``, [N, out * h, out * w, O]."""
        return bias.to(like.dtype).expand_as(like)


Chunk = tuple[slice, slice]
"""Numbers of images, and of rows of tiles in these images."""


def _chunks(form: Form, pixels: Tensor) -> Iterator[Chunk]:
    """Divide the tiles of [N, out * h + 2, out * w + 2, C] into chunks of as many as CHUNK_BYTES allows."""
    images, rows = pixels.shape[0], (pixels.shape[1] - 2) // form.out
    row = form.products * ((pixels.shape[2] - 2) // form.out) * pixels.shape[3] * pixels.element_size()
    many = max(1, CHUNK_BYTES // row)
    for image in range(0, images, max(1, many // rows)):
        for first in range(0, rows, many):
            yield slice(image, image + max(1, many // rows)), slice(first, min(first + many, rows))


def _input_tiles(form: Form, pixels: Tensor, chunk: Chunk) -> Tensor:
    """Return the overlapping tiles of inputs of a chunk, as a view [side, side, N, h, w, C]."""
    images, rows = chunk
    out, side = form.out, form.side
    part = pixels[images, out * rows.start : out * rows.stop + 2]
    image, row, column, _ = part.stride()
    shape = (side, side, part.shape[0], (part.shape[1] - 2) // out, (part.shape[2] - 2) // out, part.shape[3])
    return part.as_strided(shape, (row, column, image, out * row, out * column, 1))


def _output_tiles(form: Form, output: Tensor, chunk: Chunk) -> Tensor:
    """Return the tiles of outputs of a chunk, as a view [out, out, N, h, w, O]."""
    images, rows = chunk
    part = output[images, form.out * rows.start : form.out * rows.stop]
    return part.unflatten(2, (-1, form.out)).unflatten(1, (-1, form.out)).permute(2, 4, 0, 1, 3, 5)


def _transformed_inputs(form: Form, pixels: Tensor, chunk: Chunk) -> Tensor:
    """Read a chunk's tiles of inputs and transform each: Bᵀ x B, [products, tiles, C]."""
    tiles = _input_tiles(form, pixels, chunk).reshape(form.products, -1)
    return (_two_sided(form.input, pixels.dtype) @ tiles).view(form.products, -1, pixels.shape[3])


def _add_input_tiles(form: Form, pixels: Tensor, chunk: Chunk, tiles: Tensor) -> None:
    """Add tiles of inputs, [products, tiles * C], to the pixels that they lie on.

    Tiles overlap, but the pixels at one place of all tiles do not: these are added together.
    """
    targets = _input_tiles(form, pixels, chunk)
    for target_row, row in zip(targets, tiles.view(targets.shape), strict=True):
        for target, values in zip(target_row, row, strict=True):
            target.add_(values)


def _transformed_weights(form: Form, weight: Tensor) -> Tensor:
    """Transform weights [O, C, 3, 3]: G w Gᵀ, [products, O, C]."""
    flat = weight.permute(2, 3, 0, 1).reshape(9, -1)
    return (_two_sided(form.weight, weight.dtype) @ flat).view(form.products, *weight.shape[:2])


@cache
def _two_sided(matrix: Matrix, dtype: torch.dtype) -> Tensor:
    """Return the matrix that transforms a flattened tile from both sides: ``matrix`` ⊗ ``matrix``."""
    rows = torch.tensor(matrix, dtype=torch.float64, device="cpu")
    return torch.kron(rows, rows).to(dtype)
