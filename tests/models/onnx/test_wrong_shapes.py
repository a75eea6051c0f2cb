"""Tensors that do not belong together are refused as the runtime refuses them; none is broadcast.

Torch's own LSTM reads and writes beyond a state of another batch, which ends the process.
"""

import itertools

import numpy as np
import pytest
import torch
from graphs import node, random, served
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from audit.errors import AuditError, UnsupportedOperator
from audit.models.onnx import lift

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
STEPS, BATCH, WIDTH, SIZE = 5, 4, 3, 2
OPTIONAL = {"RNN": ("b", "l", "h"), "GRU": ("b", "l", "h"), "LSTM": ("b", "l", "h", "c", "p")}


def shapes(kind, directions):
    """The shape of every input, time first."""
    gates = GATES[kind]
    return {
        "x": (STEPS, BATCH, WIDTH),
        "w": (directions, gates * SIZE, WIDTH),
        "r": (directions, gates * SIZE, SIZE),
        "b": (directions, 2 * gates * SIZE),
        "l": (BATCH,),
        "h": (directions, BATCH, SIZE),
        "c": (directions, BATCH, SIZE),
        "p": (directions, 3 * SIZE),
    }


def values(sizes):
    made = {name: random(*size, seed=len(name) + size[0]) for name, size in sizes.items()}
    made["l"] = np.random.default_rng(0).integers(0, STEPS + 1, sizes["l"]).astype(np.int32)
    return made


def cell(kind, direction, tensors, given, *, size=SIZE, layout=0):
    """A graph with the given optional inputs; its output is all outputs of the cell, joined."""
    order = ("x", "w", "r", *OPTIONAL[kind])
    names = [name if name in {"x", "w", "r", *given} else "" for name in order]
    attributes = {"layout": 1} if layout else {}
    outputs = ["y", "last", "memory"][: 3 if kind == "LSTM" else 2]
    one = helper.make_node(
        kind, names, outputs, name="cell", direction=direction, hidden_size=size, **attributes
    )
    flat = [node("Flatten", name, f"{name}_flat", axis=0) for name in outputs]
    joined = helper.make_node("Concat", [f"{name}_flat" for name in outputs], ["z"], axis=1)
    rank = tensors["x"].ndim
    return helper.make_model(
        helper.make_graph(
            [one, *flat, joined],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * rank)],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", "M"])],
            [
                numpy_helper.from_array(tensors[name], name)
                for name in names
                if name not in ("x", "")
            ],
        ),
        opset_imports=[helper.make_opsetid("", 14)],
        ir_version=8,
    )


def ours(made, x):
    with torch.no_grad():
        return lift(made)(torch.from_numpy(x))


def runtimes(made, x):
    """What onnxruntime computes, None where it refuses."""
    try:
        return served(made, torch.from_numpy(x))
    except Exception:  # whatever it raises, it is a refusal
        return None


def compare(made, x):
    """Refused exactly where the runtime refuses, else equal to it; whether it was refused."""
    expected = runtimes(made, x)
    if expected is None:
        with pytest.raises(AuditError, match="'cell'"):
            ours(made, x)
        return True
    assert torch.allclose(ours(made, x), expected, atol=1e-5)
    return False


def resized(value, axis, size):
    """The array with another size along one axis."""
    return np.take(value, np.arange(size) % value.shape[axis], axis)


CELLS = list(itertools.product(GATES, DIRECTIONS))


@pytest.mark.parametrize(("kind", "direction"), CELLS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_wrong_shape_is_refused_where_the_runtime_refuses_it(kind, direction, data):
    """Any input, any axis, any subset of the optional inputs, perhaps several wrong at once."""
    sizes = shapes(kind, DIRECTIONS[direction])
    given = data.draw(st.sets(st.sampled_from(OPTIONAL[kind])), "given")
    tensors = values(sizes)
    for name in data.draw(st.sets(st.sampled_from(("x", "w", "r", *given)), max_size=2), "wrong"):
        axis = data.draw(st.integers(0, tensors[name].ndim - 1), "axis")
        size = data.draw(st.sampled_from((1, 2, 3, 5, 7, 64)), "size")
        tensors[name] = resized(tensors[name], axis, size)
    size = data.draw(st.sampled_from((SIZE, SIZE, SIZE, 1, 3)), "hidden size")
    compare(cell(kind, direction, tensors, given, size=size), tensors["x"])


@pytest.mark.parametrize(("kind", "direction"), CELLS)
def test_every_single_wrong_shape_is_refused(kind, direction):
    given = OPTIONAL[kind]
    right = values(shapes(kind, DIRECTIONS[direction]))
    assert not compare(cell(kind, direction, right, given), right["x"])
    for name, value in right.items():
        if name not in ("x", "w", "r", *given):
            continue
        wrong = [resized(value, axis, n + 1) for axis, n in enumerate(value.shape)]
        wrong += [resized(value, axis, 1) for axis, n in enumerate(value.shape) if n > 1]
        for other in (*wrong, value[None]):
            tensors = {**right, name: other}
            refused = compare(cell(kind, direction, tensors, given), tensors["x"])
            # Another number of steps is no contradiction unless a length is beyond it.
            assert refused or (name == "x" and other.shape[1:] == value.shape[1:])


@pytest.mark.parametrize(("kind", "direction"), CELLS)
@pytest.mark.parametrize("lengths", [[6, 1, 1, 1], [-1, 1, 1, 1], [0, 0, 0, 0], [5, 0, 2, 1]])
def test_lengths_out_of_range_are_refused_and_sequences_of_none_end_in_zeros(
    kind, direction, lengths
):
    tensors = values(shapes(kind, DIRECTIONS[direction]))
    tensors["l"] = np.array(lengths, np.int32)
    refused = compare(cell(kind, direction, tensors, OPTIONAL[kind]), tensors["x"])
    assert refused == (min(lengths) < 0 or max(lengths) > STEPS)


@pytest.mark.parametrize("kind", GATES)
def test_a_wrong_shape_is_refused_with_the_batch_first(kind):
    """The runtime has no kernel for this layout: the axes are those of the standard."""
    given = [name for name in OPTIONAL[kind] if name not in ("l", "p")]
    right = values(shapes(kind, 2))
    for name in {"x", "h", "c"}.intersection(right):
        right[name] = right[name].swapaxes(0, 1).copy()
    ours(cell(kind, "bidirectional", right, given, layout=1), right["x"])
    for name in ("x", "w", "r", *given):
        for axis, n in enumerate(right[name].shape):
            if name == "x" and axis == 1:  # the steps are free
                continue
            tensors = {**right, name: resized(right[name], axis, n + 1)}
            with pytest.raises(UnsupportedOperator, match="expected"):
                ours(cell(kind, "bidirectional", tensors, given, layout=1), tensors["x"])


def test_the_message_names_the_node_what_was_found_and_what_was_expected():
    tensors = values(shapes("LSTM", 1))
    tensors["h"] = resized(tensors["h"], 1, 64)
    with pytest.raises(UnsupportedOperator, match="initial_h") as caught:
        ours(cell("LSTM", "forward", tensors, ["h"]), tensors["x"])
    text = str(caught.value)
    assert "node 'cell'" in text
    assert "[1, 64, 2], expected [1, 4, 2]" in text


def one(kind, inputs, stored, x, **attributes):
    """A graph of one operator on `x`, unchecked, and an input for it."""
    graph = helper.make_graph(
        [node(kind, inputs, "y", **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * x.ndim)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * x.ndim)],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), x


def indices(*rows):
    return np.array(rows, np.int64)


IMAGE = random(2, 4, 5, 5)
TABLE = random(3, 4)
FOUR = {name: random(4, seed=i) ** 2 for i, name in enumerate("sbmv")}
WRONG = {
    "gather beyond its row": one("GatherND", "x i", {"i": indices([0, 5])}, TABLE),
    "gather before its row": one("GatherND", "x i", {"i": indices([1, -5])}, TABLE),
    "scatter beyond its row": one(
        "ScatterND", "x i u", {"i": indices([0, 4]), "u": random(1)}, TABLE
    ),
    "scatter of too much": one("ScatterND", "x i u", {"i": indices([0, 1]), "u": random(2)}, TABLE),
    "scatter of more elements": one(
        "ScatterElements", "x i u", {"i": indices([0]), "u": random(2, 2)}, TABLE
    ),
    "gather beyond": one("Gather", "x i", {"i": indices(3)}, TABLE),
    "gather far before": one("Gather", "x i", {"i": indices(-4)}, TABLE),
    "gather elements beyond": one(
        "GatherElements", "x i", {"i": indices([0, 1, 4])}, TABLE, axis=1
    ),
    "batch normalisation of one mean": one(
        "BatchNormalization", "x s b m v", {**FOUR, "m": random(1)}, IMAGE
    ),
    "transposed convolution with one bias": one(
        "ConvTranspose", "x w b", {"w": random(4, 3, 2, 2), "b": random(1)}, IMAGE
    ),
    "convolution without a batch": one("Conv", "x w", {"w": random(3, 4, 2, 2)}, IMAGE[0]),
    "pool without a batch": one("MaxPool", "x", {}, IMAGE[0], kernel_shape=[2, 2]),
    "mean without a batch": one("AveragePool", "x", {}, IMAGE[0], kernel_shape=[2, 2]),
    "reversed beyond its length": one("ReverseSequence", "x l", {"l": indices(9, 1, 1, 1)}, TABLE),
    "a bias larger than the product": one(
        "Gemm", "x w c", {"w": random(4, 1), "c": random(3, 5)}, TABLE
    ),
    "a scale larger than the input": one(
        "LayerNormalization", "x s", {"s": random(4)}, TABLE[:, :1]
    ),
    "axes out of range": one("Unsqueeze", "x a", {"a": indices(7)}, TABLE),
    "parts that are not equal": one("Split", "x", {}, TABLE[:, :3], axis=1),
    "a product along no axis": one("ReduceProd", "x", {}, TABLE, axes=[5]),
    "pads for other axes": one("Pad", "x p", {"p": indices(1, 1, 1, 1, 1, 1)}, TABLE),
}
WRONG["parts that are not equal"][0].graph.node[0].output.append("rest")


@pytest.mark.parametrize("name", [*WRONG])
def test_what_the_runtime_refuses_is_refused(name):
    """With trained weights and gradients too: that is another path through some operators."""
    made, x = WRONG[name]
    assert runtimes(made, x) is None
    with pytest.raises(AuditError):
        ours(made, x)
    with pytest.raises(AuditError):
        lift(made)(torch.from_numpy(x).requires_grad_())


def test_attention_is_refused_where_heads_keys_or_mask_do_not_belong_together():
    q, k = random(2, 4, 3, 8), random(2, 2, 5, 8)
    right = {"k": k, "v": random(2, 2, 5, 6), "m": random(2, 1, 3, 5)}

    def build(tensors):
        made, _ = one("Attention", "x k v m", tensors, q)
        made.opset_import[0].version = 23
        return made

    assert torch.allclose(ours(build(right), q), served(build(right), torch.from_numpy(q)))
    for name, value in right.items():
        for axis, n in enumerate(value.shape):
            other = {**right, name: resized(value, axis, n + 1)}
            if (name, axis) == ("v", 3):  # the size of a value is free
                continue
            assert runtimes(build(other), q) is None
            with pytest.raises(AuditError):
                ours(build(other), q)
