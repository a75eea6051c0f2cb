"""Random streams belong to the samples."""

import pytest
import torch

from attackers.random_streams import SampleGenerator

CONTENTS = [b"a", b"b", b"c"]


def test_same_content_same_numbers_in_any_order_and_batch() -> None:
    like = torch.empty(3, 2, 4)
    all_ = SampleGenerator.seeded(CONTENTS, 7)
    for draw in (SampleGenerator.uniform, SampleGenerator.normal):
        together = draw(all_, like)
        assert torch.equal(draw(all_, like), together)
        backwards = SampleGenerator.seeded(CONTENTS[::-1], 7)
        assert torch.equal(draw(backwards, like).flip(0), together)
        alone = SampleGenerator.seeded([b"b"], 7)
        assert torch.equal(draw(alone, like[:1])[0], together[1])
        taken = all_.take(torch.tensor([2, 0]))
        assert torch.equal(draw(taken, like[:2]), together[[2, 0]])


def test_folds_seeds_and_contents_give_other_numbers() -> None:
    like = torch.empty(3, 500)
    base = SampleGenerator.seeded(CONTENTS, 7)
    drawn = torch.cat(
        [
            base.uniform(like),
            base.fold("start").uniform(like),
            base.fold("restart").uniform(like),
            SampleGenerator.seeded(CONTENTS, 8).uniform(like),
        ]
    )
    correlation = torch.corrcoef(drawn) - torch.eye(len(drawn))
    # Five standard deviations of the correlation of 500 independent pairs.
    assert correlation.abs().max() < 5 / 500**0.5
    assert len(base) == 3
    assert base.fold("start") == base.fold("start")


def test_streams_are_uniform_and_normal() -> None:
    generator = SampleGenerator.seeded([b"x"], 0)
    uniform = generator.uniform(torch.empty(1, 20000)).double()
    normal = generator.normal(torch.empty(1, 20000)).double()
    assert (uniform >= 0).all()
    assert (uniform < 1).all()
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(normal.mean()) == pytest.approx(0, abs=0.03)
    assert float(normal.std()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_and_device_are_those_asked_for(dtype: torch.dtype) -> None:
    generator = SampleGenerator.seeded(CONTENTS, 0)
    drawn = generator.uniform(torch.empty(3, 1, 2, 2, dtype=dtype))
    assert drawn.dtype == dtype
    assert drawn.device == torch.device("cpu")
    assert drawn.shape == (3, 1, 2, 2)
    # The numbers do not depend on the dtype.
    assert torch.equal(drawn.float(), generator.uniform(torch.empty(3, 1, 2, 2)))


def test_a_batch_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError):
        SampleGenerator.seeded(CONTENTS, 0).uniform(torch.empty(4, 2))
