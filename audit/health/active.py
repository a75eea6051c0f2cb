"""The active attack test: does the attack find an adversarial example that is known to exist?

An accuracy under attack cannot tell a robust model from a weak attack. So here the answer is made
known: the head of the model is replaced, sample by sample, by a linear readout for which the ball
holds an adversarial example, and the attack under test has to find one (`audit.health.readout`).
An attack that does not is too weak for this model, whatever the model's robustness.

Source: Zimmermann, Brendel, Tramer, Carlini, "Increasing Confidence in Adversarial Robustness
Evaluations", NeurIPS 2022: 999 points inside the ball and one on its surface, a linear classifier
of the features that tells them apart, and its decision moved close to the surface point.

Departures from the paper, each for a reason:

- The features are the logits, since the penultimate layer cannot be told apart in every file. What
  masks gradients in the head is kept, so the test is stricter; but K numbers do not isolate every
  point, so a sample may allow no such readout, and is counted apart.
- The hidden example lies in the direction of a far point of the box (black, the negative, a mirror
  image, noise), and random points of the surface are clean like those inside. In high dimension
  noise hardly moves the logits, and a few tiny steps along the gradient would go farther.
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
"""Share of the hidden examples that an attack must find to pass, and not to fail."""

FEWEST_INFORMATIVE = 8
"""Informative samples below which the test does not apply."""


@check(
    "active_test",
    MetricSubject,
    title="Attack finds a hidden example",
    advice="Give the attack more steps, restarts and other losses, or attack a smooth version of "
    "the model: the attack is too weak for it, and the attacked accuracy is too optimistic.",
    needs=(GRADIENTS, UNSMOOTHED),
)
def active_test(subject: MetricSubject) -> CheckResult:
    """The iterative attack, with two losses in turn, finds hidden adversarial examples."""
    both = in_turn(
        *(
            partial(subject.attack, loss=loss, steps=subject.steps)
            for loss in (cross_entropy, margin)
        )
    )
    # A random point of the image-Wasserstein ball costs as much as a step of an attack.
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
    """Let an attack look for a hidden adversarial example wherever random points do not find it.

    Pass: it finds `FOUND` of them; fail: less than `MOST`. A sample that random search breaks as
    well tells nothing about an attack and is not counted.

    Args:
        subject: gives model, metric, samples and budget. The differentiable copy gives the
            features, or the served scores without one.
        attack: ``attack(logits, x0, labels, threat, generator=…)``, the attack under test.
        probe: how many correct samples to test; each costs some 250 forwards and the attack.
        points: clean points inside, and as many on the surface, per sample.
        draws: points of the random search: about as many as the attack takes steps.
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
    rest = f"{probed - hidden} of {probed} samples allow no such example, {easy} more tell nothing"
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
            f"Hidden adversarial examples could test the attack on {informative} samples only: "
            f"{rest}, as {draws} random points find it too."
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
    """Combine attacks: each is run on the samples that those before it did not break."""

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
