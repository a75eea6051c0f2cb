"""Reader of untrusted `.onnx` files: opens nothing outside their folder and runs nothing."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto

from audit.errors import ModelError
from audit.models.onnx.flow import attribute, branches, walk

# Limit of a protobuf message; the runtime receives the model as one message.
MAX_BYTES = 2**31 - 1
STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
OLDEST_OPSET = 7
MAX_NODES = 200_000  # an order of magnitude above the largest classifiers in use


def read_model(path: Path, *, allow_domains: frozenset[str] = frozenset()) -> ModelProto:
    """Return the checked model with its external data loaded, ready for a runtime.

    Args:
        path: an `.onnx` file; external data is read only from regular files in its folder.
        allow_domains: operator domains to accept in addition to the standard ones.

    Raises:
        ModelError: the file is missing, too large, not ONNX, broken, stochastic, or uses
            non-standard operators.
    """
    model = _parse_model(path, _bytes(path))
    _load_external(model, path)
    _check_opset(model, path)
    _check_domains(model, path, allow_domains)
    _check_graph(model, path)
    _refuse_training(model)
    return model


def inline_functions(model: ModelProto) -> ModelProto:
    """Return the model with its local functions expanded to operators.

    Raises:
        ModelError: the functions cannot be expanded.
    """
    if not model.functions:
        return model
    _bound_expansion(model)
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # the inliner is native code with its own exceptions
        raise ModelError(
            f"The model's local functions cannot be inlined ({_first(error)}): export it without "
            "them."
        ) from error


def _bound_expansion(model: ModelProto) -> None:
    """Count the expanded nodes first, as nested functions can grow exponentially."""
    bodies = {(body.domain, body.name): list(walk(body.node)) for body in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Iterable[NodeProto], inside: frozenset[tuple[str, str]]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in inside:
                raise ModelError(
                    f"Function {key[0]}::{key[1]} calls itself: export the model again."
                )
            if key in bodies and key not in sizes:
                sizes[key] = size(bodies[key], inside | {key})
            total += sizes.get(key, 1)
        return total

    if size(walk(model.graph.node), frozenset()) > MAX_NODES:
        raise ModelError(
            f"The model's local functions expand to more than {MAX_NODES} nodes: export it "
            "without them."
        )


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ModelError(f"'{path}' is not a file: give the path of an .onnx file.")
        if size > MAX_BYTES:
            raise ModelError(
                f"'{path}' has {size} bytes, but at most {MAX_BYTES} are supported: export a "
                "smaller model."
            )
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError(f"'{path}' cannot be read ({reason}): check the path.") from error
    if not data:
        raise ModelError(
            f"'{path}' is empty, but an ONNX model is expected: copy or export it again."
        )
    return data


def _parse_model(path: Path, data: bytes) -> ModelProto:
    kind = _other_kind(data)
    if kind:
        raise ModelError(
            f"'{path}' is {kind}, but an ONNX model is expected: export the model to ONNX."
        )
    try:
        model = ModelProto.FromString(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise ModelError(
            f"'{path}' is not a complete ONNX model ({_first(error)}): copy or export it again."
        ) from error
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise ModelError(f"'{path}' contains no ONNX graph: copy or export the model again.")
    return model  # type: ignore[no-any-return]


def _other_kind(data: bytes) -> str:
    """Return the kind of file by its first bytes if it is known not to be ONNX, else ""."""
    if data.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer and not the model itself (run `git lfs pull`)"
    if data.startswith(b"PK\x03\x04"):
        return "a zip archive (TorchScript, .pt2 or a checkpoint)"
    if data.startswith(b"\x89HDF"):
        return "an HDF5 file (Keras)"
    head = data[:512]
    if head.lstrip()[:1] in (b"<", b"{", b"#", b"[") and _is_text(head):
        return "a text file"
    return "a text file" if len(data) >= 16 and _is_text(head) else ""


def _is_text(head: bytes) -> bool:
    return all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head)


def _load_external(model: ModelProto, path: Path) -> None:
    tensors = [tensor for tensor in _tensors(model) if _is_external(tensor)]
    if not tensors:
        return
    folder = path.resolve().parent
    total = 0
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        total += _external_size(folder, tensor, entries)
    if total > MAX_BYTES:
        raise ModelError(
            f"The external data of '{path}' has {total} bytes, but at most {MAX_BYTES} are "
            "supported: export a smaller model."
        )
    try:
        onnx.load_external_data_for_model(model, str(folder))
    except Exception as error:  # onnx refuses paths, links and lengths with several exception types
        raise ModelError(
            f"The external data of '{path}' cannot be loaded ({_first(error)}): keep the data "
            "files in the folder of the model."
        ) from error
    if any(_is_external(tensor) for tensor in _tensors(model)):
        raise ModelError(
            f"'{path}' stores external data in a place from which onnx does not load it: export "
            "the model again."
        )


def _external_size(folder: Path, tensor: TensorProto, entries: dict[str, str]) -> int:
    """Return the number of bytes that a tensor would read, before any file is opened."""
    location, length = entries.get("location", ""), entries.get("length", "")
    if length.isascii() and length.isdigit():
        return int(length)
    file = folder / location
    # onnx checks that the location is inside the folder; this only limits the size.
    try:
        return file.lstat().st_size
    except (OSError, ValueError) as error:
        raise ModelError(
            f"Tensor '{tensor.name}' is stored in '{location}', which is missing from the folder "
            "of the model: copy that file next to the model."
        ) from error


def _is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        yield from graph.initializer
        yield from _attribute_tensors(graph.node)
        for node in graph.node:
            graphs.extend(branches(node))
    for function in model.functions:
        yield from _attribute_tensors(walk(function.node))


def _attribute_tensors(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for item in node.attribute:
            if item.HasField("t"):
                yield item.t
            yield from item.tensors


def _check_opset(model: ModelProto, path: Path) -> None:
    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and not OLDEST_OPSET <= entry.version <= newest:
            raise ModelError(
                f"'{path}' uses opset {entry.version}, but opsets {OLDEST_OPSET} to {newest} are "
                "supported: export it again, or convert it with onnx.version_converter."
            )


def _check_domains(model: ModelProto, path: Path, allowed: frozenset[str]) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    bodies = [node for function in model.functions for node in function.node]
    for node in walk([*model.graph.node, *bodies]):
        known = node.domain in STANDARD_DOMAINS | allowed
        if not known and (node.domain, node.op_type) not in own:
            raise ModelError(
                f"In '{path}', node '{node.name}' is {node.domain}::{node.op_type}, which is not a "
                f"standard operator: pass --allow-domain {node.domain} if you trust it."
            )


def _check_graph(model: ModelProto, path: Path) -> None:
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # ValidationError, but also what protobuf and native code raise
        raise ModelError(
            f"'{path}' is not a valid ONNX model ({_first(error)}): export it again."
        ) from error


def _refuse_training(model: ModelProto) -> None:
    constants = {proto.name: proto for proto in model.graph.initializer}
    bodies = [node for function in model.functions for node in function.node]
    for node in walk([*model.graph.node, *bodies]):
        value = attribute(node, "value")
        if node.op_type == "Constant" and value is not None and node.output:
            constants[node.output[0]] = value.t
    for node in walk([*model.graph.node, *bodies]):
        if _is_training(node, constants):
            raise ModelError(
                f"Node '{node.name or node.output[0]}' ({node.op_type}) is in training mode, so "
                "the model's output is random or depends on the batch: export it in evaluation "
                "mode."
            )


def _is_training(node: NodeProto, constants: dict[str, TensorProto]) -> bool:
    if node.op_type == "BatchNormalization":
        mode = attribute(node, "training_mode")
        return mode is not None and mode.i != 0
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] in constants:
        return any(constants[node.input[2]].int32_data) or any(constants[node.input[2]].raw_data)
    return False


def _first(error: BaseException) -> str:
    """Return the first line of a message: the rest is a dump of the model."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
