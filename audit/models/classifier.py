"""One `Classifier` for every file format: the runtime as served, and a differentiable copy."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from audit.models.declared import Declared
from audit.models.preprocess import InputSpec

if TYPE_CHECKING:
    from audit.models.onnx import OnnxModule

Output = Literal["logits", "probabilities", "labels"]
Gradient = Literal["native", "lifted", "none"]
Run = Callable[[Tensor], Tensor]

CUT = 0.5
"""Probability of class 1 above which a binary model names it."""

SMALLEST_PROBABILITY, NEAREST_TO_ONE = 1e-30, 2**-24
"""What probabilities p and 1 - p of float32 are raised to before their logarithm is taken."""


@dataclass(frozen=True)
class Provenance:
    """Where a model came from."""

    path: str
    sha256: str
    format: str


@dataclass(frozen=True)
class Classifier:
    """A served model over the user's samples ``(B, *spec.sample)`` in ``[low, high]``.

    Attributes:
        spec: how a sample becomes a model input.
        classes: number of classes K.
        output: what the served output is.
        gradient: where gradients come from.
        source: provenance of the file.
        serve: the deployed runtime: prepared inputs to scores ``(B, K)``, float32 on the CPU.
        copy: the differentiable copy: prepared inputs to the same scores, or None.
        attackable: the differentiable copy up to the logits: prepared inputs to ``(B, K)``.
        device: where the differentiable copy lives.
        graph: makes the node graph of the logits, for bound propagation; None where none is.
        notes: what was noticed while loading, for the report's warnings.
        base: the classifier of which this one is the smoothed version, if it is one.
        threshold: value of the single score of ``graph`` above which the model names class 1:
            0 for a logit, `CUT` for a column that was found to hold probabilities.
        unfused: the runtime without fused 8-bit kernels, of a file that holds quantised operators.
        declared: what the file says of its outputs and labels.
    """

    spec: InputSpec
    classes: int
    output: Output
    gradient: Gradient
    source: Provenance
    serve: Run
    copy: Run | None
    attackable: Run | None
    device: torch.device
    notes: tuple[str, ...] = ()
    graph: Callable[[], "OnnxModule"] | None = None
    base: "Classifier | None" = None
    threshold: float = 0.0
    unfused: Run | None = None
    declared: Declared = field(default_factory=Declared)

    @torch.no_grad()
    def deployed(self, x: Tensor) -> Tensor:
        """Scores of the served runtime itself, ``(B, K)`` float32 on the CPU; no gradient."""
        prepared = self.spec.prepare(x.detach().to("cpu", torch.float32))
        return two_columns(self.serve(prepared), self.output)

    @torch.no_grad()
    def copied(self, x: Tensor) -> Tensor:
        """Scores of the differentiable copy, in the form that the served output has."""
        assert self.copy is not None
        scores = self.copy(self.spec.prepare(x.to(self.device)))
        return two_columns(scores.float().cpu(), self.output)

    def differentiable(self, x: Tensor) -> Tensor:
        """Logits of the differentiable copy, ``(B, K)`` on ``device``."""
        assert self.attackable is not None
        scores = self.attackable(self.spec.prepare(x))
        return two_columns(scores.float(), "logits")

    def logits_of(self, scores: Tensor) -> Tensor:
        """Logits ``(B, K)`` that stand for what ``graph`` computes."""
        scores = scores.reshape(len(scores), -1).float()
        return two_columns(log_odds(scores) if self.threshold else scores, "logits")

    def predict(self, x: Tensor) -> Tensor:
        """Top class of the served runtime, ``(B,)`` int64."""
        return self.deployed(x).argmax(1)

    def score_only(self, reason: str) -> "Classifier":
        """The same served model without its differentiable copy."""
        return replace(
            self,
            gradient="none",
            copy=None,
            attackable=None,
            graph=None,
            notes=(*self.notes, reason),
        )


Load = Callable[[Tensor, int], Classifier]
"""Loads the model for a few samples, given the number of classes in the labels."""


def two_columns(scores: Tensor, output: Output) -> Tensor:
    """Flatten scores to ``(B, K)``; a single column of a binary model becomes two.

    A probability p becomes (1 - p, p), a logit z becomes (0, z): the same decision and margin.
    """
    scores = scores.reshape(len(scores), -1)
    if scores.shape[1] != 1 or output == "labels":
        return scores
    other = 1 - scores if output == "probabilities" else torch.zeros_like(scores)
    return torch.cat([other, scores], dim=1)


def log_odds(p: Tensor) -> Tensor:
    """Compute log p - log(1 - p), finite and with a gradient also where p is exactly 0 or 1.

    Positive where p > 1/2 and negative where p < 1/2, up to the rounding of float32. Each logarithm
    is bounded on its own: where one saturates, the gradient of the other one remains.
    """
    return p.clamp_min(SMALLEST_PROBABILITY).log() - (1 - p).clamp_min(NEAREST_TO_ONE).log()


def looks_like_probabilities(scores: Tensor) -> bool:
    """Whether all scores are in [0, 1] and every row sums to one."""
    if scores.shape[1] == 1:
        return False
    inside = bool(((scores >= -1e-5) & (scores <= 1 + 1e-5)).all())
    return inside and bool((scores.sum(1) - 1).abs().max() <= 1e-3)
