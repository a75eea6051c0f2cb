"""Where gradients are exactly zero, attacks still move, and minimal radii are still found."""

import torch
from torch import Tensor

from attackers.anchors import anchors
from attackers.geometry import NORMS, Linf
from attackers.losses import misclassified
from attackers.minimal import minimal_radius
from attackers.pgd import pgd
from attackers.random_streams import SampleGenerator
from attackers.threat import Threat


def step(x: Tensor) -> Tensor:
    """Class 1 where the first value exceeds a half: zero gradient almost everywhere."""
    above = (x.flatten(1)[:, :1] > 0.5).float()
    return torch.cat([1 - above, above], dim=1) + 0 * x.sum()


X0 = torch.full((3, 1, 4, 4), 0.3)
LABELS = torch.zeros(3, dtype=torch.int64)
GENERATOR = SampleGenerator((1, 2, 3))


def test_plateau_is_left_by_chance():
    x = pgd(step, X0, LABELS, Threat(Linf(), 0.6), generator=GENERATOR, start=X0)
    assert bool(misclassified(step(x), LABELS).all())
    assert bool((x != X0).any())


def test_every_sample_gets_a_radius_that_is_the_true_one():
    x = minimal_radius(step, X0, LABELS, Linf(), generator=GENERATOR)
    distance = Linf().distance(X0, x)
    assert bool(misclassified(step(x), LABELS).all())
    # The decision changes 0.2 away, and no gradient says where.
    assert bool(((distance >= 0.2) & (distance < 0.3)).all()), distance


def test_anchors_stay_in_the_box_and_depend_on_the_sample_alone():
    for name, kind in NORMS.items():
        metric = kind(-1.0, 2.0)
        x0 = torch.linspace(-1, 2, 48).reshape(3, 1, 4, 4)
        together = list(anchors(metric, x0, GENERATOR))
        alone = list(anchors(metric, x0[1:2], GENERATOR.take(torch.tensor([1]))))
        assert len(together) == len(alone) > 5, name
        for batch, single in zip(together, alone, strict=True):
            assert batch.shape == x0.shape
            assert bool(((batch >= -1) & (batch <= 2)).all())
            assert torch.equal(batch[1:2], single)
