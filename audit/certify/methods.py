"""The methods of bound propagation, and the choice of the tightest one that the effort allows."""

from math import prod

from attackers.geometry import Metric
from audit.certify.crown import Crown
from audit.certify.margins import Prover
from audit.certify.network import Network
from audit.certify.simplex import Simplex, corners_fit
from audit.evidence.samples import Samples
from audit.models.onnx.program import Step

TIGHTEST_FIRST = ("simplex", "crown", "crown-ibp")
"""Names of the methods in the order in which ``auto`` tries them."""

FORWARD_COST = 0.25
"""Time of a product in a forward pass at many corners, in units of a product of backward bounds."""

COARSER = " Bounds by --certify {} are tighter, and take {:.1f} times what this effort allows."


def prover_of(name: str, network: Network, metric: Metric, tuning: int) -> Prover:
    """Return the method of a name, for one network and metric.

    Args:
        name: one of `TIGHTEST_FIRST`.
        network: in float32 or float64.
        metric: of the balls.
        tuning: gradients that optimise slopes.
    """
    if name == "simplex":
        return Simplex(network, metric, tuning=tuning)
    # Where intermediate bounds are coarse, slopes change little, yet cost most of the time.
    backwards = name == "crown"
    return Crown(network, metric, backwards=backwards, tuning=tuning if backwards else 0)


def method_within(
    how: str, network: Network, metric: Metric, samples: Samples, *, steps: int, work: float
) -> tuple[str, str]:
    """Choose the method.

    Args:
        how: name of a method, or ``auto`` for the tightest one within ``work``.
        network: that is bounded.
        metric: of the balls.
        samples: all of them.
        steps: radii tried per sample.
        work: products that may be spent on intermediate bounds.

    Returns:
        The name, and a sentence on a tighter method that exceeds the work, or nothing.
    """
    if how != "auto":
        return how, ""
    coarser = ""
    for name in TIGHTEST_FIRST:
        needed = products_needed(name, network, metric, samples, steps)
        if needed is None:
            continue
        if needed <= work or name == TIGHTEST_FIRST[-1]:
            return name, coarser
        coarser = coarser or COARSER.format(name, needed / work)
    raise AssertionError("the last method always applies")


def products_needed(
    name: str, network: Network, metric: Metric, samples: Samples, steps: int
) -> float | None:
    """Estimate the products of a search inside the network; None where the method cannot serve."""
    once = sum(products_of(network, step) for step in network.steps)
    rows = samples.correct
    if name == "crown":
        # The bounds of what enters the first layer cost nothing more.
        later = list(network.layers.values())[1:]
        values = sum(prod(network.shapes[layer.step.inputs[0]]) for layer in later)
        return float(values) * once * int(rows.sum()) * steps
    if name == "simplex":
        corners = metric.corner_count(samples.x[rows])
        if corners is None or not len(corners) or not corners_fit(network, int(corners.max())):
            return None
        # Centre and half-width of every value at every corner.
        return FORWARD_COST * 2 * once * float(corners.sum()) * steps
    return 0.0


def products_of(network: Network, step: Step) -> float:
    """Count the products of a step for one sample: each output value takes a row of the weight."""
    weights = [network.constants.get(name) for name in step.inputs[1:2]]
    if step.node.operator not in ("Conv", "Gemm", "MatMul") or weights[0] is None:
        return 0.0
    rows = weights[0].shape[0 if step.node.operator == "Conv" else -1]
    if step.node.operator == "Gemm":
        return float(weights[0].numel())
    return prod(network.shapes[step.outputs[0]]) * weights[0].numel() / max(1, rows)
