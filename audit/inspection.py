"""What a model file holds and what can be done with it, before anything is attacked."""

import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor

from attackers.gradient import value_and_grad
from attackers.losses import margin
from audit.config import ScanConfig
from audit.data import Dataset
from audit.errors import AuditError, ModelError, UnsupportedOperator
from audit.models import Classifier, LoadOptions, load_classifier
from audit.models.files import digest, identify
from audit.models.preprocess import show_shape
from audit.samples import choose, evaluate, read_samples
from audit.sanity import require_better_than_chance

Fact = tuple[str, str]
"""A name and what was found, as shown to the user."""

TRIED = 256
"""Samples that accuracy is measured on."""


@dataclass(frozen=True)
class Inspection:
    """Facts in the order in which they are shown, and the scan command that follows from them."""

    facts: tuple[Fact, ...]
    command: str | None


def inspect(
    path: Path, dataset: Dataset | None, options: LoadOptions, data_path: Path | None
) -> Inspection:
    """Look into a model file, and try it on data or on random inputs.

    Args:
        path: the model.
        dataset: labelled data, or None.
        options: what the user says about the model.
        data_path: as the user named the data, for the command.

    Raises:
        ModelError: the file is no model, or is not trusted.
    """
    kind = identify(path)
    facts: list[Fact] = [
        ("file", f"{path}, {path.stat().st_size:,} bytes"),
        ("sha256", digest(path)),
        ("format", kind),
    ]
    shape: tuple[int | None, ...] = ()
    if kind == "onnx":
        from audit.models.onnx import read_model

        proto = read_model(path, allow_domains=options.allow_domains)
        facts += _onnx_facts(proto)
        shape = _input_shape(proto)
    elif kind == "torch.export" and options.trust_model:
        from audit.models.exported import read_program

        _, shape, _ = read_program(path, trusted=True)
    sample = _sample(dataset, shape)
    if sample is None:
        facts.append(
            ("input", "unknown without data: pass --data to see gradients, parity and speed")
        )
        return Inspection(tuple(facts), None)
    classes = 2 if dataset is None else int(dataset.labels.max()) + 1
    classifier = load_classifier(path, sample[:8], options, label_classes=classes)
    facts += _classifier_facts(classifier, sample)
    if dataset is None:
        return Inspection(tuple(facts), None)
    facts += _accuracy_facts(classifier, dataset, sample)
    return Inspection(tuple(facts), _command(path, data_path, options))


def _onnx_facts(proto: onnx.ModelProto) -> Iterator[Fact]:
    from audit.models.onnx import lift

    opsets = ", ".join(
        f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in proto.opset_import
    )
    yield "opset", opsets
    yield "producer", f"{proto.producer_name} {proto.producer_version}".strip() or "unknown"
    stored = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in stored]
    yield "inputs", "; ".join(map(_value, inputs))
    yield "outputs", "; ".join(map(_value, proto.graph.output))
    counts = Counter(node.op_type for node in proto.graph.node)
    yield "operators", ", ".join(f"{name} ×{n}" for name, n in sorted(counts.items()))
    try:
        module = lift(proto)
    except UnsupportedOperator as error:
        yield "importer", f"not supported: {error}; attacks see scores only"
        return
    yield "importer", "every operator is supported"
    total = sum(parameter.numel() for parameter in module.parameters())
    yield "parameters", f"{total:,} in {len(module.initializers())} float initializers"
    yield "served output", f"{module.output_name} ({module.head})"


def _classifier_facts(classifier: Classifier, sample: Tensor) -> Iterator[Fact]:
    spec = classifier.spec
    dtype = str(spec.dtype).removeprefix("torch.")
    layout = f", layout {spec.layout}" if spec.layout else ""
    yield "model input", f"{show_shape(spec.shape) if spec.shape else 'any'} {dtype}{layout}"
    yield "classes", str(classifier.classes)
    yield "output", classifier.output
    for note in classifier.notes:
        yield "note", note
    if classifier.attackable is None or classifier.copy is None:
        yield "gradients", "none: only black-box attacks, which are weaker evidence"
    else:
        served, copied = classifier.deployed(sample), classifier.copied(sample)
        difference = float((served - copied).abs().max())
        yield (
            "parity",
            f"copy and runtime differ by at most {difference:.1e} on {len(sample)} inputs",
        )
        labels = served.argmax(1).to(classifier.device)
        x = sample.to(classifier.device)
        _, _, grad = value_and_grad(classifier.differentiable, margin, x, labels)
        zero = int((grad.flatten(1) == 0).all(1).sum())
        broken = int((~grad.flatten(1).isfinite().all(1)).sum())
        yield (
            "gradients",
            f"{classifier.gradient}; {zero} of {len(x)} zero, {broken} not finite",
        )
        seconds = _seconds(lambda: value_and_grad(classifier.differentiable, margin, x, labels))
        yield "gradient time", f"{1e3 * seconds / len(x):.3g} ms per sample on {classifier.device}"
    seconds = _seconds(lambda: classifier.deployed(sample))
    yield "served time", f"{1e3 * seconds / len(sample):.3g} ms per sample"
    memory = sample[0].numel() * 4
    yield "sample memory", f"{memory:,} bytes as float32"


def _accuracy_facts(classifier: Classifier, dataset: Dataset, sample: Tensor) -> Iterator[Fact]:
    index = choose(len(dataset), TRIED, 0)[: len(sample)]
    labels = torch.from_numpy(dataset.labels[index].copy())
    samples = evaluate(classifier, sample, labels, index, 0)
    yield (
        "clean accuracy",
        f"{samples.accuracy:.1%} on {len(samples)} of {len(dataset)} samples",
    )
    try:
        require_better_than_chance(classifier, samples)
    except AuditError as error:
        yield "preprocessing", str(error)
    else:
        yield "preprocessing", "fits: accuracy is well above chance"
    for note in dataset.notes:
        yield "data", note


def _command(path: Path, data: Path | None, options: LoadOptions) -> str:
    words = ["audit", "scan", str(path), "--data", str(data)]
    if options.trust_model:
        words.append("--trust-model")
    if options.layout:
        words += ["--layout", options.layout]
    for flag, values in (("--mean", options.mean), ("--std", options.std)):
        if values is not None:
            words += [flag, ",".join(repr(value) for value in values)]
    for flag, value, default in (("--low", options.low, 0.0), ("--high", options.high, 1.0)):
        if value != default:
            words += [flag, repr(value)]
    for domain in sorted(options.allow_domains):
        words += ["--allow-domain", domain]
    words += ["--threat", ",".join(ScanConfig.metrics), "--samples", "1000"]
    return shlex.join(words)


def _sample(dataset: Dataset | None, shape: tuple[int | None, ...]) -> Tensor | None:
    """Samples of the data, or uniform random ones of the model's own shape where it is known."""
    if dataset is not None:
        return read_samples(dataset, choose(len(dataset), TRIED, 0))
    sizes = [size for size in shape[1:] if size is not None]
    if not sizes or len(sizes) != len(shape) - 1:
        return None
    if len(sizes) == 3 and sizes[2] in (1, 3) and sizes[0] not in (1, 3):
        sizes = [sizes[2], *sizes[:2]]  # a channels-last model takes the same images
    return torch.rand(8, *sizes, generator=torch.Generator().manual_seed(0))


def _input_shape(proto: onnx.ModelProto) -> tuple[int | None, ...]:
    stored = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in stored]
    if len(inputs) != 1:
        raise ModelError(
            f"The model takes {len(inputs)} inputs, but a classifier of one input is expected: fix "
            "the others as initializers and export again."
        )
    dims = inputs[0].type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in dims)


def _value(value: onnx.ValueInfoProto) -> str:
    if not value.type.HasField("tensor_type"):
        return f"{value.name} ({value.type.WhichOneof('value')})"
    tensor = value.type.tensor_type
    dims = [
        str(dim.dim_value) if dim.dim_value > 0 else dim.dim_param or "?"
        for dim in tensor.shape.dim
    ]
    dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    return f"{value.name} {dtype} ({', '.join(dims)})"


def _seconds(work: Callable[[], object]) -> float:

    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
