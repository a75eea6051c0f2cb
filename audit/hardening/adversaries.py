"""What a model is trained against: functions from a batch to the images it is shown, and its loss.

Inner attacks are short, take the whole batch together, and keep attacking what is broken already:
a model learns most from the worst case. All of them project outside the graph of the weights.

Sources: Madry et al. 2018 (pgd); Zhang et al. 2019, equation 5 (trades); Goel, Shah, Suresh
(wagan); Bai, He, Jiang, Obłój 2023 (wdro: the first-order map spends one budget over the batch).
"""

from collections.abc import Callable, Mapping
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

REACH = 2
"""Rows and columns that the mass moves on each side there."""

BETA = 6.0
"""Of trades: weight of the divergence."""

STRIDE = 2.5
"""Total length of the steps of an inner attack, in radii."""


class Adversary(Protocol):
    """Makes the images of a batch that the model is trained on."""

    def __call__(
        self, logits: Logits, x0: Tensor, labels: Tensor, random: torch.Generator
    ) -> Tensor:
        """Return (B, ...) inside the threat's ball and box, without a graph."""


@dataclass(frozen=True)
class Pgd:
    """Steps of equal length along the steepest way of the metric, from a random start.

    Under `wasserstein` every image's mass climbs the decayed sum of all gradients so far, by the
    coupling of `attackers.transport`, but to the end: what is broken is attacked further.

    Attributes:
        metric, radius: of the ball.
        steps: gradients.
        loss: what is ascended, of (logits, labels).
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
            x = ball.project(x + ball.step(x, grad.nan_to_num(), STRIDE / self.steps * radius))
        return x

    def _moved(self, logits: Logits, x0: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
        assert isinstance(self.metric, Wasserstein)
        radius = x0.new_full((len(x0),), self.radius, dtype=torch.float64)
        mover = TransportState.of(self.metric, x0, radius, REACH)
        # The first gradient is taken a little off the image, as from the random start of others.
        x = mover.ascended(noise, 0.0)[1] if self.steps else x0
        for step in range(self.steps):
            _, _, grad = value_and_grad(logits, self.loss, x, labels)
            mover, x, _ = mover.ascended(grad, step / self.steps)
        return x


@dataclass(frozen=True)
class Wdro:
    """W-PGD with the batch as the law: who is worth more gets more of the common budget."""

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
    """A trained generator; the metric is the image-Wasserstein one for its flow head."""

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
    """Every image of a batch is attacked by one of several adversaries, in equal shares."""

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


# What the model minimises -------------------------------------------------------------------------


def adversarial_loss(
    logits: Logits,
    adversary: Adversary,
    x0: Tensor,
    labels: Tensor,
    random: torch.Generator,
    *,
    clean: float = 0.0,
) -> Tensor:
    """Cross-entropy of the attacked images, and a share ``clean`` of that of the originals."""
    x = adversary(logits, x0, labels, random)
    attacked = functional.cross_entropy(logits(x), labels)
    if not clean:
        return attacked
    return clean * functional.cross_entropy(logits(x0), labels) + (1 - clean) * attacked


def divergence(scores: Tensor, wanted: Tensor) -> Tensor:
    """KL(e^wanted || softmax(scores)) per sample, ``(B,)``; ``wanted``: (B, K) log-probabilities.

    In logarithms on both sides: a class of probability 0 has a gradient that is a number.
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
    """CE(x0) + beta·KL(p(x0) || p(x)), x the attack on that divergence."""
    with torch.no_grad():
        wanted = logits(x0).log_softmax(1)
    x = attack(logits, x0, wanted, random)
    scores = logits(x0)
    apart = divergence(logits(x), scores.log_softmax(1)).mean()
    return functional.cross_entropy(scores, labels) + beta * apart


METHODS: Mapping[str, str] = {
    "pgd": "adversarial training (Madry et al. 2018)",
    "trades": "TRADES (Zhang et al. 2019)",
    "wagan": "examples of a generator (Goel, Shah, Suresh)",
    "wdro": "distributional adversarial training (after Bai et al. 2023)",
    "mixed": "several threats in equal shares",
}
"""``--with``, and what each is."""

TrainingLoss = Callable[[Logits, Tensor, Tensor, torch.Generator], Tensor]
"""Of (logits, x0, labels, random): what is minimised, a scalar with a graph of the weights."""
