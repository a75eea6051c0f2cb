"""Comparison of a hardened file, as served, with the module that was trained."""

import torch

from audit.errors import InternalError
from audit.evidence.samples import Samples
from audit.hardening.trainable import Trainable
from audit.models.classifier import Classifier

LARGEST_DIFFERENCE = 1e-4
"""Largest accepted difference, relative to the largest score; float32 rounding stays below it."""

COMPARED = 64
"""Number of samples that are compared."""


def served_difference(model: Trainable, served: Classifier, samples: Samples) -> float:
    """Return the largest difference of scores between the hardened file and the trained module.

    Raises:
        InternalError: the difference is larger than rounding explains.
    """
    x = samples.x[:COMPARED]
    with torch.no_grad():
        # TorchScript may return a tensor that requires gradients even under no_grad.
        trained = model.logits(x.to(served.device)).detach().cpu()
    again = served.differentiable(x.to(served.device)).detach().cpu()
    difference = float((trained - again).abs().max())
    if served.output == "logits":
        difference = max(difference, float((trained - served.deployed(x)).abs().max()))
    if difference > LARGEST_DIFFERENCE * max(1.0, float(trained.abs().max())):
        raise InternalError(
            f"The hardened file serves scores that differ by {difference:g} from the module that "
            "was trained: this is a bug, please report it with the model."
        )
    return difference
