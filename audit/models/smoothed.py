"""Smoothed classifier: the class that a served model predicts most often under random noise.

    g(x) = argmax_c P(f(x + noise) = c)

The noise is in the user's units, before the model's own normalisation, and is not clipped, so f
receives values outside the box. There are two laws, one for each kind of threat:

- ``gaussian`` (Cohen, Rosenfeld, Kolter 2019): x + sigma·N(0, I).
- ``flow`` (Levine & Feizi 2020): x + M·div(e), with e a flow of mass over every edge between
  neighbouring pixels of a row or column of a channel, drawn from a Laplace law of standard
  deviation sigma (scale sigma/√2), and M the mass of the image over all channels.

g itself cannot be computed, only polled. This approximation is a function of the input alone:
its random numbers are keyed by the content of the input, so that no result depends on batch or
order.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from scipy import stats
from torch import Tensor

from attackers.random_streams import SampleGenerator
from attackers.rows import expand, row_sum
from audit.models.classifier import Classifier, Differentiable
from audit.models.execution import Function
from audit.models.preprocess import InputSpec

NoiseLaw = Literal["gaussian", "flow"]

SOFT_DRAWS = 16
"""Number of noise draws in the surrogate that gradient attacks use."""

LOOKS = (64, 256, 1024)
"""Numbers of votes after which a poll is tested; it ends as soon as the winner is settled."""

DOUBT = 1e-9
"""Largest probability, per input, that a poll settles on a class less likely than the label."""


@dataclass(frozen=True)
class Noise:
    """Probability distribution of the noise.

    Attributes:
        sigma: standard deviation; of a coordinate in the user's units for ``gaussian``, of an
            edge's flow as a share of the image's mass for ``flow``.
        law: kind of noise, see the docstring of the module.
        low: value of a pixel without mass.
    """

    sigma: float
    law: NoiseLaw
    low: float = 0.0

    def patterns(self, shape: tuple[int, ...], count: int, generator: torch.Generator) -> Tensor:
        """Draw noise for inputs of unit `scale`, ``(count, *shape)`` float32.

        ``flow`` needs images ``(C, H, W)``, and keeps the mass of every channel.
        """
        if self.law == "gaussian":
            return self.sigma * torch.randn((count, *shape), generator=generator)
        pattern = torch.zeros((count, *shape))
        for dim in (-2, -1):
            edges = list(pattern.shape)
            edges[dim] -= 1
            flow = self.sigma / math.sqrt(2) * _laplace(edges, generator)
            pattern.narrow(dim, 0, edges[dim]).sub_(flow)
            pattern.narrow(dim, 1, edges[dim]).add_(flow)
        return pattern

    def scale(self, x: Tensor) -> Tensor:
        """Return the factor of a pattern for each sample of ``x``: ``(B,)``."""
        if self.law == "gaussian":
            return x.new_ones(len(x))
        return row_sum(x.double() - self.low).to(x)

    def __str__(self) -> str:
        """Describe the noise for the report."""
        if self.law == "gaussian":
            return f"Gaussian noise of sigma {self.sigma:g} in the units of the input"
        return f"Laplace flows of mass between pixels, of sigma {self.sigma:g} of the image's mass"


def smooth(base: Classifier, noise: Noise, seed: int) -> Classifier:
    """Smooth a classifier over the samples of ``base``.

    Its ``deployed`` polls ``base.deployed`` (see `poll`): class frequencies, with a tie wherever
    the votes do not settle the winner. So an unsettled input is not an adversarial example, and
    a sample that is unsettled from the start counts as an error. Its ``differentiable`` is the
    logarithm of the mean softmax over `SOFT_DRAWS` draws, the same for all inputs: a smooth,
    deterministic surrogate.

    Args:
        base: the served model f.
        noise: distribution of the noise.
        seed: seed of all draws.
    """
    spec = base.spec
    generator = SampleGenerator.seeded([b"smoothing"], seed)
    fixed = noise.patterns(spec.sample, SOFT_DRAWS, generator_of(generator.fold("attack").keys[0]))
    return Classifier(
        spec=InputSpec(spec.sample, (), torch.float32, None, spec.low, spec.high),
        classes=base.classes,
        output="probabilities",
        source=base.source,
        serve=partial(poll, base, noise, seed),
        device=base.device,
        white_box=(
            None
            if base.white_box is None
            else Differentiable(soft_votes(base, noise, fixed), None, base.white_box.made)
        ),
        notes=(
            *base.notes,
            "All numbers are those of the smoothed model: the class that the served model predicts "
            f"most often under {noise}. They do not apply to the model without that noise.",
            f"Attacks use {SOFT_DRAWS} fixed noise draws. An adversarial example counts only if at "
            f"most {LOOKS[-1]:,} votes show that another class is more likely than the label, with "
            f"an error probability of at most {DOUBT:g}. Passes are counted in inputs of the "
            "smoothed model, not in noise draws.",
        ),
        base=base,
    )


def poll(base: Classifier, noise: Noise, seed: int, x: Tensor) -> Tensor:
    """Return class frequencies under noise, tied if the votes do not settle the winner.

    For every label y fixed beforehand, with probability 1 - `DOUBT` per input, a class scores
    strictly more than y only if it is more likely than y under the noise. Given the votes a and b
    of a class and of y, a is binomial of (a + b); the class is settled above y where a fair coin
    gives a or more heads with probability at most DOUBT / (looks · K), which is where the lower
    Clopper-Pearson bound of a / (a + b) exceeds 1/2. The union bound covers looks and classes.

    Args:
        base: the served model, which casts the votes.
        noise: distribution of the noise.
        seed: seed of the draws, together with the content of each input.
        x: (B, ...) float32 on the CPU.

    Returns:
        (B, K) float32.

    Source: the test of Cohen, Rosenfeld, Kolter 2019 (PREDICT), made sequential.
    """
    keys = SampleGenerator.seeded((row.contiguous().numpy().tobytes() for row in x), seed)
    votes = torch.zeros((len(x), base.classes), dtype=torch.int64)
    level = DOUBT / (len(LOOKS) * base.classes)
    rows, before = torch.arange(len(x)), 0
    for look in LOOKS:
        streams = keys.take(rows).fold(f"poll {look}")
        for row, key in zip(rows.tolist(), streams.keys, strict=True):
            votes[row] += count_votes(base, x[row], noise, look - before, generator_of(key))
        before = look
        rows = rows[~votes_settled(votes[rows], level).all(1)]
        if not len(rows):
            break
    winner = votes.amax(1, keepdim=True)
    # Shares of the votes cast; the number of looks of a row does not change the order of classes.
    shares = torch.where(votes_settled(votes, level), votes, winner) / votes.sum(1, True).clamp_min(
        1
    )
    return shares.float()


def votes_settled(votes: Tensor, level: float) -> Tensor:
    """Return whether the class of most votes is more likely than each, ``(B, K)``; True for itself.

    A row without a unique winner is settled only for its first class.
    """
    ahead = votes.amax(1, keepdim=True)
    tail = stats.binom.sf((ahead - 1).numpy(), (ahead + votes).numpy(), 0.5)
    return (torch.from_numpy(tail) <= level).scatter(1, votes.argmax(1, keepdim=True), True)


def count_votes(
    base: Classifier, x: Tensor, noise: Noise, count: int, generator: torch.Generator
) -> Tensor:
    """Count how often the served model predicts each class under noise: ``(K,)`` int64.

    A draw whose top score is tied or NaN is a vote for no class.

    Args:
        base: the served model.
        x: one sample, ``(...)`` float32 on the CPU.
        noise: distribution of the noise.
        count: number of draws.
        generator: generator of the draws, made in calls whose size depends on the sample's shape.
    """
    at_once = max(32, min(1024, 2**21 // max(1, x.numel())))
    scale = noise.scale(x[None])
    votes = torch.zeros(base.classes + 1, dtype=torch.int64)
    for start in range(0, count, at_once):
        pattern = noise.patterns(tuple(x.shape), min(at_once, count - start), generator)
        top = base.deployed(x + scale * pattern).topk(2, dim=1)
        unique = top.values[:, 0] > top.values[:, 1]
        named = torch.where(unique, top.indices[:, 0], base.classes)
        votes += torch.bincount(named, minlength=base.classes + 1)
    return votes[:-1]


def soft_votes(base: Classifier, noise: Noise, patterns: Tensor) -> Function:
    """Return the log of the copy's mean softmax over fixed draws as a function to ``(B, K)``.

    Source: expectation over transformation (Athalye et al. 2018), as in Salman et al. 2019.
    """

    def logits(x: Tensor) -> Tensor:
        draws = patterns.to(x)
        scale = expand(noise.scale(x), x)
        noisy = (x[:, None] + scale[:, None] * draws).flatten(0, 1)
        votes = base.differentiable(noisy).log_softmax(1).reshape(len(x), len(draws), -1)
        return votes.logsumexp(1) - math.log(len(draws))

    return logits


def _laplace(shape: list[int], generator: torch.Generator) -> Tensor:
    """Draw Laplace variables of scale one by the inverse of their distribution function.

    The uniform variables have 24 bits, so no value exceeds 17 scales. For 1,024 MNIST images this
    takes 5 ms on one core; the difference of two `exponential_` draws takes 27 ms.
    """
    uniform = 2 * torch.rand(shape, generator=generator) - 1
    size = torch.log1p(-uniform.abs().clamp_max(1 - 2.0**-24)).neg_()
    return size.copysign_(uniform)


def generator_of(key: int) -> torch.Generator:
    """Return the random stream of a key."""
    return torch.Generator().manual_seed(key)
