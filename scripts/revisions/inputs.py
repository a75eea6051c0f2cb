"""The models and data of the comparison: small, made from fixed seeds, once for both revisions."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import pyarrow
import pyarrow.parquet
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F

CLASSES = 4
TINY, SIDE, LARGE = 4, 8, 28
"""Sides of images in pixels: certificates of transport are dear, generators need large ones."""

FEATURES = 5
TREES = 6
TRAINING_STEPS = 60

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

POLICY = """[gates]
error = ["clean >= 0.5", "attacked.linf@0.05 >= 0.99"]
warn = ["reliability = green"]
"""


def write_inputs(folder: Path) -> None:
    """Write every model and data set into a folder."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    sides = {"tiny": TINY, "images": SIDE, "strokes": LARGE}
    shapes = {**{name: (1, side, side) for name, side in sides.items()}, "table": (FEATURES,)}
    data = {name: samples(shape, 40, seed=2) for name, shape in shapes.items()}
    train = {name: samples(shape, 400, seed=1) for name, shape in shapes.items()}
    for name, (x, y) in data.items():
        np.savez(folder / f"{name}.npz", x=x, y=y)
        np.savez(folder / f"{name}-train.npz", x=train[name][0], y=train[name][1])
    x, y = data["table"]
    rows = pyarrow.table({"x": pyarrow.array(list(x)), "label": y})
    pyarrow.parquet.write_table(rows, folder / "table.parquet")

    nets = {name: network(side) for name, side in sides.items()}
    nets |= {"table": perceptron(), "signs": perceptron(Signs())}
    for name, net in nets.items():
        fit(net, *train["table" if name == "signs" else name])
        save_onnx(folder / f"{name}.onnx", net, shapes.get(name, (FEATURES,)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(nets["images"]).save(str(folder / "script.pt"))
    save_trees(folder / "trees.onnx", scores=True)
    save_trees(folder / "labels.onnx", scores=False)
    (folder / "gates.toml").write_text(POLICY, encoding="utf-8")


def samples(shape: tuple[int, ...], n: int, *, seed: int) -> tuple[Floats, Labels]:
    """Noisy copies of one random pattern per class, in [0, 1]; large images are mostly black."""
    patterns = np.random.default_rng(10).uniform(0.2, 0.8, (CLASSES, *shape))
    if shape[-1] == LARGE:
        patterns = np.zeros((CLASSES, *shape))
        for label in range(CLASSES):
            patterns[label, 0, 5 + 5 * label, 8:20] = 0.6
    random = np.random.default_rng(seed)
    y = random.integers(0, CLASSES, n)
    noise = 0.15 * random.normal(size=(n, *shape)) * (patterns[y] > 0)
    return np.clip(patterns[y] + noise, 0, 1).astype(np.float32), y.astype(np.int64)


def network(side: int) -> nn.Sequential:
    """An untrained convolutional network for square grey images."""
    torch.manual_seed(0)
    size = min(side // 2, 4)
    width = (side // size) ** 2 * 4
    return nn.Sequential(
        nn.Conv2d(1, 4, size, stride=size), nn.ReLU(), nn.Flatten(), nn.Linear(width, CLASSES)
    )


class Signs(nn.Module):
    """Keeps only the sign of every input's distance from one half: no gradient is left."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return -1, 0 or 1 for every input."""
        return torch.sign(x - 0.5)


def perceptron(*first: nn.Module) -> nn.Sequential:
    """An untrained network for tables."""
    torch.manual_seed(0)
    return nn.Sequential(*first, nn.Linear(FEATURES, 12), nn.ReLU(), nn.Linear(12, CLASSES))


def fit(net: nn.Sequential, x: Floats, y: Labels) -> None:
    """Train by whole batches of cross-entropy."""
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(TRAINING_STEPS):
        optimiser.zero_grad()
        F.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimiser.step()
    net.eval()


def save_onnx(path: Path, net: nn.Sequential, shape: tuple[int, ...]) -> None:
    """Write a network of the layers above as ONNX, node by node."""
    nodes, stored, at = [], [], "x"

    def keep(name: str, value: "Floats | np.float32") -> str:
        stored.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    for number, layer in enumerate(net):
        here, weights = f"h{number}", []
        for name, value in layer.named_parameters():
            weights.append(keep(f"{number}.{name}", value.detach().numpy()))
        if isinstance(layer, nn.Conv2d):
            made = helper.make_node(
                "Conv", [at, *weights], [here],
                kernel_shape=list(layer.kernel_size), strides=list(layer.stride),
            )  # fmt: skip
        elif isinstance(layer, nn.Linear):
            made = helper.make_node("Gemm", [at, *weights], [here], transB=1)
        elif isinstance(layer, Signs):
            half = keep("half", np.float32(0.5))
            nodes.append(helper.make_node("Sub", [at, half], ["centred"]))
            made = helper.make_node("Sign", ["centred"], [here])
        else:
            made = helper.make_node(type(layer).__name__.capitalize(), [at], [here])
        nodes.append(made)
        at = here
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])
    target = helper.make_tensor_value_info(at, TensorProto.FLOAT, ["N", CLASSES])
    write(path, helper.make_graph(nodes, "network", [source], [target], stored))


def save_trees(path: Path, *, scores: bool) -> None:
    """Write trees with one cut each; a tree votes for the class whose pattern is on its side."""
    random = np.random.default_rng(3)
    patterns = np.random.default_rng(10).uniform(0.2, 0.8, (CLASSES, FEATURES))
    attributes: dict[str, list[object]] = {
        f"{kind}_{what}": []
        for kind, names in (
            ("nodes", "treeids nodeids featureids modes values truenodeids falsenodeids"),
            ("class", "treeids nodeids ids weights"),
        )
        for what in names.split()
    }

    def add(kind: str, **values: object) -> None:
        for what, value in values.items():
            attributes[f"{kind}_{what}"].append(value)

    for tree in range(TREES * FEATURES):
        feature = tree % FEATURES
        cut = float(np.quantile(patterns[:, feature], random.uniform(0.1, 0.9)))
        add("nodes", treeids=tree, nodeids=0, featureids=feature, modes="BRANCH_LEQ", values=cut,
            truenodeids=1, falsenodeids=2)  # fmt: skip
        for leaf in (1, 2):
            add("nodes", treeids=tree, nodeids=leaf, featureids=0, modes="LEAF", values=0.0,
                truenodeids=0, falsenodeids=0)  # fmt: skip
            for label in range(CLASSES):
                fits = (patterns[label, feature] <= cut) == (leaf == 1)
                add("class", treeids=tree, nodeids=leaf, ids=label, weights=float(fits))
    node = helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml",
        classlabels_int64s=list(range(CLASSES)), post_transform="NONE", **attributes,
    )  # fmt: skip
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", FEATURES])
    outputs = [helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])]
    if scores:
        outputs.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", CLASSES]))
    write(path, helper.make_graph([node], "trees", [source], outputs))


def write(path: Path, graph: onnx.GraphProto) -> None:
    """Check a graph and write it as a model file."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
