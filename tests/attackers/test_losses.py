"""Losses: values known by hand, and what counts as an error."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attackers.losses import LOSSES, cross_entropy, dlr, margin, misclassified, redlr

# (logits, label, DLR, ReDLR)
ORACLE = [
    ([3, 1, 0], 0, -2 / 3, -2 / 3),
    ([3, 1, 0], 1, 2 / 3, 0.0),
    ([2, 2.5, -1], 0, 1 / 7, 0.0),
]
scores = hnp.arrays("float64", (4, 3), elements=st.floats(-20, 20).map(lambda v: round(v, 2)))


@pytest.mark.parametrize(("logits", "label", "expected", "rectified"), ORACLE)
def test_dlr_and_redlr_by_hand(
    logits: list[float], label: int, expected: float, rectified: float
) -> None:
    z, y = torch.tensor([logits]).double(), torch.tensor([label])
    assert float(dlr(z, y)) == pytest.approx(expected)
    assert float(redlr(z, y)) == pytest.approx(rectified)


def test_the_shared_oracle_says_the_same(shared: Path) -> None:
    cases = json.loads((shared / "oracles.json").read_text())["dlr"]
    found = [(c["logits"], c["label"], c["dlr"], c["redlr"]) for c in cases]
    assert [row[:2] for row in found] == [row[:2] for row in ORACLE]
    for row, oracle in zip(found, ORACLE, strict=True):
        assert row[2:] == pytest.approx(oracle[2:])


def test_cross_entropy_and_margin_by_hand() -> None:
    z, y = torch.tensor([[0.0, 0.0], [1.0, 3.0]]), torch.tensor([0, 1])
    assert cross_entropy(z, y) == pytest.approx([0.693147, 0.126928], rel=1e-5)
    assert margin(z, y).tolist() == [0.0, -2.0]


def test_two_classes_have_no_third_so_the_margin_stands_in() -> None:
    z, y = torch.tensor([[1.0, 4.0], [4.0, 1.0]]), torch.tensor([1, 1])
    assert dlr(z, y).tolist() == [-3.0, 3.0]
    assert redlr(z, y).tolist() == [-3.0, 0.0]


@given(scores, st.floats(-5, 5), st.floats(0.1, 10))
def test_dlr_is_invariant_to_shift_and_scale(array: np.ndarray, shift: float, scale: float) -> None:
    z = torch.from_numpy(array)
    z = z + torch.tensor([0.0, 1.0, 3.0]).double()  # no three equal scores
    y = torch.tensor([0, 1, 2, 0])
    assert dlr(scale * z + shift, y) == pytest.approx(dlr(z, y).numpy(), rel=1e-6, abs=1e-8)
    assert (redlr(z, y) <= 0).all()
    assert (redlr(z, y) >= -1).all()


@given(scores)
def test_misclassified_means_not_the_unique_top(array: np.ndarray) -> None:
    z, y = torch.from_numpy(array), torch.tensor([0, 1, 2, 0])
    for row, label, wrong in zip(z.tolist(), y.tolist(), misclassified(z, y).tolist(), strict=True):
        unique = all(row[label] > other for k, other in enumerate(row) if k != label)
        assert wrong != unique


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_ties_and_scores_that_are_no_numbers_are_errors(bad: float) -> None:
    y = torch.tensor([0])
    assert misclassified(torch.tensor([[1.0, 1.0, 0.0]]), y).item()
    assert misclassified(torch.tensor([[bad, bad, 0.0]]), y).item()
    assert misclassified(torch.tensor([[1.0, float("nan"), 0.0]]), y).item()
    assert misclassified(torch.tensor([[float("nan"), 1.0, 0.0]]), y).item()
    assert not misclassified(torch.tensor([[1.0, 0.0, 0.0]]), y).item()


def test_redlr_has_no_gradient_on_misclassified_samples() -> None:
    z = torch.tensor([[1.0, 3.0, 0.0], [3.0, 1.0, 0.0]], requires_grad=True)
    (grad,) = torch.autograd.grad(redlr(z, torch.tensor([0, 0])).sum(), z)
    assert torch.equal(grad[0], torch.zeros(3))
    assert grad[1].abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_grows_towards_misclassification(name: str) -> None:
    along = torch.linspace(-2, 2, 9)
    z = torch.stack([-along, along, torch.full_like(along, -9.0)], dim=1)
    values = LOSSES[name](z, torch.zeros(9, dtype=torch.long))
    assert values.shape == (9,)
    assert (values.diff() >= 0).all()
    assert (values[:5].diff() > 0).all()
