"""Validation of a generator on the held-out set, after every epoch."""

import copy
from collections.abc import Mapping

from torch import Tensor

from attackers.geometry import Wasserstein
from attackers.losses import misclassified
from attackers.wagan.attack import generated
from attackers.wagan.networks import Generator
from audit.evidence.judge import judge_candidates
from audit.generators.plan import TrainingPlan


def held_out_accuracy(
    plan: TrainingPlan, network: Generator, weights: Mapping[str, Tensor]
) -> dict[str, float]:
    """Measure accuracies on the held-out set at the largest radius; all samples count.

    Args:
        plan: model, held-out set and radius.
        network: architecture; its own weights are not changed.
        weights: parameters and buffers to evaluate.

    Returns:
        ``clean`` accuracy, accuracy on the images as ``generated``, and accuracy as ``judged``:
        only images inside the image-Wasserstein ball count as adversarial.
    """
    config, samples, classifier = plan.config, plan.held_out, plan.classifier
    network = copy.deepcopy(network)
    network.load_state_dict(dict(weights))
    network.eval().to(classifier.device)
    metric = Wasserstein(low=config.low, high=config.high)
    rows = samples.correct.nonzero()[:, 0]
    x0, labels = samples.x[rows], samples.labels[rows]
    streams = samples.generator.take(rows).fold("validation")
    x = generated(network, x0.to(classifier.device), config.radius, streams).cpu()
    wrong = misclassified(classifier.deployed(x), labels)
    verdict = judge_candidates(classifier, metric, x0, x, labels, line_search=0)
    broken = verdict.broken & (verdict.distance <= config.radius)
    return {
        "clean": len(rows) / len(samples),
        "generated": int((~wrong).sum()) / len(samples),
        "judged": int((~broken).sum()) / len(samples),
    }
