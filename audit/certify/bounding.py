"""The certificate of a whole scan by bound propagation: which network, how exactly, how far."""

import time
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from attackers.geometry import Metric
from audit.certify import Certified
from audit.certify.crown import Crown
from audit.certify.network import Network, network_of
from audit.certify.search import certified_radii, confirmed
from audit.errors import AuditError
from audit.models.classifier import Classifier
from audit.models.onnx.program import Step
from audit.report import Certifier
from audit.samples import Samples

TOGETHER = {"crown": 1, "crown-ibp": 16}
"""Samples bounded together, always exactly so many: products of other shapes would round in other
ways, and a result belongs to its sample alone. How many rows bounding backwards needs differs from
sample to sample, so there each is on its own."""

ROUNDED_DOWN = 1 - 1e-9
"""Of a certified radius."""

COARSER = (
    " Values inside the network are bounded by interval arithmetic only: bounding them backwards "
    "(--certify crown) is tighter, and {:.1f} times what this effort allows."
)

DETAIL = (
    "Lower bounds of the margins by linear bound propagation, checked in float64 up to rounding; "
    "they hold for the model as a function of real numbers."
)


def certify(
    classifier: Classifier,
    metric: Metric,
    samples: Samples,
    attacked: Tensor,
    *,
    how: str,
    steps: int,
    tuning: int,
    work: float,
    tick: Callable[[int], None] = lambda _: None,
) -> Certified | None:
    """Certify every correct sample, or say which operation stands in the way.

    Args:
        classifier: with the graph of its operations.
        metric: of the radii.
        samples: all of them.
        attacked: (N,) float64, the distance at which each is known to break; never exceeded.
        how: ``crown`` bounds backwards what enters every nonlinear operation, ``crown-ibp`` only
            the margins and the rest by interval arithmetic; ``auto`` is the first within ``work``.
        steps: radii tried per sample.
        tuning: gradients that look for good slopes at each.
        work: products that ``auto`` may spend on bounds before the margins.
        tick: called with how many samples are done.

    Returns:
        Radii and what the report says of them; None where the model has no graph.
    """
    if classifier.graph is None:
        return None
    started = time.perf_counter()
    radius = torch.zeros(len(samples), dtype=torch.float64)
    try:
        network = network_of(classifier.graph(), classifier.spec.prepare, samples.x[:1])
        needed = int(samples.correct.sum()) * steps * effort_of(network)
        name = how if how != "auto" else "crown" if needed <= work else "crown-ibp"
        search = Crown(network, metric, backwards=name == "crown", tuning=tuning)
        exact = Crown(network.double(), metric, backwards=name == "crown")
        limit = torch.minimum(attacked, metric.diameter(samples.x).double())
        for rows in samples.correct.nonzero()[:, 0].split(TOGETHER[name]):
            filled = rows[torch.arange(TOGETHER[name]) % len(rows)]
            x, labels = samples.x[filled], samples.labels[filled]
            found = certified_radii(search, x, labels, limit[filled], steps=steps)
            radius[filled] = confirmed(exact, x, labels, found) * ROUNDED_DOWN
            tick(len(rows))
    except AuditError as error:
        radius.zero_()
        return Certified(
            radius,
            Certifier(
                name="crown",
                status="not_applicable",
                detail=f"No bounds through this network: {error}. The lower bound is 0 at every "
                "positive budget.",
                seconds=time.perf_counter() - started,
                failure_probability=0.0,
            ),
        )
    coarser = "" if name == "crown" or how != "auto" else COARSER.format(needed / work)
    return Certified(
        radius,
        Certifier(
            name=name,
            status="ran",
            detail=DETAIL + coarser,
            seconds=time.perf_counter() - started,
            failure_probability=0.0,
        ),
    )


def effort_of(network: Network) -> float:
    """Products of one evaluation of all values that enter nonlinear operations but the first's."""
    later = list(network.layers.values())[1:]
    values = sum(prod(network.shapes[layer.step.inputs[0]]) for layer in later)
    return float(values) * sum(products(network, step) for step in network.steps)


def products(network: Network, step: Step) -> float:
    """Products of a step for one sample: each output value takes a row of the weight."""
    weights = [network.constants.get(name) for name in step.inputs[1:2]]
    if step.node.operator not in ("Conv", "Gemm", "MatMul") or weights[0] is None:
        return 0.0
    rows = weights[0].shape[0 if step.node.operator == "Conv" else -1]
    if step.node.operator == "Gemm":
        return float(weights[0].numel())
    return prod(network.shapes[step.outputs[0]]) * weights[0].numel() / max(1, rows)
