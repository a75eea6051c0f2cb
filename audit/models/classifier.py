"""`Classifier`, common to all file formats: the served runtime and a differentiable copy."""

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
"""Probability of class 1 above which a binary model predicts it."""

SMALLEST_PROBABILITY, NEAREST_TO_ONE = 1e-30, 2**-24
"""Lower bounds of the float32 probabilities p and 1 - p before the logarithm is taken."""


@dataclass(frozen=True)
class Provenance:
    """Origin of a model."""

    path: str
    sha256: str
    format: str


@dataclass(frozen=True)
class Differentiable:
    """Differentiable copy of a served model.

    Attributes:
        logits: the copy up to the logits; maps prepared inputs to ``(B, K)``.
        copy: the whole copy; maps prepared inputs to the served scores. None for a
            surrogate that does not compute them.
        made: "native" if the file itself is differentiated, "lifted" if its graph is.
        graph: creates the node graph of the logits for bound propagation; None without one.
    """

    logits: Run
    copy: Run | None
    made: Made
    graph: Callable[[], "OnnxModule"] | None = None


@dataclass(frozen=True)
class Classifier:
    """Served model on the user's samples ``(B, *spec.sample)`` in ``[low, high]``.

    Attributes:
        spec: conversion of a sample to a model input.
        classes: number of classes K.
        output: kind of the served output.
        source: provenance of the file.
        serve: the deployed runtime; maps prepared inputs to scores ``(B, K)``, float32 on the CPU.
        device: device of the differentiable copy.
        white_box: the differentiable copy; None for a model without gradients.
        notes: observations made while loading, for the warnings of the report.
        base: for a smoothed classifier, the classifier that is smoothed.
        threshold: value of the single score of the graph above which the model predicts class 1:
            0 for a logit, `CUT` for a column that is interpreted as probabilities.
        unfused: the runtime without fused 8-bit kernels, for files with quantised operators.
        declared: outputs and labels that the file declares.
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
        """Return scores of the served runtime, ``(B, K)`` float32 on the CPU, without gradient."""
        prepared = self.spec.prepare(x.detach().to("cpu", torch.float32))
        return two_columns(self.serve(prepared), self.output)

    @torch.no_grad()
    def copied(self, x: Tensor) -> Tensor:
        """Return scores of the differentiable copy, in the form of the served output."""
        assert self.white_box is not None
        assert self.white_box.copy is not None
        scores = self.white_box.copy(self.spec.prepare(x.to(self.device)))
        return two_columns(scores.float().cpu(), self.output)

    def differentiable(self, x: Tensor) -> Tensor:
        """Return logits of the differentiable copy, ``(B, K)`` on ``device``."""
        assert self.white_box is not None
        scores = self.white_box.logits(self.spec.prepare(x))
        return two_columns(scores.float(), "logits")

    def logits_of(self, scores: Tensor) -> Tensor:
        """Convert scores computed by the graph to logits ``(B, K)``."""
        scores = scores.reshape(len(scores), -1).float()
        return two_columns(log_odds(scores) if self.threshold else scores, "logits")

    def predict(self, x: Tensor) -> Tensor:
        """Return the top class of the served runtime, ``(B,)`` int64."""
        return self.deployed(x).argmax(1)

    def score_only(self, reason: str) -> "Classifier":
        """Return the served model without its differentiable copy, with the reason as a note."""
        return replace(self, white_box=None, notes=(*self.notes, reason))

    @property
    def attacked_function(self) -> Run:
        """Function that attacks query: the differentiable copy, or else the served scores."""
        return self.deployed if self.white_box is None else self.differentiable

    @property
    def gradient(self) -> Gradient:
        """Source of the gradients."""
        return "none" if self.white_box is None else self.white_box.made

    @property
    def has_copy(self) -> bool:
        """Return whether a differentiable copy computes the served scores."""
        return self.white_box is not None and self.white_box.copy is not None


Load = Callable[[Tensor, int], Classifier]
"""Function that loads the model for some samples and a number of classes in the labels."""


def two_columns(scores: Tensor, output: Output) -> Tensor:
    """Flatten scores to ``(B, K)``; expand the single column of a binary model to two.

    A probability p becomes (1 - p, p), a logit z becomes (0, z); decision and margin are kept.
    """
    scores = scores.reshape(len(scores), -1)
    if scores.shape[1] != 1 or output == "labels":
        return scores
    other = 1 - scores if output == "probabilities" else torch.zeros_like(scores)
    return torch.cat([other, scores], dim=1)


def log_odds(p: Tensor) -> Tensor:
    """Compute log p - log(1 - p); it is finite and has a gradient even if p is exactly 0 or 1.

    It is positive if p > 1/2 and negative if p < 1/2, up to float32 rounding. Each logarithm
    is bounded separately: if one saturates, the gradient of the other one remains.
    """
    return p.clamp_min(SMALLEST_PROBABILITY).log() - (1 - p).clamp_min(NEAREST_TO_ONE).log()


def looks_like_probabilities(scores: Tensor) -> bool:
    """Return whether all scores are in [0, 1] and every row sums to one."""
    if scores.shape[1] == 1:
        return False
    inside = bool(((scores >= -1e-5) & (scores <= 1 + 1e-5)).all())
    return inside and bool((scores.sum(1) - 1).abs().max() <= 1e-3)
