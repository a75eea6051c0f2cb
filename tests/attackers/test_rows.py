"""Arithmetic of rows: the same bits in every batch, radii never rounded up."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attackers.rows import expand, expand_down, row_max, row_sum


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Two threads for one test: torch splits a long reduction only where it has them."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sum_of_a_long_row_does_not_depend_on_the_batch(dtype: torch.dtype) -> None:
    x = torch.rand((8, 1, 200, 200), generator=torch.Generator().manual_seed(0)).to(dtype) ** 3
    together = row_sum(x)
    for i in range(8):
        assert torch.equal(row_sum(x[i : i + 1])[0], together[i])
    assert together == pytest.approx(x.double().flatten(1).numpy().sum(1), rel=1e-5)
    assert torch.equal(row_max(x), torch.stack([row.max() for row in x]))


@given(st.floats(1e-30, 1e30))
def test_a_radius_is_rounded_down(value: float) -> None:
    like = torch.zeros(2, 3, 1)
    for radius in (value, torch.tensor([value, 2 * value], dtype=torch.float64)):
        found = expand_down(radius, like).double()
        assert found.shape == (2, 1, 1)
        assert float(found[0]) <= value
        assert float(found[0]) == pytest.approx(value, rel=2e-7)
    # A number that float32 holds exactly stays what it is.
    assert float(expand_down(0.25, like)[0]) == 0.25
    assert expand_down(0.0, like).eq(0).all()
    assert expand(0.1, like).shape == (2, 1, 1)
