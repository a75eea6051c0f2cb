"""The certificate of a whole scan by bound propagation."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from attackers.geometry import Metric
from audit.certify import Certified
from audit.certify.collected import Certificates, Collected
from audit.certify.envelope import Enveloper, LossBounds
from audit.certify.margins import Prover
from audit.certify.methods import method_within, prover_of
from audit.certify.network import Network
from audit.certify.network_of_graph import network_of
from audit.certify.search import ProvenRadii, certified_radii, confirmed
from audit.errors import AuditError, InternalError, UnsupportedOperator, contained
from audit.evidence.samples import Samples
from audit.models.classifier import Classifier
from audit.models.onnx import OnnxModule
from audit.runtime.cores import each
from audit.schema import Certifier
from audit.statistics.value import grid_of

BATCHES = {"crown-ibp": 16}
"""Number of samples bounded together, by method. It is fixed because products of other shapes round
differently, and a result must depend on its sample alone. Other methods bound each sample alone,
because the number of rows or corners differs from sample to sample."""

ROUNDED_DOWN = 1 - 1e-9
"""Factor on a certified radius."""

DETAIL = (
    "Lower bounds of the margins by linear bound propagation, checked in float64 up to rounding; "
    "they hold for the model as a function of real numbers."
)

NO_BOUNDS = "This network cannot be bounded: {}. The lower bound is 0 at every positive budget."

BOUNDING_FAILED = (
    " The certificates of {} of {} samples stopped on an error, and their radii are 0: {}."
)

ROUNDED = (
    " The file computes in {}, whose rounding moves the scores of these samples by up to {:.1e}: "
    "the certificate does not cover this rounding, so the served model may predict another class "
    "where its margin is similarly small."
)

ROUNDING_SAMPLES = 64
"""Samples on which the rounding of a file is measured."""


@dataclass(frozen=True)
class BoundSettings:
    """Method and effort of a certification.

    Attributes:
        method: ``simplex`` bounds every corner of the ball, for metrics whose balls have few;
            ``crown`` bounds unstable neurons of every layer backwards; ``crown-ibp`` bounds only
            the margins backwards, and the layers by interval arithmetic; ``auto`` is the first of
            these methods that needs no more than ``work``.
        steps: number of radii tried per sample.
        tuning: number of gradient steps that optimise the slopes at each radius.
        work: number of products that ``auto`` may spend on intermediate bounds.
        deltas: budgets for which the loss of all samples is also bounded; empty for no such bounds.
    """

    method: str
    steps: int
    tuning: int
    work: float
    deltas: tuple[float, ...] = ()


@dataclass(frozen=True)
class Task:
    """The certification of the samples of one scan, on the device of the classifier.

    Attributes:
        samples: all samples of the scan.
        search: prover in float32.
        exact: prover in float64.
        limit: (N,) float64 radii that are never exceeded.
        steps: number of radii tried per sample.
        batch: number of samples bounded together.
        enveloper: bounds the loss; None if no such bounds are requested.
        budgets: (D,) float64, ascending.
    """

    samples: Samples
    search: Prover
    exact: Prover
    limit: Tensor
    steps: int
    batch: int
    enveloper: Enveloper | None
    budgets: Tensor

    def certify(self, rows: Tensor) -> tuple[Tensor, LossBounds | None]:
        """Bound some samples, which are all correct or all misclassified.

        Args:
            rows: (R,) int64, at most a batch.

        Returns:
            Radii (R,) float64, and bounds of the loss.
        """
        device, samples = self.budgets.device, self.samples
        filled = rows[torch.arange(self.batch) % len(rows)]
        x, labels = samples.x[filled].to(device), samples.labels[filled].to(device)
        limit = self.limit[filled].to(device)
        if bool(samples.correct[rows[0]]):
            found = certified_radii(
                self.search, x, labels, limit, steps=self.steps, budgets=self.budgets
            )
        else:
            found = ProvenRadii(torch.zeros_like(limit), {})
        proven, margins = confirmed(self.exact, x, labels, found)
        radius = proven[: len(rows)].cpu() * ROUNDED_DOWN
        if self.enveloper is None:
            return radius, None
        loss = self.enveloper.bounds(x.double(), labels, margins)
        return radius, LossBounds(*(part[: len(rows)].cpu() for part in vars(loss).values()))

    def contained(self, rows: Tensor) -> list[Certificates]:
        """Bound some samples; an error affects only the sample that causes it.

        Raises:
            UnsupportedOperator: the method cannot bound this network in its metric.
        """
        said: list[str] = []
        unsupported: UnsupportedOperator | None = None
        with contained(f"The certificate of samples {rows.tolist()}", said.append):
            try:
                return [Certificates(rows, *self.certify(rows))]
            except UnsupportedOperator as error:
                unsupported = error
        if unsupported is not None:
            raise unsupported
        if len(rows) > 1:
            # A batch filled with copies of one sample gives it the same result bit for bit.
            return [found for row in rows.split(1) for found in self.contained(row)]
        return [Certificates(rows, torch.zeros(1, dtype=torch.float64), None, said[0])]

    def groups(self) -> Iterator[Tensor]:
        """Yield batches; misclassified samples have no radius, but contribute to the loss."""
        correct = self.samples.correct
        yield from correct.nonzero()[:, 0].split(self.batch) if bool(correct.any()) else ()
        if self.enveloper is not None and not bool(correct.all()):
            yield from (~correct).nonzero()[:, 0].split(self.batch)


def certify(
    classifier: Classifier,
    metric: Metric,
    samples: Samples,
    attacked: Tensor,
    settings: BoundSettings,
    tick: Callable[[int], None] = lambda _: None,
) -> Certified | None:
    """Certify every correct sample, or name the operation that cannot be bounded.

    An error in the certificate of one sample gives that sample a radius of 0, does not affect the
    other samples, and is recorded with status ``error``.

    Args:
        classifier: classifier with the graph of its operations.
        metric: metric of the radii.
        samples: all samples of the scan.
        attacked: (N,) float64 distances at which the samples are known to break; never exceeded.
        settings: method and effort.
        tick: called with the number of samples that were certified since the last call.

    Returns:
        Radii and the entry of the report; None if the model has no graph.

    Raises:
        InternalError: a contradiction that only a bug in this program can cause.
    """
    white_box = classifier.white_box
    if white_box is None or white_box.graph is None:
        return None
    started = time.perf_counter()
    try:
        return _bound_samples(
            classifier, white_box.graph(), metric, samples, attacked, settings, tick
        )
    except InternalError:
        raise
    except AuditError as error:
        return Certified(
            torch.zeros(len(samples), dtype=torch.float64),
            Certifier(
                name=settings.method if settings.method != "auto" else "crown",
                status="not_applicable",
                detail=NO_BOUNDS.format(str(error).rstrip(".")),
                seconds=time.perf_counter() - started,
                failure_probability=0.0,
            ),
        )


def _bound_samples(
    classifier: Classifier,
    graph: OnnxModule,
    metric: Metric,
    samples: Samples,
    attacked: Tensor,
    settings: BoundSettings,
    tick: Callable[[int], None],
) -> Certified:
    started, device = time.perf_counter(), classifier.device
    first = samples.x[:1].to(device)
    network = network_of(graph, classifier.spec.prepare, first, classifier.threshold)
    name, coarser = method_within(
        settings.method, network, metric, samples, steps=settings.steps, work=settings.work
    )
    exact = prover_of(name, network.double(), metric, 0)
    note = coarser + rounding_of(exact.network, classifier, samples)
    # The loss is a function of logits; a column of probabilities is bounded without a loss.
    levels = torch.from_numpy(grid_of(() if classifier.threshold else settings.deltas))
    budgets = torch.tensor(sorted(settings.deltas), dtype=torch.float64, device=device)
    task = Task(
        samples,
        prover_of(name, network, metric, settings.tuning),
        exact,
        torch.minimum(attacked, metric.diameter(samples.x).double()),
        settings.steps,
        BATCHES.get(name, 1),
        Enveloper(exact, metric, budgets, levels.to(device)) if len(levels) else None,
        budgets,
    )
    result = Collected.empty(len(samples), len(levels))
    with closing(each(task.contained, task.groups())) as done:
        for found in (part for parts in done for part in parts):
            result.add(found)
            tick(int(samples.correct[found.rows].sum()))
    if result.errors:
        note += BOUNDING_FAILED.format(len(result.errors), len(samples), result.errors[0])
    certifier = Certifier(
        name=name,
        status="error" if result.errors else "ran",
        detail=DETAIL + note,
        seconds=time.perf_counter() - started,
        failure_probability=0.0,
    )
    return Certified(result.radius, certifier, result.envelope(levels))


def rounding_of(exact: Network, classifier: Classifier, samples: Samples) -> str:
    """Describe the rounding of a file that computes in a type narrower than float32, if it does."""
    rows = samples.probe(ROUNDING_SAMPLES)
    if not exact.rounding or not len(rows):
        return ""
    x = samples.x[rows].to(classifier.device)
    with torch.no_grad():
        real = exact.run(x.double())
        copied = classifier.differentiable(x).to(real)
    # Logarithms of probabilities are logits up to a constant per sample.
    moved = (copied - copied.mean(1, keepdim=True)) - (real - real.mean(1, keepdim=True))
    kinds = sorted(str(dtype).removeprefix("torch.") for dtype in exact.rounding)
    return ROUNDED.format(" and ".join(kinds), float(moved.abs().max()))
