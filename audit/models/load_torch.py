"""TorchScript and torch.export archives: one model is both served and differentiated."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from audit.errors import ModelError
from audit.models import execution, exported, torchscript
from audit.models.classifier import (
    SMALLEST_PROBABILITY,
    Classifier,
    Differentiable,
    Output,
    Provenance,
    log_odds,
    looks_like_probabilities,
)
from audit.models.execution import Function, last_line, one_tensor
from audit.models.files import digest
from audit.models.finish import labels_as_scores, spec_for, with_classes
from audit.models.onnx import OnnxModule
from audit.models.preprocess import InputSpec, as_dtype
from audit.options import LoadOptions


@dataclass(frozen=True)
class TorchModel:
    """Torch model that is both served and differentiated, the input of `classifier_of`.

    Attributes:
        run: maps inputs ``(B, ...)`` on ``device`` to scores, labels or probabilities.
        graph: translates the model to a node graph with equal values on the given inputs; raises
            `ModelError` if that is not possible.
        rows: number of rows of every call on the CPU.
        spec: conversion of a sample to an input.
        device: device of the model.
        source: provenance of the file.
    """

    run: Function
    graph: Callable[[Tensor], OnnxModule]
    rows: int
    spec: InputSpec
    device: torch.device
    source: Provenance


def load_torchscript(
    path: Path,
    sample: Tensor,
    options: LoadOptions,
    *,
    device: torch.device,
    label_classes: int,
) -> Classifier:
    """Load a TorchScript archive."""
    module = torchscript.read_script(path, trusted=options.trust_model, device=device)
    spec = spec_for(sample, (), torchscript.input_dtype(module), options)
    model = TorchModel(
        run=one_tensor(module, last_line),
        graph=partial(_as_graph, module),
        rows=execution.call_rows(spec.sample),
        spec=spec,
        device=device,
        source=Provenance(str(path), digest(path), "torchscript"),
    )
    return classifier_of(model, sample, label_classes)


def load_exported(
    path: Path,
    sample: Tensor,
    options: LoadOptions,
    *,
    device: torch.device,
    label_classes: int,
) -> Classifier:
    """Load a torch.export archive."""
    read = exported.read_program(path, trusted=options.trust_model)
    spec = spec_for(sample, read.shape, read.dtype, options)
    model = TorchModel(
        run=one_tensor(read.module.to(device)),
        graph=partial(_as_graph, read.program),
        rows=spec.batch or min(execution.call_rows(spec.sample), read.most or 2**31),
        spec=spec,
        device=device,
        source=Provenance(str(path), digest(path), "torch.export"),
    )
    return classifier_of(model, sample, label_classes)


def _as_graph(
    module: torch.jit.ScriptModule | torch.export.ExportedProgram, example: Tensor
) -> OnnxModule:
    from audit.models import graph

    return graph.as_graph(module, example)


def classifier_of(model: TorchModel, sample: Tensor, label_classes: int) -> Classifier:
    """Wrap a model; attack its node graph if its own gradient carries no information."""
    spec, device, rows = model.spec, model.device, model.rows
    free = device.type != "cpu" and spec.batch is None
    call = model.run if free else execution.in_calls_of(rows, model.run)

    def native(x: Tensor) -> Tensor:
        return call(as_dtype(x.to(device), spec.dtype))

    with torch.no_grad():
        scores = native(spec.prepare(sample))
    inputs = inputs_of(spec, sample, device)
    several = filled(inputs, rows)
    plain = Classifier(
        spec=spec,
        classes=0,
        output=_output(scores),
        source=model.source,
        serve=lambda x: native(x).float().cpu(),
        device=device,
        white_box=Differentiable(
            native,
            native,
            "native",
            (lambda: model.graph(several)) if spec.dtype.is_floating_point else None,
        ),
    )
    if plain.output == "logits" and spec.dtype.is_floating_point:
        return with_classes(plain, sample)
    graph, reason = _graph(model, several)
    if plain.output == "labels":
        return with_classes(_by_labels(plain, graph, reason, rows, inputs, label_classes), sample)
    return with_classes(_by_scores(plain, graph, reason, rows, scores), sample)


def inputs_of(spec: InputSpec, sample: Tensor, device: torch.device) -> Tensor:
    """Convert samples to inputs of the model on its device."""
    return as_dtype(spec.prepare(sample).to(device), spec.dtype)


def filled(inputs: Tensor, rows: int) -> Tensor:
    """Repeat inputs to fill one call of `rows` rows."""
    return inputs.repeat(rows, *[1] * (inputs.dim() - 1))[:rows]


def _output(scores: Tensor) -> Output:
    """Return the kind of an output by its values: probabilities are in [0, 1]."""
    if not scores.is_floating_point():
        return "labels"
    inside = bool(((scores >= -1e-5) & (scores <= 1 + 1e-5)).all())
    return "probabilities" if inside else "logits"


def _by_labels(
    plain: Classifier,
    graph: OnnxModule | None,
    reason: str,
    rows: int,
    inputs: Tensor,
    label_classes: int,
) -> Classifier:
    """Wrap a model that returns class indices; attack the scores that it compares."""
    white_box = plain.white_box
    assert white_box is not None
    assert white_box.copy is not None
    if graph is None or not graph.differentiable or graph.head != "labels":
        serve = labels_as_scores(plain.serve, label_classes)
        reason = reason or "no differentiable path leads from the input to the scores"
        return replace(plain, serve=serve).score_only(f"No gradients: {reason}.")
    with torch.no_grad():
        classes = graph.logits(inputs).flatten(1).shape[1]
    return replace(
        plain,
        serve=labels_as_scores(plain.serve, classes),
        white_box=replace(
            white_box,
            copy=labels_as_scores(white_box.copy, classes),
            logits=execution.in_calls_of(rows, graph.logits),
            made="lifted",
        ),
    )


def _by_scores(
    plain: Classifier, graph: OnnxModule | None, reason: str, rows: int, scores: Tensor
) -> Classifier:
    """Wrap a model with scores in [0, 1] or integer inputs.

    Attacks use the scores before the softmax or sigmoid, and the inputs after their cast.
    """
    white_box = plain.white_box
    assert white_box is not None
    assert white_box.copy is not None
    usable = graph is not None and graph.differentiable
    squashed = graph is not None and graph.head == "probabilities"
    # A few samples do not show whether a single column is a probability: see `read_column`.
    if not (squashed or looks_like_probabilities(scores.flatten(1))):
        plain = replace(plain, output="logits")
    if plain.output == "logits" and plain.spec.dtype.is_floating_point:
        return plain
    if graph is not None and usable and (squashed or plain.output == "logits"):
        copy = white_box.copy if plain.spec.dtype.is_floating_point else graph.forward
        return replace(
            plain,
            white_box=replace(
                white_box,
                copy=execution.in_calls_of(rows, copy),
                logits=execution.in_calls_of(rows, graph.logits),
                made="lifted",
            ),
        )
    reason = reason or "the graph does not contain them"
    if not plain.spec.dtype.is_floating_point:
        return plain.score_only(f"No gradients with respect to the integer input: {reason}.")
    return replace(
        plain,
        white_box=replace(white_box, logits=_logarithm(white_box.copy)),
        notes=(
            f"Attacks use log-probabilities, as the logits behind the probabilities cannot be "
            f"computed ({reason}).",
        ),
    )


def _graph(model: TorchModel, example: Tensor) -> tuple[OnnxModule | None, str]:
    """Return the node graph of a model, or None and the reason."""
    try:
        graph = model.graph(example)
    except ModelError as error:
        return None, str(error).rstrip(".")
    for parameter in graph.parameters():
        parameter.requires_grad_(False)
    return graph, ""


def _logarithm(probabilities: Function) -> Function:
    """Return logits up to a constant per row; their gradient vanishes if p underflows."""

    def logits(x: Tensor) -> Tensor:
        p = probabilities(x)
        p = p.reshape(len(p), -1)
        # The single probability of a binary model determines the difference of two logits.
        return log_odds(p) if p.shape[1] == 1 else p.clamp_min(SMALLEST_PROBABILITY).log()

    return logits
