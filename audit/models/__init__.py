"""From a model file, as it is served, to one `Classifier`."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from audit.errors import ModelError, UnsupportedOperator, UsageError
from audit.models import execution, torchscript
from audit.models.classifier import (
    Classifier,
    Output,
    Provenance,
    looks_like_probabilities,
    two_columns,
)
from audit.models.files import digest, identify
from audit.models.preprocess import InputSpec, make_spec

__all__ = ["Classifier", "InputSpec", "LoadOptions", "load_classifier", "pick_device"]


@dataclass(frozen=True)
class LoadOptions:
    """What the user says about the model and its input."""

    trust_model: bool = False
    device: str = "auto"
    layout: str | None = None
    low: float = 0.0
    high: float = 1.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def pick_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device that exists.

    Raises:
        UsageError: CUDA is asked for and not there, or the name is unknown.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"Unknown device {name!r}: choose auto, cpu or cuda.")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError(
            "--device cuda was asked for, but torch sees no CUDA device: install a CUDA build of "
            "torch and a driver, or use --device cpu."
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def load_classifier(path: Path, sample: Tensor, options: LoadOptions) -> Classifier:
    """Load a served model for samples like the given ones.

    Args:
        path: ONNX file or TorchScript archive.
        sample: (2 or more, ...) samples of the user's data, float32, in ``[low, high]``.
        options: what the user says about the model.

    Raises:
        ModelError: the file is missing, broken, untrusted, or does not fit the samples.
        UsageError: an option does not fit.
    """
    device = pick_device(options.device)
    kind = identify(path)
    source = Provenance(str(path), digest(path), kind)
    if kind == "onnx":
        return _load_onnx(path, sample, options, device, source)
    return _load_torchscript(path, sample, options, device, source)


def _load_onnx(
    path: Path, sample: Tensor, options: LoadOptions, device: torch.device, source: Provenance
) -> Classifier:
    from audit.models import onnx_runtime
    from audit.models.onnx import OnnxModule, lift, read_model

    proto = read_model(path)
    notes: tuple[str, ...] = ()
    module: OnnxModule | None = None
    try:
        module = lift(proto)
    except UnsupportedOperator as error:
        notes = (f"No gradients: {error}",)
    rows = execution.call_rows(tuple(sample.shape[1:]))
    output_name = module.output_name if module else proto.graph.output[-1].name
    served = onnx_runtime.serve(
        proto, output=output_name, cuda=device.type == "cuda", rows=rows, path=path
    )
    if device.type == "cuda" and served.provider != "CUDAExecutionProvider":
        notes += (f"onnxruntime serves on {served.provider}, not on the GPU.",)
    spec = _spec(sample, served.shape, served.dtype, options)
    if module is None or not module.differentiable:
        if module is not None:
            notes += ("No gradients: no differentiable path leads from the input to the scores.",)
        return _finish(
            Classifier(
                spec, 0, _output_of(module.head if module else "logits"), "none", source,
                served.run, None, None, device, notes,
            ),
            sample,
        )  # fmt: skip
    module = module.to(device).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    float_dtype = served.dtype if served.dtype.is_floating_point else torch.float32
    example = spec.prepare(sample[:4].to(device)).to(float_dtype)

    def differentiable(run: execution.Function) -> execution.Function:
        ready = onnx_runtime.batched(module.input_shape[0], run, example)
        call = ready if device.type == "cuda" else execution.in_calls_of(rows, ready)
        return lambda x: call(x.to(float_dtype))

    classifier = Classifier(
        spec, 0, _output_of(module.head), "lifted", source, served.run,
        differentiable(module.forward), differentiable(module.logits), device, notes,
    )  # fmt: skip
    if module.head == "labels":
        classes = classifier.differentiable(sample[:2].to(device)).shape[1]
        classifier = _labels_as_scores(classifier, classes)
    return _finish(classifier, sample)


def _load_torchscript(
    path: Path, sample: Tensor, options: LoadOptions, device: torch.device, source: Provenance
) -> Classifier:
    module = torchscript.read_script(path, trusted=options.trust_model, device=device)
    spec = _spec(sample, (), torch.float32, options)
    rows = execution.call_rows(tuple(sample.shape[1:]))
    run = torchscript.call(module)
    batched = run if device.type == "cuda" else execution.in_calls_of(rows, run)

    def serve(x: Tensor) -> Tensor:
        return batched(x.to(device)).float().cpu()

    scores = serve(spec.prepare(sample))
    output: Output = "probabilities" if looks_like_probabilities(scores) else "logits"

    def attackable(x: Tensor) -> Tensor:
        scores = batched(x)
        # The logits are not to be had from a script; log-probabilities differ by a constant.
        return scores.clamp_min(1e-30).log() if output == "probabilities" else scores

    return _finish(
        Classifier(
            spec, 0, output, "native", source, serve, batched, attackable, device
        ),
        sample,
    )  # fmt: skip


def _spec(
    sample: Tensor, shape: tuple[int | None, ...], dtype: torch.dtype, options: LoadOptions
) -> InputSpec:
    return make_spec(
        sample=tuple(sample.shape[1:]),
        shape=shape,
        dtype=dtype,
        layout=options.layout,
        low=options.low,
        high=options.high,
        mean=options.mean,
        std=options.std,
    )


def _output_of(head: str) -> Output:
    if head == "probabilities":
        return "probabilities"
    return "labels" if head == "labels" else "logits"


def _labels_as_scores(classifier: Classifier, classes: int) -> Classifier:
    """Serve labels as one-hot scores, so that 'unique top class' keeps its meaning."""

    def one_hot(run: execution.Function) -> execution.Function:
        def scores(x: Tensor) -> Tensor:
            labels = run(x).reshape(len(x)).long()
            return torch.nn.functional.one_hot(labels.clamp(0, classes - 1), classes).float()

        return scores

    assert classifier.copy is not None
    return replace(classifier, serve=one_hot(classifier.serve), copy=one_hot(classifier.copy))


def _finish(classifier: Classifier, sample: Tensor) -> Classifier:
    """Count the classes by running the served model once, and check that there are scores."""
    scores = two_columns(classifier.serve(classifier.spec.prepare(sample)), classifier.output)
    classes = scores.shape[1]
    if classes < 2:
        raise ModelError(
            f"The model returns {classes} value per sample ({classifier.output}), but scores of "
            "two classes or more are expected: export the model with its scores as output."
        )
    return replace(classifier, classes=classes)
