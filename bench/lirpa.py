"""Are our bounds those of auto_LiRPA, and at what cost?

Both bound the margins of one network by plain CROWN (no slopes tuned) around the same images, in
linf without the box and in l2; the radius is the last of 20 bisections at which all margins are
positive. auto_LiRPA is not published for our version of torch: give a folder in which its sources
lie (github.com/Verified-Intelligence/auto_LiRPA), beside packaging, pyyaml, appdirs, ninja, tqdm
and graphviz.

    python -m bench.lirpa --sources FOLDER [FOLDER ...] --out bench/results/lirpa.md
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from attackers.geometry import METRICS
from audit.certify.crown import Crown
from audit.certify.network_of_graph import network_of
from audit.certify.search import certified_radii, confirmed
from audit.data import open_data
from audit.evidence.samples import read_samples
from audit.models import load_classifier
from bench.subjects import SHARED, SUBJECTS

MODEL = "convex_adversarial_mnist"
UNBOXED = 100.0
"""How far a box reaches that takes no part."""

NORMS = {"linf": np.inf, "l2": 2.0}
LIMITS = {"linf": 0.3, "l2": 2.0}
BISECTIONS = 20
TIMED = 8
"""Bisections that auto_LiRPA is timed for: as fine as what our search ends with."""

STEPS = 3
"""Radii of our search: the preset `standard`."""

Margins = Callable[[Tensor, Tensor, float], Tensor]


def rebuilt(state: dict[str, Tensor]) -> nn.Sequential:
    """The network of the file as plain modules: two convolutions, two dense layers."""
    weights = [value for value in state.values() if value.dim() > 1]
    biases = [value for value in state.values() if value.dim() == 1]
    first, second, third, last = weights
    net = nn.Sequential(
        nn.Conv2d(1, len(first), 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(len(first), len(second), 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(third.shape[1], third.shape[0]),
        nn.ReLU(),
        nn.Linear(last.shape[1], last.shape[0]),
    )
    layers = [module for module in net if isinstance(module, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for layer, weight, bias in zip(layers, weights, biases, strict=True):
            layer.weight.copy_(weight)
            assert layer.bias is not None
            layer.bias.copy_(bias)
    return net.eval().requires_grad_(False)


def ours(crown: Crown) -> Margins:
    """Margins by our bounds."""

    def margins(x: Tensor, labels: Tensor, radius: float) -> Tensor:
        found = crown.margins(x, labels, torch.full((len(x),), radius).double())
        return found.at(found.radius)[0]

    return margins


def theirs(net: nn.Module, x: Tensor, metric: str) -> Margins:
    """Margins by auto_LiRPA."""
    from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm

    bounded = BoundedModule(net, torch.empty_like(x[:1]), device="cpu")

    def margins(x: Tensor, labels: Tensor, radius: float) -> Tensor:
        point = BoundedTensor(x, PerturbationLpNorm(norm=NORMS[metric], eps=radius))
        classes = net(x).shape[1]
        rivals = [k for k in range(classes) if k != int(labels)]
        matrix = torch.zeros(1, len(rivals), classes)
        matrix[0, :, int(labels)] = 1.0
        matrix[0, torch.arange(len(rivals)), torch.tensor(rivals)] = -1.0
        low, _ = bounded.compute_bounds(x=(point,), C=matrix, method="CROWN", bound_upper=False)
        return low[0]

    return margins


def bisected(
    margins: Margins, x: Tensor, labels: Tensor, limit: float, steps: int = BISECTIONS
) -> float:
    """The largest radius found at which all margins are positive."""
    low, high = 0.0, limit
    for _ in range(steps):
        middle = (low + high) / 2
        if bool((margins(x, labels, middle).detach() > 0).all()):
            low = middle
        else:
            high = middle
    return low


def compared(metric: str, count: int) -> str:
    """One line of the table."""
    subject = SUBJECTS[MODEL]
    x = read_samples(open_data(SHARED / subject.data, low=0.0, high=1.0), np.arange(count))
    classifier = load_classifier(SHARED / subject.model, x[:8], subject.loading)
    assert classifier.graph is not None
    module = classifier.graph()
    net = rebuilt({k: v.detach() for k, v in module.state_dict().items()})
    assert torch.allclose(net(x), classifier.deployed(x), atol=1e-4)
    labels = net(x).argmax(1)
    network = network_of(module, classifier.spec.prepare, x[:1])
    geometry = METRICS[metric](low=-UNBOXED, high=UNBOXED)
    crown = Crown(network, geometry)
    exact = Crown(network.double(), geometry)
    peer = theirs(net, x, metric)
    surplus, ratios, radii, times = [], [], [], []
    for row in range(count):
        one, label = x[row : row + 1], labels[row : row + 1]
        mine, other = (bisected(m, one, label, LIMITS[metric]) for m in (ours(crown), peer))
        radii.append((mine, other))
        radius = 0.9 * mine
        a, b = (m(one, label, radius) for m in (ours(crown), peer))
        largest = float(b.detach().abs().amax())
        surplus += ((a - b).detach() / largest).tolist()
        ratios.append(mine / other - 1)
        spent = [time.process_time()]
        bisected(peer, one, label, LIMITS[metric], TIMED)
        spent.append(time.process_time())
        limit = torch.tensor([LIMITS[metric]]).double()
        confirmed(exact, one, label, certified_radii(crown, one, label, limit, steps=STEPS))
        spent.append(time.process_time())
        times.append(np.diff(spent))
    lirpa, search = np.median(times, 0)
    return (
        f"| {metric} | {count} | {min(surplus):.0e} to {max(surplus):.0e} | "
        f"{min(ratios):.0e} to {max(ratios):.0e} | "
        f"{np.median([a for a, _ in radii]):.5f} | {np.median([b for _, b in radii]):.5f} | "
        f"{lirpa:.2f} | {search:.2f} |"
    )


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=Path, nargs="+", required=True)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    sys.path.extend(str(folder) for folder in args.sources)
    torch.set_num_threads(1)
    lines = [
        f"{MODEL}, torch {torch.__version__}, one thread, seconds of the processor, medians per "
        "sample. Ours less theirs: of any margin, in units of the sample's largest, and of any "
        f"radius, relative. Times: {TIMED} bisections of theirs; our search of {STEPS} radii and "
        "its check in float64.",
        "",
        "| metric | samples | margins | radii | our median radius | theirs | "
        "auto_LiRPA, s | ours, s |",
        "|---|---|---|---|---|---|---|---|",
        *(compared(metric, args.samples) for metric in NORMS),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
