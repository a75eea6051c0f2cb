"""Randomised smoothing: radii within which the smoothed classifier cannot change its mind.

With p the probability that the served model names class y under the noise, and p_low <= p a lower
Clopper-Pearson bound from independent draws, g(x') = y for every x' nearer than a radius that
depends on p_low and sigma alone. It holds for any model, also one that serves labels only.

Every certificate may fail with a probability of its own, which `audit.statistics.summary` takes
from the error that the intervals may spend; see `FAILURE`.

The proofs are over the reals. In float32 x + noise is rounded, about 1e-7 of a pixel's range; for
models that depend on such digits see "Sound randomized smoothing in floating-point arithmetic"
(Voráček & Hein 2023).
"""

import math
import time
from collections.abc import Callable

import torch
from scipy import stats

from attackers.geometry import Metric
from audit.certify import Certified
from audit.evidence.samples import Samples
from audit.models.classifier import Classifier
from audit.models.smoothed import Noise, NoiseLaw, count_votes, generator_of
from audit.schema import Certifier
from audit.statistics.soft import Kept, Soft, gaussian, laplace

FAILURE = 1 / 50
"""Share of the intervals' error that all certificates together may fail with: 0.001 at 95 %."""

CHOOSING = 100
"""Draws that choose the class, apart from those that estimate its probability."""

DOWN = 1 - 1e-9
"""Keeps the rounding of quantiles and roots below the radius."""

LAWS: dict[str, NoiseLaw] = {"linf": "gaussian", "l2": "gaussian", "l1": "gaussian"}
"""The noise of a metric; mass flows for any other, that is for ``wasserstein``."""


def lower_bound(successes: int, n: int, failure: float) -> float:
    """One-sided Clopper-Pearson: P(bound <= p) >= 1 - failure after so many of n draws."""
    return float(stats.beta.ppf(failure, successes, n - successes + 1)) if successes else 0.0


def l2_radius(p: float, sigma: float) -> float:
    """sigma·Phi^-1(p), and 0 where p <= 1/2.

    Among all events of probability p under N(x, sigma²I) a half-space loses most when the centre
    moves, and it falls to 1/2 after that distance.

    Args:
        p: lower bound on the probability of the class; it bounds all others together by 1 - p.
        sigma: standard deviation of a coordinate, in the user's units.

    Source: Cohen, Rosenfeld, Kolter 2019, theorem 1 with 1 - p for the runner-up.
    """
    return sigma * float(stats.norm.ppf(p)) * DOWN if p > 0.5 else 0.0


def wasserstein_radius(p: float, sigma: float) -> float:
    """sigma/2 · ln(1 / (2(1 - p))) in pixels × fraction of the image's mass, 0 where p <= 1/2.

    An image x' in which mass has moved inside the channels at a Manhattan cost of R·M differs from
    x by M·div(d), for a flow d over the edges of the 4-neighbour grid with ||d||_1 = R, and has the
    same M. So f sees x' under noise e as it sees x under the noise d + e. Moving a Laplace law of
    scale b by d changes its density by a factor of at most exp(R/b), hence

        P(f(x' + noise) != y) <= exp(R/b)·(1 - p) < 1/2    for    R < b·ln(1 / (2(1 - p))).

    With b = sigma/√2 that is the radius for the Manhattan ground cost. Ours is Euclidean, and
    Manhattan <= √2·Euclidean: whatever moves at a Euclidean cost of r·M moves at a Manhattan cost
    of at most √2·r·M. So r = b·ln(1 / (2(1 - p)))/√2.

    Levine & Feizi state b/2·ln(p / (1 - p)) before the last step, which bounds the other classes
    from above as well as y from below; that is less for every p > 1/2, and half as much near 1.

    Args:
        p: lower bound on the probability of the class.
        sigma: standard deviation of an edge's flow, as a share of the image's mass.

    Source: Levine & Feizi 2020, for the reduction to flows; Teng, Lee, Yuan 2020, for the radius.
    """
    if p <= 0.5:
        return 0.0
    return sigma / 2 * math.log(1 / (2 * (1 - p))) * DOWN if p < 1 else math.inf


def radius_of(metric: str, p: float, sigma: float, dimensions: int) -> float:
    """The certified radius of a metric, from a lower bound on the class's probability.

    ||d||_2 <= √D·||d||_inf and ||d||_2 <= ||d||_1, so the l2 radius over √D serves for linf and
    the l2 radius itself for l1.
    """
    if metric == "wasserstein":
        return wasserstein_radius(p, sigma)
    shrink = 1 / math.sqrt(dimensions) if metric == "linf" else 1.0
    return l2_radius(p, sigma) * shrink * DOWN


METHODS: dict[str, str] = {
    "l2": "Cohen, Rosenfeld, Kolter 2019",
    "linf": "Cohen, Rosenfeld, Kolter 2019; the l2 radius over the root of the dimension",
    "l1": "Cohen, Rosenfeld, Kolter 2019; the l2 radius, which no l1 distance is below",
    "wasserstein": "Levine & Feizi 2020, with the tighter Laplace radius of Teng, Lee, Yuan 2020; "
    "Manhattan over √2 for the Euclidean cost",
}
"""The source of each metric's radius."""


def certify(
    base: Classifier,
    noise: Noise,
    samples: Samples,
    metric: Metric,
    *,
    draws: int,
    confidence: float,
    tick: Callable[[int], None] = lambda _: None,
) -> Certified:
    """Certify the smoothed classifier around every correct sample.

    With probability 1 - FAILURE·(1 - confidence) all certificates hold together: each is given an
    equal part of that (union bound). A sample's draws depend on its content and the seed alone.

    Args:
        base: the served model under the noise.
        noise: its law.
        samples: as the smoothed classifier sees them.
        metric: the geometry.
        draws: estimation draws per sample.
        confidence: of the report's intervals.
        tick: called with 1 after each sample.
    """
    started = time.perf_counter()
    failure = FAILURE * (1 - confidence) / len(samples)
    radius = torch.zeros(len(samples), dtype=torch.float64)
    known = torch.zeros_like(radius)
    dimensions = samples.x[0].numel()
    for row in samples.correct.nonzero()[:, 0].tolist():
        p = probability(base, noise, samples, row, draws=draws, failure=failure)
        known[row] = p
        radius[row] = radius_of(metric.name, p, noise.sigma, dimensions)
        tick(1)
    abstained = int((samples.correct & (radius == 0)).sum())
    return Certified(
        radius,
        Certifier(
            name="smoothing",
            status="ran",
            detail=(
                f"Randomised smoothing ({METHODS[metric.name]}), of the model smoothed by {noise}, "
                f"not of the file alone: {draws:,} draws per sample after {CHOOSING} that choose "
                f"the class. It abstains on {abstained} of {int(samples.correct.sum())} correct "
                "samples. All certificates hold together with probability "
                f"{1 - failure * len(samples):.12g}, which the intervals count in."
            ),
            seconds=time.perf_counter() - started,
            failure_probability=failure,
        ),
        soft=Soft(known.numpy(), kept_of(metric.name, noise.sigma, dimensions), noise.sigma),
    )


def kept_of(metric: str, sigma: float, dimensions: int) -> Kept:
    """What is left of the probability of a class at a distance; see `radius_of`."""
    if metric == "wasserstein":
        return laplace(sigma)
    return gaussian(sigma, math.sqrt(dimensions) if metric == "linf" else 1.0)


def probability(
    base: Classifier, noise: Noise, samples: Samples, row: int, *, draws: int, failure: float
) -> float:
    """A lower bound on P(f(x + noise) = label), which may fail with probability ``failure``.

    0 where the class that most of the first `CHOOSING` draws name is another: nothing is to be
    gained then from the draws that estimate.
    """
    x, label = samples.x[row], int(samples.labels[row])
    chooses, estimates = (
        generator_of(
            samples.generator.take(torch.tensor([row])).fold(f"smoothing {purpose}").keys[0]
        )
        for purpose in ("choice", "estimate")
    )
    chosen = count_votes(base, x, noise, CHOOSING, chooses)
    if int(chosen.argmax()) != label:
        return 0.0
    named = count_votes(base, x, noise, draws, estimates)
    return lower_bound(int(named[label]), draws, failure)


def law_of(metric: str) -> NoiseLaw:
    """The noise whose certificates a metric takes."""
    return LAWS.get(metric, "flow")
