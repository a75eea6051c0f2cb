"""The methods of bound propagation, and the choice of the tightest method the effort allows."""

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
"""Time of a product in a forward pass at many corners, relative to one in a backward pass."""

COARSER = " --certify {} gives tighter bounds, but needs {:.1f} times the work this effort allows."


def prover_of(name: str, network: Network, metric: Metric, tuning: int) -> Prover:
    """Return the prover of a method, for one network and metric.

    Args:
        name: one of `TIGHTEST_FIRST`.
        network: network in float32 or float64.
        metric: metric of the balls.
        tuning: number of gradient steps that optimise slopes.
    """
    if name == "simplex":
        return Simplex(network, metric, tuning=tuning)
    # With coarse intermediate bounds, slopes change little but take most of the time.
    backwards = name == "crown"
    return Crown(network, metric, backwards=backwards, tuning=tuning if backwards else 0)


def method_within(
    how: str, network: Network, metric: Metric, samples: Samples, *, steps: int, work: float
) -> tuple[str, str]:
    """Choose the method.

    Args:
        how: name of a method, or ``auto`` for the tightest one within ``work``.
        network: network that is bounded.
        metric: metric of the balls.
        samples: all samples of the scan.
        steps: number of radii tried per sample.
        work: number of products that may be spent on intermediate bounds.

    Returns:
        The name, and a sentence about a tighter method that exceeds ``work``, empty if none does.
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
    """Estimate the products of a search inside the network; None if the method does not apply."""
    once = sum(products_of(network, step) for step in network.steps)
    rows = samples.correct
    if name == "crown":
        # The bounds of the first layer's input need no further products.
        later = list(network.layers.values())[1:]
        values = sum(prod(network.shapes[layer.step.inputs[0]]) for layer in later)
        return float(values) * once * int(rows.sum()) * steps
    if name == "simplex":
        corners = metric.corner_count(samples.x[rows])
        if corners is None or not len(corners) or not corners_fit(network, int(corners.max())):
            return None
        # Each corner needs the centre and the half-width of every value.
        return FORWARD_COST * 2 * once * float(corners.sum()) * steps
    return 0.0


def products_of(network: Network, step: Step) -> float:
    """Count the products of a step for one sample: each output value uses one row of the weight."""
    weights = [network.constants.get(name) for name in step.inputs[1:2]]
    if step.node.operator not in ("Conv", "Gemm", "MatMul") or weights[0] is None:
        return 0.0
    rows = weights[0].shape[0 if step.node.operator == "Conv" else -1]
    if step.node.operator == "Gemm":
        return float(weights[0].numel())
    return prod(network.shapes[step.outputs[0]]) * weights[0].numel() / max(1, rows)
