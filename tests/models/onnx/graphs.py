"""Small graphs for the tests, each checked by onnx before use."""

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper

KINDS = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int64": TensorProto.INT64}


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def model(
    nodes, stored, shape, *, out="y", opset=17, dtype="float32", out_type="float32", ml=False
):
    source = helper.make_tensor_value_info("x", KINDS[dtype], shape)
    target = helper.make_tensor_value_info(out, KINDS[out_type], ["N", 3] if ml else None)
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "g", [source], [target], tensors)
    opsets = [helper.make_opsetid("", opset)] + (
        [helper.make_opsetid("ai.onnx.ml", 3)] if ml else []
    )
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    made = onnx.shape_inference.infer_shapes(made)  # an output must declare its rank
    onnx.checker.check_model(made)
    return made


def served(made, x):
    """Return the output of onnxruntime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(made.SerializeToString(), options)
    return torch.from_numpy(session.run([made.graph.output[0].name], {"x": x.numpy()})[0])


def random(*shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def slope(made, x, direction, step=1e-2):
    """Return the central difference of the sum of squared outputs of onnxruntime."""

    def value(t):
        return served(made, (x + t * direction).float()).double().square().sum()

    return float((value(step) - value(-step)) / (2 * step))
