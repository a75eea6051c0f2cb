"""Conversion of a lifted graph to a `Network` of affine operations and nonlinear layers."""

from collections.abc import Callable

import torch
from torch import Tensor

from audit.certify.affine_operators import require_affine
from audit.certify.layers import layer_of
from audit.certify.network import Network, floats_of
from audit.models.onnx import OnnxModule
from audit.models.onnx.node import Node
from audit.models.onnx.program import Step, Values, computed


def network_of(
    module: OnnxModule,
    prepare: Callable[[Tensor], Tensor],
    sample: Tensor,
    threshold: float = 0.0,
) -> Network:
    """Find the affine and the nonlinear operations of a lifted graph.

    Args:
        module: the lifted graph, up to its logits.
        prepare: affine map from samples to the graph's input.
        sample: (1 or more, ...) float samples; the first one is run to determine shapes.
        threshold: value of a single score above which the model predicts class 1; it is subtracted.

    Returns:
        The network in float32.

    Raises:
        UnsupportedOperator: an operation is neither affine in the input nor one with a relaxation.
    """
    lifted, stored, source, target = module.scores_program()
    if threshold:
        step = _subtracting(target, threshold)
        lifted, target = [*lifted, step], step.outputs[0]
        stored[step.inputs[1]] = torch.tensor(threshold)
    constants = floats_of(stored, torch.float32)
    network = Network([], {}, constants, source, target, prepare, stored=stored)
    # The graph is run once in the types of the file, which determine where numbers are rounded.
    values: Values = {**stored, source: prepare(sample[:1]).to(module.input_dtype)}
    network.varying.add(source)
    network.rounding |= _narrow(values[source])
    for step in lifted:
        _add_step(network, step, values)
    return network


def _add_step(network: Network, step: Step, values: Values) -> None:
    """Run one step, add its outputs to ``values``, and classify it."""
    inputs = [values[name] if name else None for name in step.inputs]
    varying = [position for position, name in enumerate(step.inputs) if name in network.varying]
    result = computed(step, inputs)
    values.update(zip(step.outputs, result, strict=False))
    for name, value in zip(step.outputs, result, strict=False):
        if isinstance(value, Tensor):
            network.shapes[name] = tuple(value.shape)
    if varying and not step.shape_only:
        network.varying.update(name for name in step.outputs if name)
        network.rounding |= {dtype for value in result for dtype in _narrow(value)}
        layer = layer_of(step, inputs)
        if layer is None:
            require_affine(step, inputs, varying)
        else:
            network.layers[len(network.steps)] = layer
    network.steps.append(step)


def _subtracting(scores: str, threshold: float) -> Step:
    """Return a step that subtracts the threshold from the value named ``scores``."""
    inputs, outputs = (scores, f"threshold of {scores}"), (f"{scores} less its threshold",)
    node = Node(f"{scores} - {threshold:g}", "Sub", "", 14, inputs, outputs, {})
    return Step(node, torch.sub, inputs, outputs, shape_only=False)


def _narrow(value: Tensor | None) -> set[torch.dtype]:
    """Return the type of a float tensor, in a set, if it is narrower than float32."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return set()
    return {value.dtype} if value.element_size() < torch.float32.itemsize else set()
