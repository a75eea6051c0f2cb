"""Served model whose weights can be trained and written back into a file of the same format."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Trainable:
    """Served model whose weights can be trained and written back.

    Attributes:
        logits: maps samples ``(B, ...)`` in [low, high] to ``(B, K)``, differentiable in the
            weights.
        weights: trained weights, by their names in the file.
        frozen: names of the weights that are not trained.
        file: returns the model file with the current weights.
        notes: sentences for the report on how the model is trained.
    """

    logits: Callable[[Tensor], Tensor]
    weights: dict[str, nn.Parameter]
    frozen: tuple[str, ...]
    file: Callable[[], bytes]
    notes: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(iter(self.weights.values())).device

    def values(self) -> dict[str, Tensor]:
        """Return copies of the current weights."""
        return {name: value.detach().clone() for name, value in self.weights.items()}

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Set the current weights."""
        for name, value in self.weights.items():
            value.copy_(values[name])
