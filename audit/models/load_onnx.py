"""ONNX files: served by onnxruntime, differentiated by our importer."""

from pathlib import Path

import onnx
import torch
from torch import Tensor

from audit.errors import UnsupportedOperator
from audit.models import execution, onnx_runtime
from audit.models.classifier import Classifier, Provenance, looks_like_probabilities
from audit.models.execution import Function
from audit.models.finish import labels_as_scores, output_of, spec_for, with_classes
from audit.models.load_options import LoadOptions
from audit.models.onnx import OnnxModule, lift, read_model
from audit.models.onnx.heads import find_head, served_output
from audit.models.preprocess import InputSpec

MOST_CLASSES = 100_000
"""A larger label is a number of something else, and would ask for as many columns of scores."""


def load_onnx(
    path: Path,
    sample: Tensor,
    options: LoadOptions,
    *,
    device: torch.device,
    source: Provenance,
    label_classes: int,
) -> Classifier:
    """Load an ONNX file; without gradients where the importer cannot give them, and says why.

    Args:
        path: the file.
        sample: (2 or more, ...) samples of the user's data.
        options: what the user says about the model.
        device: of the differentiable copy.
        source: provenance.
        label_classes: number of classes to assume of a model that serves labels and no scores.
    """
    proto = read_model(path, allow_domains=options.allow_domains)
    output = served_output(proto.graph)
    # Before the runtime, which would compute a constant of any size while it loads.
    module, refusal = _lifted(proto, device)
    rows = execution.call_rows(tuple(sample.shape[1:]))
    served = onnx_runtime.serve(
        proto, output=output.name, cuda=device.type == "cuda", rows=rows, path=path
    )
    spec = spec_for(sample, served.shape, served.dtype, options)
    notes: tuple[str, ...] = ()
    if device.type == "cuda" and served.provider != "CUDAExecutionProvider":
        notes = (f"onnxruntime serves on {served.provider}, not on the GPU.",)
    if module is not None:
        try:
            copy, logits = _batched(module, spec, sample.to(device), rows)
        except UnsupportedOperator as error:
            module, refusal = None, str(error)
    if module is None or not module.differentiable:
        reason = refusal or "no differentiable path leads from the input to the scores"
        notes += (f"No gradients: {reason}.",)
        head = _head(proto.graph, output)
        classes = max(label_classes, _declared_classes(proto.graph))
        return _score_only(spec, head, served.run, source, device, notes, sample, classes)
    run = served.run
    if module.head == "labels":
        with torch.no_grad():
            classes = logits(spec.prepare(sample[:2].to(device))).shape[1]
        run, copy = labels_as_scores(run, classes), labels_as_scores(copy, classes)
    classifier = Classifier(
        spec=spec,
        classes=0,
        output=output_of(module.head),
        gradient="lifted",
        source=source,
        serve=run,
        copy=copy,
        attackable=logits,
        device=device,
        notes=notes,
    )
    return with_classes(classifier, sample)


def _lifted(proto: onnx.ModelProto, device: torch.device) -> tuple[OnnxModule | None, str]:
    """The differentiable copy, or the operator that stands in its way."""
    try:
        return lift(proto).to(device).eval(), ""
    except UnsupportedOperator as error:
        return None, str(error)


def _head(graph: onnx.GraphProto, output: onnx.ValueInfoProto) -> str:
    """What a graph serves that the importer cannot read to its end."""
    kind = output.type.tensor_type.elem_type
    labels = kind in (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
    return "labels" if labels else find_head(graph, output.name).kind


def _declared_classes(graph: onnx.GraphProto) -> int:
    """The classes that a tree ensemble or support vector machine lists, counted from 0."""
    listed = [
        label
        for node in graph.node
        for item in node.attribute
        if item.name in ("classlabels_int64s", "classlabels_ints")
        for label in item.ints
        if label < MOST_CLASSES
    ]
    return max(listed, default=-1) + 1


def _batched(
    module: OnnxModule, spec: InputSpec, sample: Tensor, rows: int
) -> tuple[Function, Function]:
    """The module's served output and its logits, as functions of a batch of any size."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    dtype = spec.dtype if spec.dtype.is_floating_point else torch.float32
    example = spec.prepare(sample[:4]).to(dtype)

    def ready(run: Function) -> Function:
        call = onnx_runtime.batched(module.input_shape[0], run, example)
        if sample.device.type == "cpu":
            call = execution.in_calls_of(rows, call)
        return lambda x: call(x.to(dtype))

    return ready(module.forward), ready(module.logits)


def _score_only(
    spec: InputSpec,
    head: str,
    run: Function,
    source: Provenance,
    device: torch.device,
    notes: tuple[str, ...],
    sample: Tensor,
    label_classes: int,
) -> Classifier:
    if head == "labels":
        run = labels_as_scores(run, label_classes)
    output = output_of(head)
    if output == "logits" and looks_like_probabilities(run(spec.prepare(sample))):
        output = "probabilities"
    classifier = Classifier(
        spec=spec,
        classes=0,
        output=output,
        gradient="none",
        source=source,
        serve=run,
        copy=None,
        attackable=None,
        device=device,
        notes=notes,
    )
    return with_classes(classifier, sample)
