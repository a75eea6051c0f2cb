"""Randomised smoothing: radii within which the smoothed classifier's prediction cannot change.

With p the probability that the served model predicts class y under the noise, and p_low <= p a
lower Clopper-Pearson bound from independent draws, g(x') = y for every x' nearer than a radius that
depends on p_low and sigma alone. This holds for any model, even one that serves labels only.

Every certificate may fail with a small probability, which `audit.statistics.summary` subtracts from
the error that the intervals may spend; see `FAILURE`.

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
from audit.errors import contained
from audit.evidence.samples import Samples
from audit.models.classifier import Classifier
from audit.models.smoothed import Noise, NoiseLaw, count_votes, generator_of
from audit.schema import Certifier
from audit.statistics.soft import Kept, Soft, gaussian, laplace

FAILURE = 1 / 50
"""Share of the intervals' error probability that all certificates together spend: 0.001 at 95 %."""

CHOOSING = 100
"""Number of draws that choose the class; further, independent draws estimate its probability."""

DOWN = 1 - 1e-9
"""Factor on a radius, so that rounding of quantiles and roots cannot raise it."""

FAILED_SAMPLES = (
    " The certificates of {} of {} correct samples stopped on an error, and their radii are 0: {}."
)

LAWS: dict[str, NoiseLaw] = {"linf": "gaussian", "l2": "gaussian", "l1": "gaussian"}
"""Noise of each norm; any other metric, that is ``wasserstein``, uses flows of mass."""


def lower_bound(successes: int, n: int, failure: float) -> float:
    """Return the one-sided Clopper-Pearson bound of a proportion: P(bound <= p) >= 1 - failure.

    Args:
        successes: number of successful draws.
        n: number of draws.
        failure: probability that the bound exceeds p.

    Source: Clopper & Pearson 1934.
    """
    return float(stats.beta.ppf(failure, successes, n - successes + 1)) if successes else 0.0


def l2_radius(p: float, sigma: float) -> float:
    """Return the l2 radius sigma·Phi^-1(p), and 0 where p <= 1/2.

    Among all events of probability p under N(x, sigma²I) a half-space loses most when the centre
    moves, and its probability falls to 1/2 after that distance.

    Args:
        p: lower bound on the probability of the class; it bounds all others together by 1 - p.
        sigma: standard deviation of a coordinate, in the user's units.

    Source: Cohen, Rosenfeld, Kolter 2019, theorem 1 with 1 - p for the runner-up.
    """
    return sigma * float(stats.norm.ppf(p)) * DOWN if p > 0.5 else 0.0


def wasserstein_radius(p: float, sigma: float) -> float:
    """Return the radius sigma/2 · ln(1 / (2(1 - p))) for moved mass, and 0 where p <= 1/2.

    Its unit is pixels × fraction of the image's mass.

    An image x' in which mass has moved inside the channels at a Manhattan cost of R·M differs from
    x by M·div(d), for a flow d over the edges of the 4-neighbour grid with ||d||_1 = R, and has the
    same M. So x' under noise e gives f the same input as x under noise d + e. Moving a Laplace law
    of scale b by d changes its density by a factor of at most exp(R/b), hence

        P(f(x' + noise) != y) <= exp(R/b)·(1 - p) < 1/2    for    R < b·ln(1 / (2(1 - p))).

    With b = sigma/√2 that is the radius for the Manhattan ground cost. The ground cost here is
    Euclidean, and Manhattan <= √2·Euclidean: mass that moves at a Euclidean cost of r·M moves at a
    Manhattan cost of at most √2·r·M. So r = b·ln(1 / (2(1 - p)))/√2.

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
    """Return the certified radius of a metric, from a lower bound on the class's probability.

    ||d||_2 <= √D·||d||_inf and ||d||_2 <= ||d||_1, so the l2 radius over √D is valid for linf and
    the l2 radius itself for l1.
    """
    if metric == "wasserstein":
        return wasserstein_radius(p, sigma)
    shrink = 1 / math.sqrt(dimensions) if metric == "linf" else 1.0
    return l2_radius(p, sigma) * shrink * DOWN


SOURCES: dict[str, str] = {
    "l2": "Cohen, Rosenfeld, Kolter 2019",
    "linf": "Cohen, Rosenfeld, Kolter 2019; the l2 radius over the root of the dimension",
    "l1": "Cohen, Rosenfeld, Kolter 2019; the l2 radius, as l1 distances are at least l2 distances",
    "wasserstein": "Levine & Feizi 2020, with the tighter Laplace radius of Teng, Lee, Yuan 2020; "
    "Manhattan over √2 for the Euclidean cost",
}
"""Source of each metric's radius."""


def certify_smoothed(
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

    With probability 1 - FAILURE·(1 - confidence) all certificates hold together: each may fail with
    an equal part of the rest (union bound). A sample's draws depend on its content and the seed
    alone. An error in the certificate of one sample gives that sample a radius of 0, does not
    affect the other samples, and is recorded with status ``error``.

    Args:
        base: the served model, without noise.
        noise: law of the noise.
        samples: all samples of the scan, with the predictions of the smoothed classifier.
        metric: metric of the radii.
        draws: number of draws per sample that estimate the probability of its class.
        confidence: confidence level of the report's intervals.
        tick: called with 1 after each sample.

    Returns:
        Radii (N,) float64, the entry of the report, and lower bounds of the probabilities.
    """
    started = time.perf_counter()
    failure = FAILURE * (1 - confidence) / len(samples)
    radius = torch.zeros(len(samples), dtype=torch.float64)
    known = torch.zeros_like(radius)
    dimensions = samples.x[0].numel()
    errors: list[str] = []
    rows = samples.correct.nonzero()[:, 0].tolist()
    for row in rows:
        with contained(f"The certificate of sample {row}", errors.append):
            p = probability(base, noise, samples, row, draws=draws, failure=failure)
            radius[row] = radius_of(metric.name, p, noise.sigma, dimensions)
            known[row] = p
        tick(1)
    abstained = int((samples.correct & (radius == 0)).sum()) - len(errors)
    failed = FAILED_SAMPLES.format(len(errors), len(rows), errors[0]) if errors else ""
    return Certified(
        radius,
        Certifier(
            name="smoothing",
            status="error" if errors else "ran",
            detail=(
                f"Randomised smoothing ({SOURCES[metric.name]}) of the model with {noise}, "
                f"not of the file alone. {CHOOSING} draws per sample choose the class, and "
                f"{draws:,} more estimate its probability. It abstains on {abstained} of "
                f"{len(rows)} correct samples. All certificates hold together with probability "
                f"{1 - failure * len(samples):.12g}, which the intervals take into account."
                f"{failed}"
            ),
            seconds=time.perf_counter() - started,
            failure_probability=failure,
        ),
        soft=Soft(known.numpy(), kept_of(metric.name, noise.sigma, dimensions), noise.sigma),
    )


def kept_of(metric: str, sigma: float, dimensions: int) -> Kept:
    """Return the decrease of a class's probability with the distance; see `radius_of`."""
    if metric == "wasserstein":
        return laplace(sigma)
    return gaussian(sigma, math.sqrt(dimensions) if metric == "linf" else 1.0)


def probability(
    base: Classifier, noise: Noise, samples: Samples, row: int, *, draws: int, failure: float
) -> float:
    """Return a lower bound on P(f(x + noise) = label) that fails with probability ``failure``.

    It is 0 if another class wins the first `CHOOSING` draws: then no radius could be certified, and
    the probability is not estimated.

    Args:
        base: the served model f.
        noise: law of the noise.
        samples: all samples of the scan.
        row: row of the sample.
        draws: number of draws that estimate the probability.
        failure: probability that the bound exceeds the true value.
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
    """Return the law of the noise that certifies a metric."""
    return LAWS.get(metric, "flow")
