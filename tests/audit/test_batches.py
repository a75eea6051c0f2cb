"""Batches shrink when memory runs out, and nothing else changes."""

import pytest
import torch
from torch import Tensor

from audit.errors import UsageError
from audit.runtime.batches import Batches


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
    ids=["cuda", "python", "cpu"],
)
def test_halved_until_it_fits(error: Exception) -> None:
    batches, seen = Batches(16), []

    def run(rows: Tensor) -> None:
        if len(rows) > 5:
            raise error
        seen.append(rows)

    batches.each(torch.arange(21), run)
    assert batches.size == 4
    assert torch.cat(seen).tolist() == list(range(21))
    assert {len(rows) for rows in seen} == {4, 1}


def test_one_sample_that_does_not_fit_is_a_clear_error() -> None:
    def run(rows: Tensor) -> None:
        raise MemoryError

    with pytest.raises(UsageError, match="single sample"):
        Batches(4).each(torch.arange(3), run)


def test_other_errors_are_not_swallowed() -> None:
    def run(rows: Tensor) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        Batches(4).each(torch.arange(3), run)
