"""PyTorch's settings for a run."""

from collections.abc import Iterator

import pytest
import torch

from genlab.training.torch_settings import set_up_torch


@pytest.fixture
def determinism_as_before() -> Iterator[None]:
    mode, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    yield
    torch.set_deterministic_debug_mode(mode)
    torch.backends.cudnn.benchmark = benchmark
    torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


@pytest.mark.usefixtures("tf32_allowed", "determinism_as_before")
@pytest.mark.parametrize("exact", [True, False])
def test_fp32_is_rounded_to_tf32_only_where_that_is_asked_for(exact: bool) -> None:
    for tf32 in (False, True):
        set_up_torch(exact, None, tf32)
        assert torch.backends.cudnn.allow_tf32 is tf32
        assert torch.backends.cuda.matmul.allow_tf32 is tf32
