"""The certificate of a whole scan by bound propagation: which network, how exactly, how far."""

import time
from collections.abc import Callable
from contextlib import closing
from math import prod

import torch
from torch import Tensor

from attackers.geometry import Metric
from audit.certify import Certified
from audit.certify.crown import Crown
from audit.certify.envelope import Enveloper, LossBounds
from audit.certify.margins import Prover
from audit.certify.network import Network, network_of
from audit.certify.search import Radii, certified_radii, confirmed
from audit.certify.simplex import Simplex, fits
from audit.errors import AuditError, InternalError
from audit.evidence.samples import Samples
from audit.models.classifier import Classifier
from audit.models.onnx.program import Step
from audit.runtime.cores import each
from audit.schema import Certifier
from audit.statistics.value import Envelope, grid_of

TOGETHER = {"crown-ibp": 16}
"""Samples bounded together, always exactly so many: products of other shapes would round in other
ways, and a result belongs to its sample alone. Elsewhere each is on its own, because how many rows
or corners there are differs from sample to sample."""

TIGHTER = ("simplex", "crown", "crown-ibp")
"""The methods, the tightest first."""

PLAIN = 0.25
"""Time of a product in a pass at many corners, in units of one that is bounded backwards."""

ROUNDED_DOWN = 1 - 1e-9
"""Of a certified radius."""

COARSER = " Bounds by --certify {} are tighter, and take {:.1f} times what this effort allows."

DETAIL = (
    "Lower bounds of the margins by linear bound propagation, checked in float64 up to rounding; "
    "they hold for the model as a function of real numbers."
)

ROUNDED = (
    " The file computes in {}, whose rounding moves the scores of these samples by up to {:.1e}: "
    "the certificate does not cover this rounding, so the served model may answer otherwise where "
    "its margin is about as small."
)

PROBE = 64
"""Samples on which the rounding of a file is measured."""


def certify(
    classifier: Classifier,
    metric: Metric,
    samples: Samples,
    attacked: Tensor,
    *,
    how: str,
    steps: int,
    tuning: int,
    work: float,
    deltas: tuple[float, ...] = (),
    tick: Callable[[int], None] = lambda _: None,
) -> Certified | None:
    """Certify every correct sample, or say which operation stands in the way.

    Args:
        classifier: with the graph of its operations.
        metric: of the radii.
        samples: all of them.
        attacked: (N,) float64, the distance at which each is known to break; never exceeded.
        how: ``simplex`` bounds every corner of the ball, for metrics whose balls have few;
            ``crown`` bounds backwards what enters every nonlinear operation, ``crown-ibp`` only
            the margins and the rest by interval arithmetic; ``auto`` is the first within ``work``.
        steps: radii tried per sample.
        tuning: gradients that look for good slopes at each.
        work: products that ``auto`` may spend on bounds inside the network.
        deltas: budgets for which the loss is bounded too, of all samples; none for no such bounds.
        tick: called with how many samples are done.

    Returns:
        Radii and what the report says of them; None where the model has no graph.
    """
    if classifier.graph is None:
        return None
    started = time.perf_counter()
    radius = torch.zeros(len(samples), dtype=torch.float64)
    try:
        device = classifier.device
        network = network_of(
            classifier.graph(),
            classifier.spec.prepare,
            samples.x[:1].to(device),
            classifier.threshold,
        )
        name, coarser = chosen(how, network, metric, samples, steps=steps, work=work)
        search = prover(name, network, metric, tuning)
        exact = prover(name, network.double(), metric, 0)
        note = coarser + rounding_of(exact.network, classifier, samples)
        limit = torch.minimum(attacked, metric.diameter(samples.x).double())
        together = TOGETHER.get(name, 1)
        # A loss is one of logits; a column of probabilities is bounded as it is.
        grid = torch.from_numpy(grid_of(() if classifier.threshold else deltas))
        budgets = torch.tensor(sorted(deltas), dtype=torch.float64, device=device)
        enveloper = Enveloper(exact, metric, budgets, grid.to(device))

        def certain(rows: Tensor) -> tuple[Tensor, Tensor, LossBounds | None]:
            filled = rows[torch.arange(together) % len(rows)]
            x, labels = samples.x[filled].to(device), samples.labels[filled].to(device)
            most = limit[filled].to(device)
            if bool(samples.correct[rows[0]]):
                found = certified_radii(search, x, labels, most, steps=steps, budgets=budgets)
            else:
                found = Radii(torch.zeros_like(most), {})
            proven, bounds = confirmed(exact, x, labels, found)
            loss = enveloper.bounds(x.double(), labels, bounds) if len(grid) else None
            return rows, proven, loss

        # Those that are wrong have no radius, but take part in the loss.
        wrong = (~samples.correct).nonzero()[:, 0] if len(grid) else samples.index[:0]
        groups = [*samples.correct.nonzero()[:, 0].split(together), *wrong.split(together)]
        losses = LossBounds(
            torch.zeros_like(radius),
            radius.new_zeros(len(radius), len(grid)),
            torch.zeros_like(radius),
        )
        with closing(each(certain, [rows for rows in groups if len(rows)])) as done:
            for rows, found, loss in done:
                radius[rows] = found[: len(rows)].cpu() * ROUNDED_DOWN
                if loss is not None:
                    for whole, part in zip(vars(losses).values(), vars(loss).values(), strict=True):
                        whole[rows] = part[: len(rows)].cpu()
                tick(int(samples.correct[rows].sum()))
    except InternalError:
        raise
    except AuditError as error:
        radius.zero_()
        return Certified(
            radius,
            Certifier(
                name=how if how != "auto" else "crown",
                status="not_applicable",
                detail=f"No bounds through this network: {error}. The lower bound is 0 at every "
                "positive budget.",
                seconds=time.perf_counter() - started,
                failure_probability=0.0,
            ),
        )
    return Certified(
        radius,
        Certifier(
            name=name,
            status="ran",
            detail=DETAIL + note,
            seconds=time.perf_counter() - started,
            failure_probability=0.0,
        ),
        _envelope(grid, losses) if len(grid) else None,
    )


def rounding_of(exact: Network, classifier: Classifier, samples: Samples) -> str:
    """What the report says of a file that computes in a type narrower than float32."""
    rows = samples.probe(PROBE)
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


def _envelope(grid: Tensor, losses: LossBounds) -> Envelope:
    return Envelope(
        grid.numpy(), losses.clean.numpy(), losses.within.numpy(), losses.everywhere.numpy()
    )


def prover(name: str, network: Network, metric: Metric, tuning: int) -> Prover:
    """The method of a name."""
    if name == "simplex":
        return Simplex(network, metric, tuning=tuning)
    # Where the bounds inside are coarse, slopes change little, and cost most of the time.
    backwards = name == "crown"
    return Crown(network, metric, backwards=backwards, tuning=tuning if backwards else 0)


def chosen(
    how: str, network: Network, metric: Metric, samples: Samples, *, steps: int, work: float
) -> tuple[str, str]:
    """The method, and what is said of a tighter one that the work does not allow."""
    if how != "auto":
        return how, ""
    coarser = ""
    for name in TIGHTER:
        needed = effort_of(name, network, metric, samples, steps)
        if needed is None:
            continue
        if needed <= work or name == TIGHTER[-1]:
            return name, coarser
        coarser = coarser or COARSER.format(name, needed / work)
    raise AssertionError("the last method always applies")


def effort_of(
    name: str, network: Network, metric: Metric, samples: Samples, steps: int
) -> float | None:
    """Products of a whole search inside the network, or None where the method cannot serve."""
    once = sum(products(network, step) for step in network.steps)
    rows = samples.correct
    if name == "crown":
        # What enters the first layer is known without.
        later = list(network.layers.values())[1:]
        values = sum(prod(network.shapes[layer.step.inputs[0]]) for layer in later)
        return float(values) * once * int(rows.sum()) * steps
    if name == "simplex":
        corners = metric.corner_count(samples.x[rows])
        if corners is None or not len(corners) or not fits(network, int(corners.max())):
            return None
        # Middle and reach of every value at every corner.
        return PLAIN * 2 * once * float(corners.sum()) * steps
    return 0.0


def products(network: Network, step: Step) -> float:
    """Products of a step for one sample: each output value takes a row of the weight."""
    weights = [network.constants.get(name) for name in step.inputs[1:2]]
    if step.node.operator not in ("Conv", "Gemm", "MatMul") or weights[0] is None:
        return 0.0
    rows = weights[0].shape[0 if step.node.operator == "Conv" else -1]
    if step.node.operator == "Gemm":
        return float(weights[0].numel())
    return prod(network.shapes[step.outputs[0]]) * weights[0].numel() / max(1, rows)
