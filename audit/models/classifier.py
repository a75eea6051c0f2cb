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
Made = Literal["native", "lifted"]
Gradient = Made | Literal["none"]
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
class Differentiable:
    """The differentiable copy of a served model.

    Attributes:
        logits: the copy up to the logits: prepared inputs to ``(B, K)``.
        copy: the whole copy: prepared inputs to the scores that are served, or None for a
            surrogate that does not compute them.
        made: "native" where the file itself is differentiated, "lifted" where its graph is.
        graph: makes the node graph of the logits, for bound propagation; None without one.
    """

    logits: Run
    copy: Run | None
    made: Made
    graph: Callable[[], "OnnxModule"] | None = None


@dataclass(frozen=True)
class Classifier:
    """A served model over the user's samples ``(B, *spec.sample)`` in ``[low, high]``.

    Attributes:
        spec: how a sample becomes a model input.
        classes: number of classes K.
        output: what the served output is.
        source: provenance of the file.
        serve: the deployed runtime: prepared inputs to scores ``(B, K)``, float32 on the CPU.
        device: where the differentiable copy lives.
        white_box: the differentiable copy; None for a model without gradients.
        notes: what was noticed while loading, for the report's warnings.
        base: the classifier of which this one is the smoothed version, if it is one.
        threshold: value of the single score of the graph above which the model names class 1:
            0 for a logit, `CUT` for a column that was found to hold probabilities.
        unfused: the runtime without fused 8-bit kernels, of a file that holds quantised operators.
        declared: what the file says of its outputs and labels.
    """

    spec: InputSpec
    classes: int
    output: Output
    source: Provenance
    serve: Run
    device: torch.device
    white_box: Differentiable | None = None
    notes: tuple[str, ...] = ()
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
        assert self.white_box is not None
        assert self.white_box.copy is not None
        scores = self.white_box.copy(self.spec.prepare(x.to(self.device)))
        return two_columns(scores.float().cpu(), self.output)

    def differentiable(self, x: Tensor) -> Tensor:
        """Logits of the differentiable copy, ``(B, K)`` on ``device``."""
        assert self.white_box is not None
        scores = self.white_box.logits(self.spec.prepare(x))
        return two_columns(scores.float(), "logits")

    def logits_of(self, scores: Tensor) -> Tensor:
        """Logits ``(B, K)`` that stand for what the graph computes."""
        scores = scores.reshape(len(scores), -1).float()
        return two_columns(log_odds(scores) if self.threshold else scores, "logits")

    def predict(self, x: Tensor) -> Tensor:
        """Top class of the served runtime, ``(B,)`` int64."""
        return self.deployed(x).argmax(1)

    def score_only(self, reason: str) -> "Classifier":
        """The same served model without its differentiable copy."""
        return replace(self, white_box=None, notes=(*self.notes, reason))

    @property
    def gradient(self) -> Gradient:
        """Where gradients come from."""
        return "none" if self.white_box is None else self.white_box.made

    @property
    def has_copy(self) -> bool:
        """Whether a differentiable copy computes the scores that are served."""
        return self.white_box is not None and self.white_box.copy is not None


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
