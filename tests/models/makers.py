"""Small models in every served form, and data that they classify."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tests.cli import tiny

SHAPE = (1, 6, 6)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def images(n: int = 60) -> tuple[tiny.Floats, np.ndarray]:
    """Return samples that `linear` classifies well, and their labels."""
    return tiny.noisy(tiny.patterns(SHAPE), n)


def linear(*head: nn.Module) -> nn.Sequential:
    """Return a linear classifier of `images` into ten classes."""
    weight, bias = tiny.matched(tiny.patterns(SHAPE))
    layer = nn.Linear(36, 10)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.T))
        layer.bias.copy_(torch.from_numpy(bias))
    return nn.Sequential(nn.Flatten(), layer, *head).eval()


def net(*head: nn.Module) -> nn.Sequential:
    """Return a small convolutional network with random weights and three classes."""
    torch.manual_seed(0)
    body = (nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    made = nn.Sequential(*body, nn.Linear(144, 3), *head)
    made[1].running_mean.normal_()
    return made.eval()


def script(module: nn.Module, path: Path) -> Path:
    torch.jit.script(module.eval()).save(str(path))
    return path


def export(
    module: nn.Module, path: Path, *examples: torch.Tensor, batch: torch.export.Dim | None = None
) -> Path:
    """Save as a torch.export archive; the batch is dynamic where a dimension is given."""
    shapes = None if batch is None else tuple({0: batch} for _ in examples)
    program = torch.export.export(module.eval(), examples, dynamic_shapes=shapes)
    with path.open("wb") as file:  # torch requires that a path ends in .pt2
        torch.export.save(program, file)
    return path


def rewritten(source: Path, target: Path, member: str, content: bytes) -> Path:
    """Copy a zip archive and replace the content of one member."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        names = old.namelist()
        assert sum(name.endswith(member) for name in names) == 1
        for name in names:
            new.writestr(name, content if name.endswith(member) else old.read(name))
    return target


def node(kind: str, inputs: str, outputs: str, *, domain: str = "", **attributes: object):
    return helper.make_node(kind, inputs.split(), outputs.split(), domain=domain, **attributes)


def tensor(name: str, kind: int, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def graph(
    nodes: Sequence[onnx.NodeProto],
    source: onnx.ValueInfoProto,
    outputs: Sequence[onnx.ValueInfoProto],
    **stored: np.ndarray,
) -> onnx.ModelProto:
    """Return an ONNX model, checked except for operators that are foreign to onnx."""
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [source],
            outputs,
            [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
        ),
        opset_imports=[
            helper.make_opsetid("", 17),
            helper.make_opsetid("ai.onnx.ml", 3),
            helper.make_opsetid("com.microsoft", 1),
        ],
        ir_version=8,
    )
    onnx.checker.check_model(made)
    return made


def save(made: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(made.SerializeToString())
    return path
