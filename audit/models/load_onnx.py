"""ONNX files: served by onnxruntime, differentiated by the importer."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import onnx
import torch
from torch import Tensor

from audit.errors import UnsupportedOperator
from audit.models import execution, onnx_runtime
from audit.models.classifier import Classifier, Differentiable, Provenance
from audit.models.declared import declared_by
from audit.models.execution import Function
from audit.models.files import digest
from audit.models.finish import labels_as_scores, output_of, spec_for, with_classes
from audit.models.onnx import OnnxModule, lift, read_model
from audit.models.onnx.heads import served_output
from audit.models.onnx_runtime import Served
from audit.models.preprocess import InputSpec
from audit.models.score_only import score_only
from audit.options import LoadOptions


def load_onnx(
    path: Path,
    sample: Tensor,
    options: LoadOptions,
    *,
    device: torch.device,
    label_classes: int,
) -> Classifier:
    """Load an ONNX file, without gradients if the importer cannot differentiate it.

    Args:
        path: path of the file.
        sample: (2 or more, ...) samples of the user's data.
        options: the user's statements about the model.
        device: device of the differentiable copy.
        label_classes: number of classes to assume if the model returns labels and no scores.
    """
    proto = read_model(path, allow_domains=options.allow_domains)
    source = Provenance(str(path), digest(path), "onnx")
    rows = execution.call_rows(tuple(sample.shape[1:]))
    serve = partial(onnx_runtime.serve, proto, cuda=device.type == "cuda", rows=rows, path=path)
    # The importer comes first because it limits the size of tensors; the runtime computes
    # constants of any size while loading.
    module, refusal = _lifted(proto, device)
    if module is not None:
        spec = spec_for(sample, module.input_shape, module.input_dtype, options)
        try:
            copy, logits = _batched(module, spec, sample.to(device), rows)
        except UnsupportedOperator as error:
            module, refusal = None, str(error)
    served = serve(served_output(proto.graph).name)
    spec = spec_for(sample, served.shape, served.dtype, options)
    declared = declared_by(proto.graph, lambda name: serve(name).run)
    notes: tuple[str, ...] = ()
    if device.type == "cuda" and served.provider != "CUDAExecutionProvider":
        notes = (f"onnxruntime runs the model with {served.provider}, not on the GPU.",)
    if module is None or not module.differentiable:
        reason = refusal or "no differentiable path leads from the input to the scores"
        scored = score_only(
            proto.graph,
            lambda name: serve(name).run,
            spec,
            sample,
            source=source,
            device=device,
            notes=(*notes, f"No gradients: {reason}."),
            label_classes=label_classes,
        )
        return replace(scored, declared=declared)
    run, unfused = served.run, _unfused(proto, serve)
    if module.head == "labels":
        with torch.no_grad():
            classes = logits(spec.prepare(sample[:2].to(device))).shape[1]
        run, copy = labels_as_scores(run, classes), labels_as_scores(copy, classes)
        unfused = None if unfused is None else labels_as_scores(unfused, classes)
    classifier = Classifier(
        spec=spec,
        classes=0,
        output=output_of(module.head),
        source=source,
        serve=run,
        device=device,
        notes=notes,
        white_box=Differentiable(
            logits, copy, "lifted", (lambda: module) if spec.dtype.is_floating_point else None
        ),
        unfused=unfused,
        declared=declared,
    )
    return with_classes(classifier, sample)


def _unfused(proto: onnx.ModelProto, serve: Callable[..., Served]) -> Function | None:
    """Return the runtime without fused 8-bit kernels, for files that quantise values.

    Fused kernels add pairs of 8-bit products in 16 bits on processors without 8-bit dot products,
    and saturate there (onnxruntime 1.31, AVX2 and AVX-512 without VNNI).
    """
    if not any(node.op_type == "QuantizeLinear" for node in proto.graph.node):
        return None
    # Created on first use: only the health checks need it.
    runtime = cache(lambda: serve(served_output(proto.graph).name, fused=False).run)
    return lambda x: runtime()(x)


def _lifted(proto: onnx.ModelProto, device: torch.device) -> tuple[OnnxModule | None, str]:
    """Return the differentiable copy, or None and the reason."""
    try:
        return lift(proto).to(device).eval(), ""
    except UnsupportedOperator as error:
        return None, str(error)


def _batched(
    module: OnnxModule, spec: InputSpec, sample: Tensor, rows: int
) -> tuple[Function, Function]:
    """Return the served output and the logits as functions of a batch of any size."""
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
