"""Active attack test: the attack must find an adversarial example that is known to exist.

A high accuracy under attack may come from a robust model or from a weak attack. This test
distinguishes them: the head of the model is replaced, for each sample, by a linear readout whose
ball contains an adversarial example, and the attack under test must find one
(`audit.health.readout`). If it does not, it is too weak for this model, however robust that is.

Source: Zimmermann, Brendel, Tramer, Carlini, "Increasing Confidence in Adversarial Robustness
Evaluations", NeurIPS 2022: 999 points inside the ball and one on its surface, a linear classifier
of the features that separates them, and its decision boundary moved close to the surface point.

Departures from the paper, with their reasons:

- The features are the logits, since the penultimate layer cannot be identified in every file. Any
  gradient masking in the head is kept, so the test is stricter; but K logits cannot isolate every
  point, so some samples allow no such readout and are counted separately.
- The hidden example lies in the direction of a far point of the box (black, the negative, a mirror
  image, noise), and random surface points are clean like those inside. In high dimension, noise
  hardly changes the logits, and a few tiny steps along the gradient would go farther.
- Ridge regression replaces logistic regression: it has a closed form for all samples and
  candidates at once, solved in the points (few) instead of the features (up to thousands).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from attackers.gradient import Logits
from attackers.losses import cross_entropy, margin, misclassified
from attackers.noise import random_search
from attackers.random_streams import SampleGenerator
from attackers.threat import Threat
from audit.health.needs import GRADIENTS, UNSMOOTHED
from audit.health.readout import breaks, disjoint, hide
from audit.health.registry import CheckResult, check
from audit.health.subjects import PROBE_SIZE, MetricSubject

FOUND, MOST = 0.95, 0.8
"""Share of the hidden examples at which an attack passes, and share below which it fails."""

FEWEST_INFORMATIVE = 8
"""Number of informative samples below which the test does not apply."""


@check(
    "active_test",
    MetricSubject,
    title="Attack finds a hidden example",
    advice="Give the attack more steps, restarts and other losses, or attack a smooth version of "
    "the model: the attack is too weak for it, and the attacked accuracy is too optimistic.",
    needs=(GRADIENTS, UNSMOOTHED),
)
def active_test(subject: MetricSubject) -> CheckResult:
    """Check that the iterative attack, with two losses in turn, finds hidden examples."""
    both = in_turn(
        *(
            partial(subject.attack, loss=loss, steps=subject.steps)
            for loss in (cross_entropy, margin)
        )
    )
    # Drawing a random point of the image-Wasserstein ball costs as much as an attack step.
    sizes = {"points": 32, "draws": 50} if subject.metric.name == "wasserstein" else {}
    return find_hidden(subject, both, **sizes)


def find_hidden(
    subject: MetricSubject,
    attack: Callable[..., Tensor],
    *,
    probe: int = PROBE_SIZE,
    points: int = 64,
    draws: int = 100,
) -> CheckResult:
    """Check that an attack finds the hidden adversarial examples that random points do not find.

    Pass: it finds a share of at least `FOUND`; fail: less than `MOST`. A sample that random search
    also breaks is uninformative and is not counted.

    Args:
        subject: model, metric, samples and budget. The features come from the differentiable copy,
            or from the served scores if there is no copy.
        attack: ``attack(logits, x0, labels, threat, generator=…)``, the attack under test.
        probe: number of correct samples to test; each costs about 250 forwards and the attack.
        points: number of clean points inside the ball, and of those on its surface, per sample.
        draws: number of points of the random search, about as many as the attack takes steps.
    """
    classifier, metric, samples = subject.classifier, subject.metric, subject.samples
    delta = subject.delta
    probed = hidden = easy = found = 0
    for rows in disjoint(metric, samples, delta, probe):
        readout, there = hide(classifier, metric, samples, rows, delta, points=points)
        streams = samples.generator.take(rows).fold("active test")
        by_noise = breaks(readout, delta, metric, random_search, streams.fold("noise"), steps=draws)
        kept = (there & ~by_noise).nonzero()[:, 0]
        hunted = streams.take(kept).fold("attack")
        by_attack = breaks(readout.take(kept), delta, metric, attack, hunted)
        probed, hidden = probed + len(rows), hidden + int(there.sum())
        easy, found = easy + int((there & by_noise).sum()), found + int(by_attack.sum())
    informative = hidden - easy
    rest = f"{probed - hidden} of {probed} samples allow no such example, {easy} are uninformative"
    numbers: dict[str, int | float] = {
        "found": found,
        "informative": informative,
        "without_hidden_example": probed - hidden,
        "found_by_random_points": easy,
        "samples": probed,
        "random_points": draws,
        "delta": delta,
    }
    if informative < FEWEST_INFORMATIVE:
        finding = (
            f"Hidden adversarial examples can test the attack on only {informative} samples: "
            f"{rest}, since {draws} random points find the example too."
        )
        return CheckResult("not_applicable", finding, numbers)
    finding = (
        f"At {delta:.3g}, the attack finds the hidden adversarial example of {found} of "
        f"{informative} samples where {draws} random points find none ({rest})."
    )
    share = found / informative
    if share >= FOUND:
        return CheckResult("pass", finding, numbers)
    return CheckResult("warn" if share >= MOST else "fail", finding, numbers)


def in_turn(*attacks: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return an attack that runs the given ones in turn, each on the samples not yet broken."""

    def run(
        logits: Logits, x0: Tensor, labels: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> Tensor:
        x, rows = x0.clone(), torch.arange(len(x0), device=x0.device)
        for turn, attack in enumerate(attacks):
            streams = generator.take(rows).fold(f"turn {turn}")
            x[rows] = attack(logits, x0[rows], labels[rows], threat, generator=streams).detach()
            with torch.no_grad():
                rows = rows[~misclassified(logits(x[rows]), labels[rows])]
            if not len(rows):
                break
        return x

    return run
