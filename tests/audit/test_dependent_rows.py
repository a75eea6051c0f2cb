"""Samples that see each other stop the scan; a random model is a finding of its own."""

import pytest
import torch
from fakes import classifier, inputs, key, linear, scan_of
from torch import Tensor

from audit.errors import ModelError
from audit.scanning import scan

X = inputs(40)
LABELS = linear(X).argmax(1)


def leaking(x: Tensor) -> Tensor:
    """Scores that move with the mean of the batch, as batch normalisation in training does."""
    return linear(x) + torch.tensor([0.0, 1.0]) * x.flatten(1)[:, 1:2].mean()


def random(x: Tensor) -> Tensor:
    return linear(x) + 0.05 * torch.randn(len(x), 2)


def test_leaking_batches_stop_the_scan():
    with pytest.raises(ModelError, match="evaluation mode"):
        scan.run(scan_of(classifier(leaking), X, LABELS, metrics=("linf",), deltas=(0.01,)))


def test_a_random_model_is_scanned_and_called_unreliable():
    torch.manual_seed(0)
    done = scan.run(scan_of(classifier(random), X, LABELS, metrics=("linf",), deltas=(0.01,)))
    status = {key(entry): entry.status for entry in done.health}
    assert status["determinism"] == "fail"
