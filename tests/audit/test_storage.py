"""Many samples lie in a file, few in memory; nobody can tell the difference."""

import numpy as np
import pytest
import torch

from audit.runtime import storage


def test_small_is_in_memory_and_large_is_mapped(monkeypatch: pytest.MonkeyPatch):
    mapped: list[tuple[int, ...]] = []
    real = np.memmap

    def spy(file: object, dtype: type, mode: str, shape: tuple[int, ...]) -> object:
        mapped.append(shape)
        return real(file, dtype=dtype, mode=mode, shape=shape)

    monkeypatch.setattr(storage.np, "memmap", spy)
    monkeypatch.setattr(storage, "IN_MEMORY", 24)
    assert bool((storage.allocate((2, 3)) == 0).all())
    assert mapped == []
    large = storage.allocate((7, 3))
    assert mapped == [(7, 3)]
    assert large.shape == (7, 3)
    assert large.dtype == torch.float32
    assert bool((large == 0).all())


def test_copy_is_equal_and_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "IN_MEMORY", 16)
    monkeypatch.setattr(storage, "BLOCK", 2)
    x = torch.arange(21.0).reshape(7, 3)
    other = storage.copy(x)
    assert torch.equal(other, x)
    other[3] = -1
    assert float(x[3, 0]) == 9.0


def test_indexing_and_assignment_work_on_a_mapping(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "IN_MEMORY", 16)
    mapped = storage.allocate((5, 4))
    rows = torch.tensor([1, 3])
    mapped[rows] = torch.ones(2, 4)
    assert mapped[rows].sum() == 8
    assert mapped.sum() == 8
