"""ONNX models without gradients: trees, support vectors, labels only, custom operators."""

from collections.abc import Callable

import onnx
import torch
from torch import Tensor

from audit.models.classifier import Classifier, Provenance, looks_like_probabilities
from audit.models.execution import Function
from audit.models.finish import labels_as_scores, output_of, with_classes
from audit.models.onnx.heads import find_head, served_output
from audit.models.preprocess import InputSpec

LARGEST_LABEL = 100_000
"""Largest class index; larger labels mean something else, and each index needs a column."""

LABEL_TYPES = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)


def score_only(
    graph: onnx.GraphProto,
    serve: Callable[[str], Function],
    spec: InputSpec,
    sample: Tensor,
    *,
    source: Provenance,
    device: torch.device,
    notes: tuple[str, ...],
    label_classes: int,
) -> Classifier:
    """Wrap the scores or labels of a model that the importer cannot differentiate.

    Args:
        graph: graph of the model.
        serve: returns the deployed runtime of an output by name.
        spec: conversion of a sample to an input.
        sample: (2 or more, ...) samples.
        source: provenance of the file.
        device: device of the attacks.
        notes: notes of the classifier, including why there are no gradients.
        label_classes: number of classes in the data, for a model that returns only labels.
    """
    output = served_output(graph)
    labels = output.type.tensor_type.elem_type in LABEL_TYPES
    head = "labels" if labels else find_head(graph, output.name).kind
    run = serve(output.name)
    inputs = spec.prepare(sample)
    if head == "labels":
        run = labels_as_scores(run, max(label_classes, _declared_classes(graph)))
    elif _swapped(graph, run, serve, inputs):
        run = _exchanged(run)
        notes += (
            "The runtime returns the scores of the two classes in the opposite order of the "
            "labels; they are exchanged.",
        )
    kind = output_of(head)
    if kind == "logits" and looks_like_probabilities(run(inputs).flatten(1)):
        kind = "probabilities"
    classifier = Classifier(
        spec=spec,
        classes=0,
        output=kind,
        source=source,
        serve=run,
        device=device,
        notes=notes,
    )
    return with_classes(classifier, sample)


def _declared_classes(graph: onnx.GraphProto) -> int:
    """Return the number of classes, from 0, that a tree ensemble or SVM lists."""
    listed = [
        label
        for node in graph.node
        for item in node.attribute
        if item.name in ("classlabels_int64s", "classlabels_ints")
        for label in item.ints
        if label < LARGEST_LABEL
    ]
    return max(listed, default=-1) + 1


def _swapped(
    graph: onnx.GraphProto, run: Function, serve: Callable[[str], Function], inputs: Tensor
) -> bool:
    """Return whether the label output always names the lower of two scores.

    onnxruntime (1.31.1) does this with the decision values of a binary support vector machine.
    """
    if not any(node.op_type == "SVMClassifier" for node in graph.node):
        return False
    outputs = [value for value in graph.output if value.type.tensor_type.elem_type in LABEL_TYPES]
    scores = run(inputs).flatten(1)
    if not outputs or scores.shape[1] != 2:
        return False
    labels = serve(outputs[0].name)(inputs).reshape(len(inputs))
    return bool((scores.argmin(1) == labels).all() and (scores[:, 0] != scores[:, 1]).all())


def _exchanged(run: Function) -> Function:
    return lambda x: run(x).flip(1)
