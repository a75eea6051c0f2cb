"""Fusion of neighbouring steps: the same function of input and weights in fewer passes.

The named parameters stay the source. Weights derived from them (a convolution with the following
batch norm folded in, or with channels last) are cached as long as the parameters are frozen and
unchanged; while any of them requires a gradient, the steps run as the file lists them. Changes that
torch counts are detected: optimisers, `load_state_dict`, `to`; writing through `.data` is not.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.models.onnx.gradients import wrapped
from audit.models.onnx.node import Kernel
from audit.models.onnx.program import Step

# After these operators, tensors with the channels last are slower (measured).
PLANE_WISE = frozenset({"InstanceNormalization", "GroupNormalization", "ConvTranspose", "LRN"})

Weights = tuple[Tensor | None, ...]


def fuse(steps: Sequence[Step], stored: Mapping[str, Tensor], target: str) -> list[Step]:
    """Return fused steps with the same result in `target`.

    Args:
        steps: in order of execution.
        stored: weights and constants under their run-time names.
        target: name of the final result.
    """
    readers = Counter(name for step in steps for name in step.inputs)
    readers[target] += 1
    last = _channels_last(steps, stored)
    done: list[Step] = []
    for step in steps:
        for rule in (_batch_norm, _bias, _gelu):
            made = rule(step, done, stored, readers)
            if made is not None:
                step, taken = made
                done = [other for other in done if other not in taken]
        done.append(step)
    return [_frozen_convolution(step, stored, last) for step in done]


Fused = tuple[Step, list[Step]] | None


def _maker(name: str, done: Sequence[Step], operator: str, readers: Counter[str]) -> Step | None:
    """Return the step that makes a value with one reader, if it is of this operator."""
    if readers[name] != 1:
        return None
    for step in reversed(done):
        if name in step.outputs:
            return step if step.node.operator == operator and not step.node.domain else None
    return None


def _batch_norm(
    step: Step, done: Sequence[Step], stored: Mapping[str, Tensor], readers: Counter[str]
) -> Fused:
    """Fuse Conv and BatchNormalization: scaling and shifting w * x + b is a convolution."""
    if step.node.operator != "BatchNormalization":
        return None
    made = _maker(step.inputs[0], done, "Conv", readers)
    if made is None or not all(name in stored for name in (*made.inputs[1:], *step.inputs[1:])):
        return None
    epsilon = float(step.node.attributes.get("epsilon", 1e-5))
    kind = stored[made.inputs[1]].dtype
    inputs = (*made.inputs, *[""] * (3 - len(made.inputs)), *step.inputs[1:])

    def listed(x: Tensor, weight: Tensor, bias: Tensor | None, *statistics: Tensor) -> Tensor:
        y: Tensor = step.kernel(made.kernel(x, weight, bias), *statistics)
        return y

    def folded(weights: Weights) -> Weights:
        given = [torch.zeros(()) if value is None else value.double() for value in weights]
        weight, bias, scale, shift, mean, var = given
        factor = scale / torch.sqrt(var + epsilon)
        weight = weight * factor.reshape(-1, *[1] * (weight.dim() - 1))
        row = (bias.to(mean.device) - mean) * factor + shift
        return weight.to(kind), row.to(kind)

    node = replace(made.node, outputs=step.node.outputs)
    kernel = Prepared(folded, made.kernel, listed)
    return Step(node, kernel, inputs, step.outputs, step.shape_only), [made]


def _bias(
    step: Step, done: Sequence[Step], stored: Mapping[str, Tensor], readers: Counter[str]
) -> Fused:
    """Fuse a MatMul by a stored matrix and an Add of a stored row to one affine map."""
    if step.node.operator != "Add" or len(step.inputs) != 2:
        return None
    for product, row in (step.inputs, step.inputs[::-1]):
        made = _maker(product, done, "MatMul", readers)
        if made is None or row not in stored:
            continue
        matrix = stored.get(made.inputs[1])
        if matrix is None or matrix.dim() != 2 or not matrix.is_floating_point():
            continue
        if stored[row].shape != matrix.shape[1:]:
            continue
        node = replace(made.node, outputs=step.node.outputs)
        inputs = (*made.inputs, row)
        return Step(node, _affine, inputs, step.outputs, step.shape_only), [made]
    return None


def _affine(x: Tensor, matrix: Tensor, row: Tensor) -> Tensor:
    return F.linear(x, matrix.t(), row) if x.dim() > 1 else x @ matrix + row


def _gelu(
    step: Step, done: Sequence[Step], stored: Mapping[str, Tensor], readers: Counter[str]
) -> Fused:
    """Fuse x·(1 + erf(x/√2))·½, which exporters write before opset 20, to Gelu."""
    if step.node.operator != "Mul" or len(step.inputs) != 2:
        return None
    for left, half in (step.inputs, step.inputs[::-1]):
        product = _maker(left, done, "Mul", readers)
        if product is None or not _equals(stored.get(half), 0.5):
            continue
        for x, sum_ in (product.inputs, product.inputs[::-1]):
            taken = _one_plus_erf(x, sum_, done, stored, readers)
            if taken:
                node = replace(step.node, operator="Gelu", attributes={})
                fused = Step(node, F.gelu, (x,), step.outputs, step.shape_only)
                return fused, [product, *taken]
    return None


def _one_plus_erf(
    x: str, sum_: str, done: Sequence[Step], stored: Mapping[str, Tensor], readers: Counter[str]
) -> list[Step]:
    total = _maker(sum_, done, "Add", readers)
    if total is None:
        return []
    for value, one in (total.inputs, total.inputs[::-1]):
        erf = _maker(value, done, "Erf", readers)
        if erf is None or not _equals(stored.get(one), 1.0):
            continue
        scaled = _maker(erf.inputs[0], done, "Div", readers)
        divides = scaled is not None and scaled.inputs[0] == x
        if scaled is not None and divides and _equals(stored.get(scaled.inputs[1]), math.sqrt(2)):
            return [total, erf, scaled]
    return []


def _equals(value: Tensor | None, number: float) -> bool:
    if value is None or value.numel() != 1 or not value.is_floating_point():
        return False
    return value.dim() == 0 and abs(float(value) - number) <= 1e-3 * number * (
        1.0 if value.dtype is torch.float16 else 1e-3
    )


def _channels_last(steps: Sequence[Step], stored: Mapping[str, Tensor]) -> bool:
    """Return whether the graph has several planar convolutions, not only a patch embedding."""
    if any(step.node.operator in PLANE_WISE for step in steps):
        return False
    weights = [
        stored[step.inputs[1]]
        for step in steps
        if step.node.operator == "Conv" and step.inputs[1] in stored
    ]
    return sum(weight.dim() == 4 for weight in weights) > 1


def _frozen_convolution(step: Step, stored: Mapping[str, Tensor], last: bool) -> Step:
    """Store the weight of a planar convolution in the layout of its activations."""
    if not last or step.node.operator != "Conv" or step.inputs[1] not in stored:
        return step
    if stored[step.inputs[1]].dim() != 4 or not all(
        name in stored or not name for name in step.inputs[1:]
    ):
        return step
    if isinstance(step.kernel, Prepared):
        inner = step.kernel
        kernel = Prepared(lambda weights: _turned(inner.make(weights)), inner.run, inner.listed)
    else:
        kernel = Prepared(_turned, step.kernel, step.kernel)
    return replace(step, kernel=kernel)


def _turned(weights: Weights) -> Weights:
    weight, *rest = weights
    assert weight is not None
    # Half precision, double and other devices were not measured: they are left unchanged.
    if weight.device.type != "cpu" or weight.dtype is not torch.float32:
        return weights
    return weight.contiguous(memory_format=torch.channels_last), *rest


class Prepared:
    """A kernel on weights derived from the stored ones, derived again when those change.

    Attributes:
        make: maps the stored weights to those that `run` takes.
        run: the kernel on derived weights.
        listed: the steps as the file lists them, on the stored weights.
    """

    def __init__(self, make: Callable[[Weights], Weights], run: Kernel, listed: Kernel) -> None:
        self.make, self.run, self.listed = make, run, listed
        self._known: tuple[object, Weights, Weights] | None = None

    def __call__(self, x: Tensor, *weights: Tensor | None) -> Tensor:
        """Compute the operation on `x`."""
        given = [weight for weight in weights if weight is not None]
        if any(
            weight.requires_grad or weight.is_inference() or wrapped(weight) for weight in given
        ):
            return self.listed(x, *weights)  # type: ignore[no-any-return]
        key = [(weight.data_ptr(), weight._version, weight.dtype) for weight in given]
        known = self._known
        if known is None or known[0] != key:
            with torch.no_grad():
                # Keeping the sources alive prevents the reuse of their addresses.
                sources = tuple(None if weight is None else weight.detach() for weight in weights)
                known = self._known = (key, sources, self.make(weights))
        return self.run(x, *known[2])  # type: ignore[no-any-return]
