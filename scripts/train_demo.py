"""Train the classifier that `audit demo` scans, and cut its 1,000-image test set.

A small convolutional network is trained on Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, MIT licence)
against projected gradient descent in ``linf`` (Madry et al. 2018), so that its accuracy falls
gradually with the budget instead of at once:

    min_θ  E  max_{|x' − x|_inf <= radius, x' in [0, 1]}  CE(f_θ(x'), y)

The data: the four files ``{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz`` in one folder, from
https://github.com/zalandoresearch/fashion-mnist, or on Debian ``apt install dataset-fashion-mnist``
(which puts them where ``--source`` looks by default). The export needs the package ``onnxscript``.

    python scripts/train_demo.py --source DIR --out audit/demo

One thread on purpose: the order of floating-point sums, hence the file, depends on their number.
"""

import argparse
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from audit.data import open_data

SAMPLES = 1000
TRAINING_RADIUS = 0.04
REPORTED_RADIUS = 0.05
OPSET = 18


def read_split(source: Path, split: str) -> tuple[Tensor, Tensor]:
    """All images (N, 1, 28, 28) in [0, 1] and labels (N,) of ``train`` or ``t10k``."""
    data = open_data(source / f"{split}-images-idx3-ubyte.gz", low=0.0, high=1.0)
    images = data.read(np.arange(len(data)))
    return torch.from_numpy(images), torch.from_numpy(np.array(data.labels))


def network() -> nn.Sequential:
    """Two strided convolution blocks and two linear layers: 207,938 parameters once folded."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Conv2d(24, 48, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48 * 7 * 7, 80),
        nn.ReLU(),
        nn.Linear(80, 10),
    )


def pgd(
    model: nn.Module,
    x0: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    *,
    radius: float,
    steps: int,
) -> Tensor:
    """Projected gradient ascent on cross-entropy from a random start, in ball and box.

    Written out here and not taken from `attackers`: what the project ships must not change when
    its attacks are improved.
    """
    step = 1.25 * 2 * radius / (steps + 1)
    low, high = (x0 - radius).clamp(min=0), (x0 + radius).clamp(max=1)
    x = low + (high - low) * torch.rand(x0.shape, generator=generator)
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(model(x), labels), x)
        x = (x.detach() + step * grad.sign()).clamp(low, high)
    return x.detach()


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Shuffled index batches; the incomplete last one is left out."""
    order = torch.randperm(count, generator=generator)
    yield from order[: count - count % size].split(size)


def train(
    model: nn.Module, x: Tensor, labels: Tensor, *, epochs: int, seed: int, batch_size: int = 256
) -> None:
    """Adversarial training in place: Adam, one-cycle learning rate, 3 ascent steps per batch."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=4e-3, total_steps=epochs * (len(x) // batch_size)
    )
    for epoch in range(epochs):
        start, losses = time.perf_counter(), []
        model.train()
        for index in batches(len(x), batch_size, generator):
            x0, y = x[index], labels[index]
            attacked = pgd(model, x0, y, generator, radius=TRAINING_RADIUS, steps=3)
            loss = F.cross_entropy(model(attacked), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        seconds = time.perf_counter() - start
        print(f"epoch {epoch}: loss {np.mean(losses):.4f}, {seconds:.0f} s", file=sys.stderr)


def folded(model: nn.Sequential) -> nn.Sequential:
    """The same function in eval mode with each batch norm folded into the convolution before it."""
    layers: list[nn.Module] = []
    for layer in model.eval():
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
        else:
            layers.append(layer)
    return nn.Sequential(*layers).eval()


def export(model: nn.Module, path: Path) -> None:
    """Write one ONNX file with its weights: ``image`` (B, 1, 28, 28) -> ``logits`` (B, 10)."""
    buffer = io.BytesIO()
    torch.onnx.export(
        model,
        (torch.zeros(2, 1, 28, 28),),
        buffer,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        external_data=False,
        dynamo=True,
        verbose=False,
    )
    proto = onnx.load_from_string(buffer.getvalue())
    strip_traces(proto)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def strip_traces(proto: onnx.ModelProto) -> None:
    """Remove what the exporter notes about its own run: stack traces with local paths."""
    graph = proto.graph
    parts = [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for part in (proto, graph, *parts):
        del part.metadata_props[:]
        part.doc_string = ""


def subset(count: int, seed: int) -> np.ndarray:
    """Rows of the test set that are shipped: ``SAMPLES`` of them without replacement, sorted."""
    return np.sort(np.random.default_rng(seed).choice(count, SAMPLES, replace=False))


def served_accuracy(path: Path, x: Tensor, labels: Tensor) -> float:
    """Share of samples that onnxruntime, serving the file, classifies correctly."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": x.numpy()})
    return float(np.mean(np.argmax(logits, axis=1) == labels.numpy()))


def pgd_accuracy(model: nn.Module, x: Tensor, labels: Tensor, *, seed: int) -> float:
    """Share of samples still correct after 40 ascent steps at ``REPORTED_RADIUS``."""
    generator = torch.Generator().manual_seed(seed)
    attacked = pgd(model, x, labels, generator, radius=REPORTED_RADIUS, steps=40)
    with torch.no_grad():
        return (model(attacked).argmax(dim=1) == labels).double().mean().item()


README = """\
# The model and data of `audit demo`

Both files are made by `scripts/train_demo.py` (`--epochs {epochs} --seed {seed}`) and can be
made again with it.

- `fashion_cnn.onnx`: a small CNN, {parameters:,} parameters, opset {opset},
  `image` (batch, 1, 28, 28) in [0, 1] -> `logits` (batch, 10).
  Trained against PGD, linf {training_radius}, 3 steps.
- `fashion_test_1000.npz`: `x` uint8 (1000, 28, 28) and `y` uint8 (1000,), {samples} images of the
  official test set, drawn without replacement with seed {seed}.

Measured on these {samples} images:

- clean accuracy, through onnxruntime: {clean:.3f}
- accuracy under PGD (40 steps, one random start) at linf {reported_radius}: {attacked:.3f}

On the official 10,000-image test set, through onnxruntime: {official:.4f}.

## Provenance and licence

The images are a subset of Fashion-MNIST, https://github.com/zalandoresearch/fashion-mnist
(Han Xiao, Kashif Rasul, Roland Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
Machine Learning Algorithms", 2017), and the network was trained on its training set.
Classes: T-shirt/top, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot.

Fashion-MNIST is under the MIT licence:

> The MIT License (MIT) Copyright © 2017 Zalando SE, https://tech.zalando.com
>
> Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
> associated documentation files (the "Software"), to deal in the Software without restriction,
> including without limitation the rights to use, copy, modify, merge, publish, distribute,
> sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
> furnished to do so, subject to the following conditions:
>
> The above copyright notice and this permission notice shall be included in all copies or
> substantial portions of the Software.
>
> THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
> NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
> NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
> DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
> OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=Path("audit/demo"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Train, export, cut the test set, and write down what was measured."""
    args = options()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model = network()
    train(model, *read_split(args.source, "train"), epochs=args.epochs, seed=args.seed)
    model = folded(model)

    args.out.mkdir(parents=True, exist_ok=True)
    model_path = args.out / "fashion_cnn.onnx"
    export(model, model_path)
    images, labels = read_split(args.source, "t10k")
    rows = subset(len(images), args.seed)
    x, y = images[rows], labels[rows]
    np.savez_compressed(
        args.out / "fashion_test_1000.npz",
        x=(x[:, 0] * 255).round().to(torch.uint8).numpy(),
        y=y.to(torch.uint8).numpy(),
    )
    text = README.format(
        epochs=args.epochs,
        seed=args.seed,
        parameters=sum(p.numel() for p in model.parameters()),
        opset=OPSET,
        samples=SAMPLES,
        training_radius=TRAINING_RADIUS,
        reported_radius=REPORTED_RADIUS,
        clean=served_accuracy(model_path, x, y),
        attacked=pgd_accuracy(model, x, y, seed=args.seed),
        official=served_accuracy(model_path, images, labels),
    )
    (args.out / "README.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
