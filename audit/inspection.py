"""What a model file holds and what can be done with it, before anything is attacked."""

import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor

from attackers.gradient import value_and_grad
from attackers.losses import margin
from audit import health
from audit.data import Dataset
from audit.errors import AuditError, ModelError, UnsupportedOperator
from audit.evidence import readings
from audit.evidence.chance import (
    chance_level,
    other_readings,
    require_better_than_chance,
    tie_sentence,
    ties_explain,
)
from audit.evidence.samples import Samples, choose, evaluate, read_samples, tied
from audit.models import Classifier, LoadOptions
from audit.models.classifier import Load
from audit.models.execution import call_rows
from audit.models.files import digest, identify
from audit.models.preprocess import InputSpec, show_shape
from audit.options import ScanConfig

Fact = tuple[str, str]
"""A name and what was found, as shown to the user."""

TRIED = 256
"""Samples that accuracy is measured on."""


@dataclass(frozen=True)
class Inspection:
    """Facts in the order in which they are shown, and the scan command that follows from them."""

    facts: tuple[Fact, ...]
    command: str | None


def inspect_model(
    path: Path | None,
    dataset: Dataset | None,
    options: LoadOptions,
    data_path: Path | None,
    load: Load,
) -> Inspection:
    """Describe a model, and try it on data or on random inputs.

    Args:
        path: file of the model, or None for a model that is given in Python.
        dataset: labelled data, or None.
        options: what the user states about the model.
        data_path: data as the user named it, for the command; None where it has no path.
        load: loads the model.

    Raises:
        ModelError: the file is not a model, or is not trusted.
    """
    facts, shape = ([], ()) if path is None else _file_facts(path, dataset, options)
    sample = _sample(dataset, shape, options)
    if sample is None:
        facts.append(
            ("input", "unknown without data: pass --data to see gradients, parity and speed")
        )
        return Inspection(tuple(facts), None)
    classes = 2 if dataset is None else int(dataset.labels.max()) + 1
    classifier = load(sample, classes)
    if dataset is not None:
        readings.require_labels(dataset, classifier, sample, _labels(dataset))
    if classifier.threshold:
        # The importer names what the graph shows; the values have shown more.
        facts = [fact for fact in facts if fact[0] != "served output"]
    facts += _classifier_facts(classifier, sample)
    if dataset is None:
        return Inspection(tuple(facts), None)
    found, spec = _accuracy(classifier, dataset, sample)
    facts += found
    if spec is None or path is None or data_path is None:
        return Inspection(tuple(facts), None)
    words = ["audit", "scan", str(path), "--data", str(data_path)]
    words += _reading(spec, options, detected=classifier.spec.layout)
    if dataset.options.resize is not None:
        words += ["--resize", "x".join(map(str, dataset.options.resize))]
    if dataset.options.class_map is not None:
        words += ["--class-map", str(dataset.options.class_map.path)]
    words += ["--threat", ",".join(ScanConfig.metrics), "--samples", "1000"]
    return Inspection(tuple(facts), shlex.join(words))


def _file_facts(
    path: Path, dataset: Dataset | None, options: LoadOptions
) -> tuple[list[Fact], tuple[int | None, ...]]:
    """Return what a file itself shows, and the shape of its input as far as it is known."""
    kind = identify(path)
    facts: list[Fact] = [("file", f"{path}, {path.stat().st_size:,} bytes"), ("format", kind)]
    shape: tuple[int | None, ...] = ()
    if kind != "onnx":
        facts.append(("sha256", digest(path)))
    if kind == "onnx":
        from audit.models.onnx import read_model

        proto = read_model(path, allow_domains=options.allow_domains)
        facts += [("sha256", digest(path)), *_onnx_facts(proto)]
        shape = _input_shape(proto)
    elif kind == "torch.export" and options.trust_model:
        from audit.models.exported import read_program

        read = read_program(path, trusted=True)
        shape = read.shape
        facts += _module_facts(read.program)
    elif options.trust_model:
        from audit.models.torchscript import read_script

        facts += _module_facts(read_script(path, trusted=True, device=torch.device("cpu")))
    elif dataset is None:
        facts.append(("opened", "no, it can run code of its own: pass --trust-model"))
    return facts, shape


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
        yield "gradient memory", f"about {_kept(classifier, sample):,} bytes per sample"
    seconds = _seconds(lambda: classifier.deployed(sample))
    yield "served time", f"{1e3 * seconds / len(sample):.3g} ms per sample"
    memory = sample[0].numel() * 4
    yield "sample memory", f"{memory:,} bytes as float32"


def _module_facts(
    module: torch.jit.ScriptModule | torch.export.ExportedProgram,
) -> Iterator[Fact]:
    weights = list(module.parameters())
    total = sum(weight.numel() for weight in weights)
    yield "parameters", f"{total:,} in {len(weights)} tensors"


def _accuracy(
    classifier: Classifier, dataset: Dataset, sample: Tensor
) -> tuple[list[Fact], InputSpec | None]:
    """The clean accuracy, and the reading of the data with which it is above chance, if any."""
    index = choose(len(dataset), TRIED, 0)
    samples = evaluate(classifier, sample, _labels(dataset), index, 0)
    measured = f"{samples.accuracy:.1%} on {len(samples)} of {len(dataset)} samples"
    shared = tied(classifier, samples)
    found = readings.findings(classifier, samples, dataset)
    doubts = [finding.text for finding in found if finding.doubtful]
    spec: InputSpec | None = classifier.spec
    facts = [("clean accuracy", measured)]
    try:
        require_better_than_chance(classifier, samples, doubts)
        facts.append(("preprocessing", _fit(samples, doubts)))
        if bool(shared.any()):
            facts.append(("ties", tie_sentence(int(shared.sum()), len(samples)).strip()))
    except AuditError as error:
        facts.append(("preprocessing", str(error)))
        # No normalisation mends scores that are tied, or a wrong output or numbering.
        explained = ties_explain(classifier, samples, shared)
        spec = None if explained or doubts else _better(classifier, samples)
        found = tuple(finding for finding in found if not finding.doubtful)  # the error has them
    facts += [("reading", finding.text) for finding in found]
    return [*facts, *(("data", note) for note in dataset.notes)], spec


def _fit(samples: Samples, doubts: Sequence[str]) -> str:
    """What an accuracy above chance says of the reading of the data."""
    found = health.compare_with_majority(samples)
    if found.status == "pass" and doubts:
        return "doubtful: accuracy is well above chance, but another reading may be right"
    if found.status == "pass":
        return "fits: accuracy is well above chance"
    return f"doubtful: {found.finding} {health.samples.majority.advice}"


def _better(classifier: Classifier, samples: Samples) -> InputSpec | None:
    """The other reading of the data with the highest accuracy, where that is above chance."""
    best, reached = None, chance_level(classifier.classes, len(samples))
    for _, spec, accuracy in other_readings(classifier, samples):
        if accuracy > reached:
            best, reached = spec, accuracy
    return best


def _reading(spec: InputSpec, options: LoadOptions, *, detected: str | None) -> list[str]:
    """The options with which a scan loads the model and reads the data in the same way."""
    words = ["--trust-model"] if options.trust_model else []
    if options.device != "auto":
        words += ["--device", options.device]
    if spec.layout is not None and (options.layout or spec.layout != detected):
        words += ["--layout", spec.layout]
    for flag, values in (("--mean", spec.mean), ("--std", spec.std)):
        if values is not None:
            words += [flag, ",".join(repr(value) for value in values)]
    for flag, value, default in (("--low", options.low, 0.0), ("--high", options.high, 1.0)):
        if value != default:
            words += [flag, repr(value)]
    for domain in sorted(options.allow_domains):
        words += ["--allow-domain", domain]
    return words


def _sample(
    dataset: Dataset | None, shape: tuple[int | None, ...], options: LoadOptions
) -> Tensor | None:
    """Samples of the data, or uniform random ones of the model's own shape where it is known."""
    if dataset is not None:
        return read_samples(dataset, choose(len(dataset), TRIED, 0))
    sizes = [size for size in shape[1:] if size is not None]
    if not sizes or len(sizes) != len(shape) - 1:
        return None
    if len(sizes) == 3 and sizes[2] in (1, 3) and sizes[0] not in (1, 3):
        sizes = [sizes[2], *sizes[:2]]  # a channels-last model takes the same images
    x = torch.rand(8, *sizes, generator=torch.Generator().manual_seed(0))
    return options.low + x * (options.high - options.low)


def _labels(dataset: Dataset) -> Tensor:
    """The labels of the samples that are looked at."""
    return torch.from_numpy(dataset.labels[choose(len(dataset), TRIED, 0)].copy())


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


def _kept(classifier: Classifier, sample: Tensor) -> int:
    """Bytes per sample of what the forward pass keeps for the gradient, weights shared."""
    rows = call_rows(classifier.spec.sample)
    x = sample[torch.arange(rows) % len(sample)].to(classifier.device).requires_grad_()
    sizes: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        scores = classifier.differentiable(x)
    del scores
    return sum(sizes.values()) // rows


def _seconds(work: Callable[[], object]) -> float:
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
