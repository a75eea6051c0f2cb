"""One backward pass: linear lower bounds of some values, as functions of the samples."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attackers.rows import flat
from audit.certify.affine import Segment
from audit.certify.network import Network, Relaxations


@dataclass
class RowValues:
    """One value per row, as an affine function of tensors that are differentiated.

    Attributes:
        at_sample: (R,) the values at the samples.
        outputs, weights: (R, ...) each; the value is the sum of their products plus a constant.
        direct: (R, ...) coefficients of the samples themselves, or None.
    """

    at_sample: Tensor
    outputs: list[Tensor]
    weights: list[Tensor]
    direct: Tensor | None = None

    @classmethod
    def of(cls, value: Tensor) -> "RowValues":
        """Return values (R,) that are differentiated the way they were computed."""
        return cls(value.detach(), [value], [torch.ones_like(value)])


Evaluate = Callable[[Tensor, Tensor, Relaxations, Tensor], RowValues]
"""Function of (samples, bias, relaxations, rows): evaluates the value of each row."""


@dataclass
class LinearBound:
    """Lower bounds b(x) = value + lA·(x - x0) that hold in the balls of the relaxations.

    Attributes:
        value: (R,) at the samples.
        lA: (R, ...) coefficients.
    """

    value: Tensor
    lA: Tensor


def backward_bounds(
    x0: Tensor,
    relaxed: Relaxations,
    sample_of: Tensor,
    evaluate: Evaluate,
    rows: Tensor,
    *,
    signs: tuple[float, ...] = (1.0,),
) -> list[LinearBound]:
    """Bound values from below by backward propagation.

    Args:
        x0: (B, ...) float centres.
        relaxed: relaxations of the layers before the values.
        sample_of: (N,) int64, the sample of every row.
        evaluate: computes the values of the given rows.
        rows: (R,) int64, the rows that are bounded.
        signs: factors of the values; -1 bounds the negated values from below, which bounds the
            values from above.

    Returns:
        A bound for each sign.
    """
    samples, differentiable = sample_of[rows], torch.is_grad_enabled()
    with torch.enable_grad():
        x = x0[samples].requires_grad_()
        bias = x0.new_zeros(len(samples), requires_grad=True)
        # The relaxations of a single sample apply to all rows unchanged.
        taken = (
            relaxed
            if len(x0) == 1
            else {index: found.take(samples) for index, found in relaxed.items()}
        )
        value = evaluate(x, bias, taken, rows)
    bounds = []
    for sign in signs:
        lA, lost = torch.autograd.grad(
            value.outputs,
            (x, bias),
            [sign * weight for weight in value.weights],
            retain_graph=len(signs) > 1 or differentiable,
            create_graph=differentiable,
            materialize_grads=True,
        )
        if value.direct is not None:
            lA = lA + sign * value.direct
        bounds.append(LinearBound(sign * value.at_sample + lost, lA))
    return bounds


def margin_values(network: Network, labels: Tensor, rivals: Tensor) -> Evaluate:
    """Return a function that evaluates f_y - f_k per row, for labels (N,) and rivals (N,)."""

    def evaluate(x: Tensor, bias: Tensor, relaxed: Relaxations, rows: Tensor) -> RowValues:
        scores = network.run(x, bias, relaxed)
        own = scores.gather(1, labels[rows, None])
        return RowValues.of((own - scores.gather(1, rivals[rows, None]))[:, 0])

    return evaluate


def entering_values(network: Network, index: int, neurons: Tensor) -> Evaluate:
    """Return a function that evaluates one input value of a layer per row, at ``neurons`` (N,)."""

    def evaluate(x: Tensor, bias: Tensor, relaxed: Relaxations, rows: Tensor) -> RowValues:
        entering = flat(network.run(x, bias, relaxed, index))
        return RowValues.of(entering.gather(1, neurons[rows, None])[:, 0])

    return evaluate


def segment_values(
    network: Network, segment: Segment, neurons: Tensor, at_sample: Tensor
) -> Evaluate:
    """Return a function like `entering_values` that uses the matrices of the map into the layer.

    Args:
        network: network that computes the outputs of the earlier layers.
        segment: map into the layer.
        neurons: (N,) positions of the values.
        at_sample: (N,) the values at the samples.
    """

    def evaluate(x: Tensor, bias: Tensor, relaxed: Relaxations, rows: Tensor) -> RowValues:
        outputs = network.outputs(x, bias, relaxed, list(segment.before))
        chosen = neurons[rows]
        weights = [
            matrix[chosen].reshape(out.shape)
            for matrix, out in zip(segment.before.values(), outputs, strict=True)
        ]
        direct = None if segment.direct is None else segment.direct[chosen].reshape(x.shape)
        return RowValues(at_sample[rows], outputs, weights, direct)

    return evaluate
