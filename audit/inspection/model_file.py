"""Facts that a model's file shows before the model is run."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch

from audit.errors import ModelError, UnsupportedOperator
from audit.inspection.fact import Fact
from audit.models import LoadOptions
from audit.models.files import digest, identify


def file_facts(
    path: Path, options: LoadOptions, *, with_data: bool
) -> tuple[list[Fact], tuple[int | None, ...]]:
    """Return the facts that a file shows, and the shape of the model's input as far as known."""
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
    elif not with_data:
        facts.append(("opened", "no, because it can run arbitrary code: pass --trust-model"))
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
        yield "importer", f"not supported: {error}; only attacks without gradients can run"
        return
    yield "importer", "every operator is supported"
    total = sum(parameter.numel() for parameter in module.parameters())
    yield "parameters", f"{total:,} in {len(module.initializers())} float initializers"
    yield "served output", f"{module.output_name} ({module.head})"


def _module_facts(
    module: torch.jit.ScriptModule | torch.export.ExportedProgram,
) -> Iterator[Fact]:
    weights = list(module.parameters())
    total = sum(weight.numel() for weight in weights)
    yield "parameters", f"{total:,} in {len(weights)} tensors"


def _input_shape(proto: onnx.ModelProto) -> tuple[int | None, ...]:
    stored = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in stored]
    if len(inputs) != 1:
        raise ModelError(
            f"The model has {len(inputs)} inputs, but a classifier has one: store the others as "
            "initializers and export the model again."
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
