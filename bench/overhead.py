"""What does an attack cost beyond the forward and input-gradient passes that it needs?

Loops: the milliseconds per step beyond those passes, on a model that costs next to nothing and is
never fooled, so that all that is left is the loop itself.

Network: 40 steps of PGD in units of a floor, which is 40 forward passes and input gradients of the
plain network, at a radius that leaves about 10 % of the samples standing (linf) or 70 % (l2). Ours
runs the network as the product does, exported to ONNX and loaded again, and lets fooled samples go;
the peers run the plain network.

    bench/.peers/bin/python -m bench.overhead --out bench/results/overhead.md

One thread; times are of the processor, repetitions of all rows are interleaved, and medians are
shown. The network is trained here, in about two minutes; `--network FILE` keeps it.
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from attackers import ATTACKS
from attackers.geometry import METRICS
from attackers.losses import misclassified
from attackers.random_streams import SampleGenerator
from attackers.threat import Threat
from audit.data import open_data
from audit.evidence.samples import choose, read_samples
from audit.models import Classifier, LoadOptions, load_classifier
from bench import peers
from bench.subjects import MNIST
from bench.table import Table, bench_parser, publish, torch_setup
from bench.timing import interleaved_medians

GRADIENTS = 40
BATCHES = {"256x1x28x28": (256, 1, 28, 28), "128x3x32x32": (128, 3, 32, 32)}
FREE_RADII = {"linf": 0.1, "l2": 1.0, "l1": 10.0}
STANDING = {"linf": 0.1, "l2": 0.7}
"""Share of samples that is to stand at the radius of the second table."""

TRAINING_RADIUS = 0.1

Run = Callable[[], object]


def bare(model: nn.Module, x0: Tensor) -> None:
    """The passes alone."""
    for _ in range(GRADIENTS):
        x = x0.detach().requires_grad_()
        torch.autograd.grad(model(x).sum(), x)


def ours(
    name: str,
    logits: Callable[[Tensor], Tensor],
    x0: Tensor,
    labels: Tensor,
    metric: str,
    radius: float,
) -> Tensor:
    """One of our attacks at a fixed radius."""
    generator = SampleGenerator(tuple(range(len(x0))))
    threat = Threat(METRICS[metric](), radius)
    return ATTACKS[name](logits, x0, labels, threat, generator=generator, steps=GRADIENTS)


OURS = {f"ours, {name}": partial(ours, name) for name in ("pgd", "apgd") if name in ATTACKS}


# A model that costs nothing -----------------------------------------------------------------------


class Free(nn.Module):
    """A small linear map whose first class wins everywhere, with gradients in every coordinate."""

    def __init__(self, size: int) -> None:
        super().__init__()
        weight = 1e-3 * torch.randn(size, 10, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("bias", 5 * functional.one_hot(torch.tensor(0), 10).float())

    def forward(self, x: Tensor) -> Tensor:
        """Samples to scores."""
        return x.flatten(1) @ self.weight + self.bias


def loop_rows(shape: str, metric: str, repeats: int) -> list[list[str]]:
    x0 = torch.rand(BATCHES[shape], generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(len(x0), dtype=torch.int64)
    model = Free(x0[0].numel()).eval()
    radius = FREE_RADII[metric]
    runs: dict[str, Run] = {"bare": partial(bare, model, x0)}
    for name, attack in OURS.items():
        runs[name] = partial(attack, model, x0, labels, metric, radius)
    for name, attack in peers.FIXED[metric].items():
        runs[name] = partial(attack, model, x0, labels, radius, GRADIENTS)
    seconds = interleaved_medians(runs, repeats)
    floor = seconds.pop("bare")
    beyond = {name: 1e3 * (value - floor) / GRADIENTS for name, value in seconds.items()}
    best = min(value for name, value in beyond.items() if name not in OURS)
    return [
        [shape, metric, name, f"{value:.2f}", f"{value / best:.2f}"]
        for name, value in beyond.items()
    ]


# A small network ----------------------------------------------------------------------------------


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def trained(x: Tensor, labels: Tensor, *, rounds: int = 150, batch: int = 128) -> nn.Sequential:
    """Train against a few steps of linf PGD, whose projection stays outside the graph."""
    torch.manual_seed(0)
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(rounds):
        chosen = torch.randint(len(x), (batch,))
        moved = hardest(model.eval(), x[chosen], labels[chosen])
        optimiser.zero_grad()
        functional.cross_entropy(model.train()(moved), labels[chosen]).backward()
        optimiser.step()
    return model.eval().requires_grad_(False)


def hardest(model: nn.Module, x0: Tensor, labels: Tensor, *, steps: int = 4) -> Tensor:
    """A short PGD."""
    x = (x0 + TRAINING_RADIUS * (2 * torch.rand_like(x0) - 1)).clamp(0, 1)
    for _ in range(steps):
        x.requires_grad_()
        (grad,) = torch.autograd.grad(functional.cross_entropy(model(x), labels), x)
        x = x.detach() + 0.5 * TRAINING_RADIUS * grad.sign()
        x = torch.minimum(torch.maximum(x, x0 - TRAINING_RADIUS), x0 + TRAINING_RADIUS).clamp(0, 1)
    return x


def mnist(shared: Path, name: str, count: int) -> tuple[Tensor, Tensor]:
    dataset = open_data(shared / name, low=0.0, high=1.0)
    index = choose(len(dataset), count, 0)
    return read_samples(dataset, index), torch.from_numpy(dataset.labels[index].copy()).long()


def obtained(path: Path | None, shared: Path) -> nn.Sequential:
    """The network, read where it was kept, else trained."""
    if path is not None and path.exists():
        model = network()
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval().requires_grad_(False)
    started = time.process_time()
    model = trained(*mnist(shared, MNIST.replace("t10k", "train"), 60000))
    print(f"trained in {time.process_time() - started:.0f} s", file=sys.stderr)
    if path is not None:
        torch.save(model.state_dict(), path)
    return model


def as_served(model: nn.Module, x: Tensor) -> Classifier:
    """Export to ONNX and load as the product does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        free = {0: torch.export.Dim("batch")}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (x[:2],), path, dynamic_shapes=(free,), verbose=False)
        return load_classifier(path, x[:8], LoadOptions(device="cpu"))


def standing(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    """Share of samples that are still recognised."""
    with torch.no_grad():
        return 1 - float(misclassified(model(x), labels).double().mean())


def radius_leaving(
    share: float, model: nn.Module, x0: Tensor, labels: Tensor, metric: str, *, rounds: int = 8
) -> float:
    """Bisect for the radius at which our PGD leaves that share of the samples."""
    low, high = 0.0, {"linf": 0.5, "l2": 5.0}[metric]
    for _ in range(rounds):
        radius = (low + high) / 2
        left = standing(model, ours("pgd", model, x0, labels, metric, radius), labels)
        low, high = (radius, high) if left > share else (low, radius)
    return (low + high) / 2


def network_rows(
    model: nn.Module, x0: Tensor, labels: Tensor, metric: str, repeats: int
) -> list[list[str]]:
    served = as_served(model, x0)
    radius = radius_leaving(STANDING[metric], model, x0, labels, metric)
    attacks: dict[str, Callable[[], Tensor]] = {}
    for name, attack in OURS.items():
        call = partial(attack, served.differentiable, x0, labels, metric, radius)
        attacks[name] = call
    plain = partial(ours, "pgd", model, x0, labels, metric, radius)
    attacks["ours, pgd, on the plain network"] = plain
    for name, attack in peers.FIXED[metric].items():
        attacks[name] = partial(attack, model, x0, labels, radius, GRADIENTS)
    passes = {
        "floor": partial(bare, model, x0),
        "the same passes, as served": partial(bare, served.differentiable, x0),
    }
    seconds = interleaved_medians({**passes, **attacks}, repeats)
    rows = []
    for name, value in seconds.items():
        left = f"{100 * standing(model, attacks[name](), labels):.1f}" if name in attacks else ""
        ratio = f"{value / seconds['floor']:.2f}"
        rows.append([metric, f"{radius:.3f}", name, left, f"{value:.2f}", ratio])
    return rows


LOOP_COLUMNS = (
    "batch",
    "metric",
    "attack",
    "ms per step beyond the passes",
    "relative to the best peer",
)
NETWORK_COLUMNS = ("metric", "radius", "run", "accuracy left, %", "s", "relative to the floor")


def main() -> None:
    """Print both tables, and write them if a file is named."""
    parser = bench_parser(__doc__)
    parser.add_argument("--only", choices=["loops", "network"], help="measure one table only")
    parser.add_argument("--network", type=Path, help="file that keeps the trained network")
    parser.add_argument("--loop-repeats", type=int, default=9)
    parser.add_argument("--network-repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="art|foolbox")

    tables = []
    if options.only != "network":
        loops = Table(LOOP_COLUMNS)
        for shape in BATCHES:
            for metric in FREE_RADII:
                loops.extend(loop_rows(shape, metric, options.loop_repeats))
        tables.append(loops)
    if options.only != "loops":
        model = obtained(options.network, options.shared)
        x, labels = mnist(options.shared, MNIST, 512)
        print(f"clean {standing(model, x, labels):.3f}", file=sys.stderr)
        network = Table(NETWORK_COLUMNS)
        for metric in STANDING:
            found = network_rows(model, x[:256], labels[:256], metric, options.network_repeats)
            network.extend(found)
        tables.append(network)
    publish(options.out, f"{torch_setup()}, {GRADIENTS} steps, processor time.", *tables)


if __name__ == "__main__":
    main()
