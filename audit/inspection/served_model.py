"""Measurements of a loaded model on samples: input, gradients, speed and memory."""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from attackers.gradient import value_and_grad
from attackers.losses import margin
from audit.inspection.fact import Fact
from audit.models import Classifier
from audit.models.execution import call_rows
from audit.models.preprocess import show_shape


def classifier_facts(classifier: Classifier, sample: Tensor) -> Iterator[Fact]:
    """Measure a loaded model on samples, and yield the results as facts."""
    spec = classifier.spec
    dtype = str(spec.dtype).removeprefix("torch.")
    layout = f", layout {spec.layout}" if spec.layout else ""
    yield "model input", f"{show_shape(spec.shape) if spec.shape else 'any'} {dtype}{layout}"
    yield "classes", str(classifier.classes)
    yield "output", classifier.output
    for note in classifier.notes:
        yield "note", note
    if not classifier.has_copy:
        yield "gradients", "none: only black-box attacks can run, which are weaker evidence"
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
        yield "gradient memory", f"about {_gradient_bytes(classifier, sample):,} bytes per sample"
    seconds = _seconds(lambda: classifier.deployed(sample))
    yield "served time", f"{1e3 * seconds / len(sample):.3g} ms per sample"
    memory = sample[0].numel() * 4
    yield "sample memory", f"{memory:,} bytes as float32"


def _gradient_bytes(classifier: Classifier, sample: Tensor) -> int:
    """Return the bytes per sample that the forward pass stores for the gradient.

    Weights are counted once and shared by the samples.
    """
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
