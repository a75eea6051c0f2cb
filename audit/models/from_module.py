"""A `torch.nn.Module` given in Python: a copy of it is served and differentiated."""

import copy
import hashlib
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from audit.errors import ModelError, UsageError, explained, out_of_memory
from audit.models import execution, torchscript
from audit.models.classifier import Classifier, Provenance
from audit.models.devices import pick_device
from audit.models.execution import first_line, last_line, one_tensor
from audit.models.finish import FEW, box_inputs, read_column, spec_for
from audit.models.graph import as_graph, compute_the_same
from audit.models.load_torch import TorchModel, classifier_of, filled, inputs_of
from audit.models.onnx import OnnxModule
from audit.options import LoadOptions

MODULE_FORMAT = "torch.nn.Module"


def load_module(
    module: torch.nn.Module, x: Tensor, options: LoadOptions, label_classes: int | None = None
) -> Classifier:
    """Copy a module, and wrap the copy, in evaluation mode, as a classifier.

    The caller's module is only read: its mode, weights, buffers and device do not change.

    Args:
        module: maps a batch ``(B, ...)`` to one tensor of scores ``(B, K)``, of one probability
            or logit, or of class indices ``(B,)``.
        x: (N, ...) samples of the user's data, float32, in ``[low, high]``; two or more.
        options: the user's statements about the model; ``trust_model`` has no effect.
        label_classes: number of classes if the module returns class indices and the scores
            that they come from cannot be computed; two if it is None.

    Raises:
        ModelError: the module cannot be copied, fails on the samples, or returns anything other
            than one tensor of scores. An exception of the module is its cause.
        UsageError: an option does not fit the samples, or ``module`` is not a module.
    """
    if not isinstance(module, torch.nn.Module):
        raise UsageError(
            f"A torch.nn.Module is expected, found an object of type {type(module).__name__}: pass "
            "the module itself."
        )
    device = pick_device(options.device)
    source = Provenance(type(module).__qualname__, state_digest(module), MODULE_FORMAT)
    copied = _frozen_copy(module, device)
    sample = x[:FEW]
    spec = spec_for(sample, (), torchscript.input_dtype(copied), options)
    rows = execution.call_rows(spec.sample)
    run = one_tensor(copied)
    inputs = inputs_of(spec, sample, device)
    # Called once before tracing, so that an error of the module is reported as such.
    with torch.no_grad():
        run(inputs)
    graph, refusal = _graph_maker(
        copied, filled(inputs, rows), inputs_of(spec, box_inputs(spec)[: rows - 1], device)
    )
    model = TorchModel(run, graph, rows, spec, device, source)
    loaded = classifier_of(model, sample, max(2, label_classes or 2))
    white_box = loaded.white_box
    if refusal and white_box is not None and white_box.graph is not None:
        note = f"No bounds through the network's operations: {refusal}"
        blind = replace(white_box, graph=None)
        loaded = replace(loaded, white_box=blind, notes=(*loaded.notes, note))
    return read_column(loaded, x)


def state_digest(module: torch.nn.Module) -> str:
    """Hash a module's ``state_dict``: names, shapes, dtypes and bytes; SHA-256 in hexadecimal.

    Anything outside the state, such as the code of the forward pass, does not enter the hash.

    Raises:
        ModelError: the module has parameters without values.
    """
    running = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        running.update(f"{name}\0".encode())
        for part in _state_bytes(name, value):
            running.update(part)
    return running.hexdigest()


def _state_bytes(name: str, value: object) -> Iterator[bytes]:
    """Yield bytes that identify an entry of a ``state_dict``."""
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _state_bytes(name, item)
    elif not isinstance(value, Tensor):
        yield pickle.dumps(value, protocol=4)
    elif is_lazy(value) or value.is_meta:
        raise ModelError(
            f"The module's parameter '{name}' has no values yet: call the module once on a batch, "
            "or load its weights, before it is audited."
        )
    else:
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        stored = value.detach().cpu()
        if stored.is_quantized:
            # The dequantised values include the scale.
            stored = stored.dequantize()
        yield stored.to_dense().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _frozen_copy(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Copy a module to a device, in evaluation mode and with frozen parameters.

    Raises:
        ModelError: the module cannot be copied.
    """
    try:
        copied = copy.deepcopy(module).to(device).eval()
    except Exception as error:  # attributes of the module may raise anything
        if out_of_memory(error):
            raise
        raise ModelError(
            f"The module cannot be copied ({explained(error)}), and the audit only works on a "
            "copy: remove attributes that cannot be deep-copied, such as open files or tensors "
            "that were computed from parameters."
        ) from error
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
    return copied


def _graph_maker(
    module: torch.nn.Module, example: Tensor, others: Tensor
) -> tuple[Callable[[Tensor], OnnxModule], str]:
    """Return a function that makes the node graph, and the reason if it cannot be made."""
    try:
        return partial(as_graph, traced(module, example, others)), ""
    except ModelError as error:
        refusal = error

    def refuse(_: Tensor) -> OnnxModule:
        raise refusal

    return refuse, str(refusal)


def traced(module: torch.nn.Module, example: Tensor, others: Tensor) -> torch.jit.ScriptModule:
    """Trace the operations of a module on example inputs, and compare the trace with the module.

    Args:
        module: module in evaluation mode.
        example: (B, ...) inputs on which the module is traced.
        others: inputs with another number of rows, on which trace and module are compared.

    Raises:
        ModelError: tracing fails or warns, or the trace computes different values.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return module
    try:
        with warnings.catch_warnings(record=True) as caught, torch.no_grad():
            warnings.simplefilter("always")
            script: torch.jit.ScriptModule = torch.jit.trace(
                module, example.clone(), check_trace=False
            )
            same = all(
                compute_the_same(script(x.clone()), module(x.clone())) for x in (example, others)
            )
    except Exception as error:  # tracing runs the module, which may raise anything
        if out_of_memory(error):
            raise
        raise ModelError(f"The module cannot be traced: {last_line(error)}.") from error
    for warning in caught:
        if warning.category.__name__ == "TracerWarning":
            raise ModelError(
                "The module cannot be traced, as its operations may depend on the values of its "
                f"input: {first_line(Warning(warning.message))}."
            )
    if not same:
        raise ModelError("The trace of the module does not compute what the module computes.")
    return script
