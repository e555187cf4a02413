"""Files of tensors: the bytes are those that the safetensors library writes."""

import safetensors.torch
import torch

from genlab.store.tensor_file import DTYPES, TensorFile, layout_of, tensor_file


def test_the_bytes_are_those_of_the_safetensors_library() -> None:
    tensors = {f"{prefix}.{name}": torch.arange(5).to(dtype) for dtype, name in DTYPES.items() for prefix in "xa"}
    tensors |= {"none": torch.zeros(0, 4), "scalar": torch.tensor(2.5), 'a "quoted" é': torch.ones(2, 3)}
    assert bytes(tensor_file(tensors)) == safetensors.torch.save(tensors)


def test_tensors_are_written_in_their_logical_order() -> None:
    image = torch.arange(96.0).reshape(2, 3, 4, 4)
    assert tensor_file({"image": image.to(memory_format=torch.channels_last)}) == tensor_file({"image": image})


def test_a_buffer_is_filled_again() -> None:
    first, second = ({"w": torch.full((2, 3), value), "step": torch.tensor(value)} for value in (1.0, 2.0))
    file = TensorFile(layout_of(first))
    file.fill(first)
    file.fill(second)
    assert file.content == tensor_file(second)
