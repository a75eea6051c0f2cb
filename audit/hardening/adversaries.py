"""Adversaries of training, which map a batch to the images a model is trained on, and the losses.

Inner attacks are short, attack the whole batch together, and continue on samples that are already
misclassified, because training works best on the largest loss. Their results carry no gradients of
the weights.

Sources: Madry et al. 2018 (pgd); Zhang et al. 2019, equation 5 (trades); Goel, Shah, Suresh
(wagan); Bai, He, Jiang, Obłój 2023 (wdro: the first-order map spends one budget over the batch).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from attackers.geometry import Metric, Wasserstein
from attackers.gradient import Logits, value_and_grad
from attackers.losses import Loss, cross_entropy
from attackers.threat import Threat
from attackers.transport import TransportState
from attackers.wagan.networks import Generator
from attackers.wdro import w_pgd

NEIGHBOURHOOD = 2
"""Largest number of pixels that mass moves, in rows and in columns, under the wasserstein threat.

A larger window allows longer transport, but time and memory grow with its area.
"""

BETA = 6.0
"""Default weight of the divergence in TRADES, as published (Zhang et al. 2019, 1/lambda = 6)."""

TOTAL_STEP_LENGTH = 2.5
"""Total length of the steps of an inner attack, in radii (Madry et al. 2018).

Steps that add up to more than 2 radii can cross the ball from any start.
"""


class Adversary(Protocol):
    """Function that maps a batch to the images that the model is trained on."""

    def __call__(
        self, logits: Logits, x0: Tensor, labels: Tensor, random: torch.Generator
    ) -> Tensor:
        """Return images ``(B, ...)`` inside ball and box, without gradients of the weights."""


@dataclass(frozen=True)
class Pgd:
    """Projected gradient ascent with steps of equal length in the metric, from a random start.

    Under ``wasserstein``, mass moves along the decayed sum of all previous gradients, by the
    coupling of `attackers.transport`; misclassified images are attacked until the last step.

    Attributes:
        metric: metric of the ball.
        radius: radius of the ball.
        steps: number of gradients.
        loss: maximised function of (logits, labels).
    """

    metric: Metric
    radius: float
    steps: int
    loss: Loss = cross_entropy

    def __call__(
        self, logits: Logits, x0: Tensor, labels: Tensor, random: torch.Generator
    ) -> Tensor:
        """See `Adversary`."""
        noise = torch.randn(x0.shape, generator=random).to(x0)
        if isinstance(self.metric, Wasserstein):
            return self._moved(logits, x0, labels, noise)
        radius = x0.new_full((len(x0),), self.radius)
        share = torch.rand(len(x0), generator=random).to(x0)
        ball = self.metric.ball(x0, self.radius)
        x = ball.project(x0 + ball.step(x0, noise, share * radius))
        for _ in range(self.steps):
            _, _, grad = value_and_grad(logits, self.loss, x, labels)
            x = ball.project(
                x + ball.step(x, grad.nan_to_num(), TOTAL_STEP_LENGTH / self.steps * radius)
            )
        return x

    def _moved(self, logits: Logits, x0: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
        assert isinstance(self.metric, Wasserstein)
        radius = x0.new_full((len(x0),), self.radius, dtype=torch.float64)
        mover = TransportState.of(self.metric, x0, radius, NEIGHBOURHOOD)
        # A small random move before the first gradient, like the random start in other metrics.
        x = mover.ascended(noise, 0.0)[1] if self.steps else x0
        for step in range(self.steps):
            _, _, grad = value_and_grad(logits, self.loss, x, labels)
            mover, x, _ = mover.ascended(grad, step / self.steps)
        return x


@dataclass(frozen=True)
class Wdro:
    """W-PGD on the empirical law of the batch: its samples share one budget of order p."""

    threat: Threat
    steps: int

    def __call__(
        self, logits: Logits, x0: Tensor, labels: Tensor, random: torch.Generator
    ) -> Tensor:
        """See `Adversary`."""
        del random
        return w_pgd(logits, x0, labels, self.threat, loss=cross_entropy, steps=self.steps)


@dataclass(frozen=True)
class Generated:
    """Generator that attacks in one pass; its flow head stays in the image-Wasserstein ball."""

    network: Generator
    radius: float

    @torch.no_grad()
    def __call__(
        self, logits: Logits, x0: Tensor, labels: Tensor, random: torch.Generator
    ) -> Tensor:
        """See `Adversary`."""
        del logits, labels
        noise = torch.randn(x0[:, :1].shape, generator=random).to(x0)
        made: Tensor = self.network(x0, noise, x0.new_full((len(x0),), self.radius))
        return made


@dataclass(frozen=True)
class Mixed:
    """Several adversaries, each of which attacks an equal share of every batch."""

    parts: tuple[Adversary, ...]

    def __call__(
        self, logits: Logits, x0: Tensor, labels: Tensor, random: torch.Generator
    ) -> Tensor:
        """See `Adversary`."""
        order = torch.randperm(len(x0), generator=random).to(x0.device)
        x = x0.clone()
        for part, rows in zip(self.parts, order.tensor_split(len(self.parts)), strict=True):
            if len(rows):
                x[rows] = part(logits, x0[rows], labels[rows], random)
        return x


# Training losses ----------------------------------------------------------------------------------


def adversarial_loss(
    logits: Logits,
    adversary: Adversary,
    x0: Tensor,
    labels: Tensor,
    random: torch.Generator,
    *,
    clean: float = 0.0,
) -> Tensor:
    """Return ``clean``·CE(x0) + (1 - ``clean``)·CE(x), x the images of the adversary."""
    x = adversary(logits, x0, labels, random)
    attacked = functional.cross_entropy(logits(x), labels)
    if not clean:
        return attacked
    return clean * functional.cross_entropy(logits(x0), labels) + (1 - clean) * attacked


def divergence(scores: Tensor, wanted: Tensor) -> Tensor:
    """Return KL(e^wanted || softmax(scores)) per sample, ``(B,)``.

    ``wanted`` contains log-probabilities ``(B, K)``: with logarithms on both sides the gradient
    remains finite when the probability of a class underflows to 0.
    """
    return (wanted.exp() * (wanted - scores.log_softmax(1))).sum(1)


def trades_loss(
    logits: Logits,
    attack: Pgd,
    x0: Tensor,
    labels: Tensor,
    random: torch.Generator,
    *,
    beta: float = BETA,
) -> Tensor:
    """Return CE(x0) + beta·KL(p(x0) || p(x)), x the images that maximise the divergence."""
    with torch.no_grad():
        wanted = logits(x0).log_softmax(1)
    x = attack(logits, x0, wanted, random)
    scores = logits(x0)
    apart = divergence(logits(x), scores.log_softmax(1)).mean()
    return functional.cross_entropy(scores, labels) + beta * apart


TrainingLoss = Callable[[Logits, Tensor, Tensor, torch.Generator], Tensor]
"""Function of (logits, x0, labels, random): a scalar, differentiable in the weights."""
