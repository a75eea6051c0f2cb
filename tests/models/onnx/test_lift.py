import numpy as np
import onnx
import pytest
import torch
from graphs import model, node, random, served, slope

from audit.errors import ModelError, UnsupportedOperator
from audit.models.onnx import lift

CONV = {"w": random(4, 3, 3, 3), "b": random(4, seed=1)}


def cnn(tail, stored=None, **options):
    """A convolution, a pool, and the given nodes from `p` (B, 4, 3, 3) to `y`."""
    nodes = [
        node("Conv", "x w b", "c", auto_pad="SAME_UPPER", strides=[2, 2]),
        node("Tanh", "c", "t"),
        node("MaxPool", "t", "p", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    ]
    return model([*nodes, *tail], {**CONV, **(stored or {})}, ["N", 3, 12, 12], **options)


def classifier(*tail, classes=5, **options):
    stored = {"v": random(36, classes, scale=0.2)}
    nodes = [node("Flatten", "p", "f"), node("MatMul", "f v", "z"), *tail]
    return cnn(nodes, stored, **options)


def lstm():
    stored = {
        "w": random(2, 20, 4, scale=0.3),
        "r": random(2, 20, 5, seed=1, scale=0.3),
        "b": random(2, 40, seed=2, scale=0.3),
    }
    nodes = [
        node("LSTM", "x w r b", "h", hidden_size=5, direction="bidirectional"),
        node("ReduceMean", "h", "m", axes=[0, 1], keepdims=0),
        node("Sin", "m", "y"),
    ]
    return model(nodes, stored, [6, "N", 4])


def attention():
    nodes = [
        node("MatMul", "x w", "q"),
        node("Attention", "q x x", "a", q_num_heads=2, kv_num_heads=2, is_causal=1),
        node("LayerNormalization", "a s b", "y", axis=-1),
    ]
    stored = {"w": random(8, 8), "s": random(8, seed=1), "b": random(8, seed=2)}
    return model(nodes, stored, ["N", 5, 8], opset=23)


def shapes():
    """Shape arithmetic as exporters write it: N, −1 and a constant joined."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n zero1", "n1"),
        node("Concat", "n1 rest", "target", axis=0),
        node("Reshape", "x target", "flat"),
        node("Cast", "n", "count", to=onnx.TensorProto.FLOAT),
        node("Div", "flat count", "d"),
        node("MatMul", "d w", "y"),
    ]
    stored = {
        "zero": np.array(0),
        "zero1": np.array([0]),
        "rest": np.array([-1]),
        "w": random(12, 3),
    }
    return model(nodes, stored, ["N", 3, 4])


def resize():
    nodes = [
        node("Resize", "x  sizes", "r", mode="cubic", coordinate_transformation_mode="half_pixel"),
        node("GlobalAveragePool", "r", "g"),
        node("Sin", "r", "y"),
    ]
    nodes[0].input[:] = ["x", "", "", "sizes"]
    return model(nodes, {"sizes": np.array([2, 3, 7, 9])}, [2, 3, 5, 5])


GRAPHS = {
    "classifier": (classifier(node("Identity", "z", "y")), (3, 3, 12, 12)),
    "softmax": (classifier(node("Softmax", "z", "y")), (3, 3, 12, 12)),
    "lstm": (lstm(), (6, 3, 4)),
    "attention": (attention(), (2, 5, 8)),
    "shapes": (shapes(), (4, 3, 4)),
    "resize": (resize(), (2, 3, 5, 5)),
}


@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "attention"])
def test_values_and_gradients_are_those_of_the_runtime(name):
    made, shape = GRAPHS[name]
    lifted = lift(made)
    x = torch.from_numpy(random(*shape, seed=5)).requires_grad_()
    y = lifted(x)
    assert (y - served(made, x.detach())).abs().max() < 1e-5
    (gradient,) = torch.autograd.grad(y.double().square().sum(), x)
    direction = gradient / gradient.norm()
    expected = slope(made, x.detach(), direction)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize(
    ("name", "single"),
    [
        ("classifier", (1, 3, 12, 12)),
        ("lstm", (6, 1, 4)),
        ("attention", (1, 5, 8)),
        ("shapes", (1, 3, 4)),
    ],
)
def test_a_batch_by_vmap_is_the_batch_one_by_one(name, single):
    lifted = lift(GRAPHS[name][0])
    x = torch.from_numpy(random(3, *single, seed=6))
    together = torch.func.vmap(lifted.logits)(x)
    assert torch.allclose(together, torch.stack([lifted.logits(one) for one in x]), atol=1e-5)
    slopes = torch.func.vmap(torch.func.grad(lambda one: lifted.logits(one).square().sum()))(x)
    one = x[1].clone().requires_grad_()
    (alone,) = torch.autograd.grad(lifted.logits(one).square().sum(), one)
    assert torch.allclose(slopes[1], alone, atol=1e-4)
    assert torch.allclose(lifted.logits(x[0]), together[0], atol=1e-5)  # nothing wrapped is kept


def test_shapes_are_remembered_per_batch_size():
    lifted = lift(shapes())
    for n in (4, 2, 4, 7, 2):
        x = torch.from_numpy(random(n, 3, 4, seed=n))
        assert torch.allclose(lifted(x), served(shapes(), x), atol=1e-5)


@pytest.mark.parametrize(
    ("tail", "head"),
    [
        ([node("Identity", "z", "y")], "logits"),
        ([node("Softmax", "z", "y", axis=-1)], "probabilities"),
        ([node("LogSoftmax", "z", "y", axis=1)], "log_probabilities"),
        ([node("Softmax", "z", "s"), node("Log", "s", "y")], "log_probabilities"),
        ([node("Softmax", "z", "s"), node("Identity", "s", "y")], "probabilities"),
        ([node("Sigmoid", "z", "y")], "probabilities"),
    ],
)
def test_the_attackable_scores_come_before_the_head(tail, head):
    made = classifier(*tail)
    plain = lift(classifier(node("Identity", "z", "y")))
    lifted = lift(made)
    x = torch.from_numpy(random(2, 3, 12, 12))
    assert lifted.head == head
    assert lifted.differentiable
    assert torch.equal(lifted.logits(x), plain(x))
    assert torch.allclose(lifted(x), served(made, x), atol=1e-6)


@pytest.mark.parametrize("squash", [True, False])
def test_labels_are_served_and_scores_attacked(squash):
    nodes = [node("Softmax", "z", "s"), node("ArgMax", "s", "y", axis=1, keepdims=0)]
    if not squash:
        nodes = [node("ArgMax", "z", "y", axis=1, keepdims=0)]
    made = classifier(*nodes, out_type="int64")
    lifted = lift(made)
    x = torch.from_numpy(random(4, 3, 12, 12))
    assert lifted.head == "labels"
    assert torch.equal(lifted(x), served(made, x))
    assert torch.equal(lifted.logits(x).argmax(1), lifted(x))
    assert lifted.logits(x).shape == (4, 5)


def test_a_head_before_a_move_is_found():
    tail = [
        node("Conv", "p k", "z"),
        node("GlobalAveragePool", "z", "g"),
        node("Softmax", "g", "s", axis=1),
        node("Flatten", "s", "y"),
    ]
    lifted = lift(cnn(tail, {"k": random(6, 4, 1, 1)}))
    x = torch.from_numpy(random(2, 3, 12, 12))
    assert lifted.head == "probabilities"
    assert lifted.logits(x).shape == (2, 6)
    assert torch.allclose(lifted.logits(x).softmax(1), lifted(x), atol=1e-6)


def test_scikit_learn_probabilities_are_the_served_output():
    ml = {"domain": "ai.onnx.ml"}
    nodes = [
        node("Scaler", "x", "s", offset=[0.5] * 4, scale=[2.0] * 4, **ml),
        node(
            "LinearClassifier", "s", "label raw", classlabels_ints=[0, 1, 2], multi_class=1,
            post_transform="LOGISTIC", coefficients=random(12).tolist(),
            intercepts=[0.1, 0.2, 0.3], **ml,
        ),
        node("Normalizer", "raw", "y", norm="L1", **ml),
    ]  # fmt: skip
    made = model(nodes, {}, ["N", 4], ml=True)
    lifted = lift(made)
    x = torch.from_numpy(random(5, 4))
    assert lifted.head == "probabilities"
    assert torch.allclose(lifted(x), served(made, x), atol=1e-6)
    assert torch.equal(lifted.logits(x).argmax(1), lifted(x).argmax(1))
    assert lifted.logits(x).min() < 0


def test_initializers_keep_their_names_and_are_trainable():
    nodes = [
        node("Identity", "model.0.weight", "copy"),
        node("Constant", "", "c", value=onnx.numpy_helper.from_array(random(3, seed=3))),
        node("MatMul", "x copy", "h"),
        node("Add", "h c", "i"),
        node("Reshape", "i shape", "y"),
    ]
    stored = {"model.0.weight": random(4, 3), "shape": np.array([-1, 3])}
    lifted = lift(model(nodes, stored, ["N", 4]))
    weights = lifted.initializers()
    assert set(weights) == {"model.0.weight", "c"}
    assert np.array_equal(weights["model.0.weight"].detach().numpy(), stored["model.0.weight"])
    lifted(torch.ones(2, 4)).sum().backward()
    assert torch.equal(weights["model.0.weight"].grad, torch.full((4, 3), 2.0))
    with torch.no_grad():
        weights["model.0.weight"].zero_()
    assert torch.equal(lifted(torch.ones(1, 4))[0], weights["c"])


@pytest.mark.parametrize("kind", ["Round", "Floor", "Ceil"])
def test_rounding_is_exact_and_passes_gradients(kind):
    made = model(
        [node(kind, "x", "r"), node("Mul", "r two", "y")], {"two": np.float32(2)}, ["N", 3]
    )
    x = torch.tensor([[0.5, -1.5, 7.3], [2.5, 1e6 + 0.5, -0.2]]).requires_grad_()
    y = lift(made)(x)
    assert torch.equal(y, served(made, x.detach()))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, torch.full_like(x, 2.0))


@pytest.mark.parametrize("steps", ["QuantizeLinear DequantizeLinear", "Cast Cast"])
def test_quantisers_are_exact_and_pass_gradients(steps):
    if steps.startswith("Q"):
        nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
        stored = {"s": np.float32(0.1), "z": np.uint8(7)}
    else:
        nodes = [
            node("Cast", "x", "q", to=onnx.TensorProto.UINT8),
            node("Cast", "q", "y", to=onnx.TensorProto.FLOAT),
        ]
        stored = {}
    made = model(nodes, stored, ["N", 3])
    x = torch.tensor([[0.26, 1.21, 3.33]]).requires_grad_()
    lifted = lift(made)
    y = lifted(x)
    assert torch.equal(y, served(made, x.detach()))
    assert lifted.differentiable
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.ones(1, 3))


def test_a_step_function_keeps_its_zero_gradient():
    nodes = [
        node("Greater", "x half", "b"),
        node("Cast", "b", "f", to=onnx.TensorProto.FLOAT),
        node("MatMul", "f w", "y"),
    ]
    made = model(nodes, {"half": np.float32(0.5), "w": random(4, 3)}, ["N", 4])
    lifted = lift(made)
    lifted.requires_grad_(False)
    x = torch.rand(2, 4, requires_grad=True)
    assert not lifted.differentiable
    assert torch.allclose(lifted(x), served(made, x.detach()), atol=1e-6)
    assert not lifted(x).requires_grad


@pytest.mark.parametrize("kind", ["Clip", "Relu"])
def test_a_clip_on_the_input_does_not_mask_gradients(kind):
    nodes = [
        node("Transpose", "x", "t", perm=[0, 2, 1]),
        node(kind, "t", "c"),
        node("Sin", "c", "y"),
    ]
    stored = {}
    if kind == "Clip":
        nodes[1].input.extend(["low", "high"])
        stored = {"low": np.float32(0), "high": np.float32(1)}
    made = model(nodes, stored, ["N", 2, 2])
    x = torch.tensor([[[0.0, -0.1], [1.0, 0.5]]]).requires_grad_()
    y = lift(made)(x)
    assert torch.allclose(y, served(made, x.detach()))
    assert (torch.autograd.grad(y.sum(), x)[0] > 0).all()


def test_an_integer_input_is_differentiated_after_its_cast():
    nodes = [
        node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        node("Cast", "t", "f", to=onnx.TensorProto.FLOAT),
        node("Div", "f m", "d"),
        node("Conv", "d w b", "c"),
        node("GlobalAveragePool", "c", "g"),
        node("Flatten", "g", "y"),
    ]
    made = model(nodes, {**CONV, "m": np.float32(255)}, ["N", 6, 6, 3], dtype="uint8")
    lifted = lift(made)
    assert lifted.input_dtype == torch.uint8
    assert lifted.differentiable
    x = torch.randint(0, 256, (2, 6, 6, 3), dtype=torch.uint8)
    relaxed = x.float().requires_grad_()
    assert torch.allclose(lifted(x), served(made, x), atol=1e-5)
    assert torch.allclose(lifted(relaxed), served(made, x), atol=1e-5)
    assert torch.autograd.grad(lifted(relaxed).sum(), relaxed)[0].abs().sum() > 0


def test_tokens_have_no_gradient():
    nodes = [node("Gather", "table x", "e"), node("ReduceMean", "e", "y", axes=[1], keepdims=0)]
    lifted = lift(model(nodes, {"table": random(9, 4)}, ["N", 5], dtype="int64"))
    assert not lifted.differentiable
    assert lifted(torch.randint(0, 9, (2, 5))).shape == (2, 4)


@pytest.mark.parametrize("known", [True, False])
def test_if_takes_the_branch_of_the_runtime(known):
    def branch(kind, value):
        inner = node(kind, "x c", "r")
        result = onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, None)
        stored = onnx.numpy_helper.from_array(np.float32(value), "c")
        return onnx.helper.make_graph([inner], kind, [], [result], [stored])

    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Equal", "n two" if not known else "two two", "even"),
        node("If", "even", "z", then_branch=branch("Add", 1), else_branch=branch("Mul", 3)),
        node("Tanh", "z", "y"),
    ]
    made = model(nodes, {"zero": np.array(0), "two": np.array(2)}, ["N", 4])
    lifted = lift(made)
    for n in (2, 3, 2):
        x = torch.from_numpy(random(n, 4, seed=n))
        assert torch.allclose(lifted(x), served(made, x), atol=1e-6)


def test_what_is_unknown_is_refused_by_name():
    made = model([node("Det", "x", "y")], {}, ["N", 3, 3])
    made.graph.node[0].name = "the.node"
    with pytest.raises(UnsupportedOperator, match=r"the\.node.*ai\.onnx::Det.*opset 17"):
        lift(made)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (model([node("Gelu", "x", "y")], {}, ["N", 2], opset=20), "unsupported attribute extra"),
        (
            model([node("Conv", "x w", "y")], {"w": CONV["w"]}, ["N", 3, 9, 9]),
            "unsupported attribute extra",
        ),
    ],
)
def test_an_unknown_attribute_is_refused_not_ignored(made, why):
    made.graph.node[0].attribute.append(onnx.helper.make_attribute("extra", 1))
    with pytest.raises(UnsupportedOperator, match=why):
        lift(made)


def test_a_shape_that_is_too_large_is_refused():
    nodes = [node("Expand", "x big", "e"), node("ReduceMean", "e", "y", axes=[0], keepdims=1)]
    lifted = lift(model(nodes, {"big": np.array([2**20, 2**10])}, ["N", 1]))
    with pytest.raises(ModelError, match="at most"):
        lifted(torch.ones(1, 1))


@pytest.mark.parametrize("shape", [(2, 3, 12), (2, 1, 12, 12), (2, 3, 12, 12, 1)])
def test_an_input_of_another_shape_is_refused(shape):
    with pytest.raises(ModelError, match=r"expects.*\?.*3.*12.*12"):
        lift(classifier(node("Identity", "z", "y")))(torch.zeros(shape))


@pytest.mark.parametrize("name", ["y", "late"])
def test_a_circle_ends_in_an_error(name):
    made = model([node("Relu", "x", "h"), node("Softmax", "h", "y")], {}, ["N", 2])
    made.graph.node[0].input[0] = name
    made.graph.node.append(node("Relu", "h", "late"))
    with pytest.raises(ModelError, match="before it is defined"):
        lift(made)


def test_two_inputs_are_refused():
    made = model([node("Add", "x x", "y")], {}, ["N", 2])
    made.graph.input.append(onnx.helper.make_tensor_value_info("mask", 1, [1]))
    with pytest.raises(ModelError, match=r"one input.*x, mask"):
        lift(made)


def test_the_shape_of_what_is_made_from_weights_is_known_at_run_time():
    nodes = [
        node("Transpose", "w", "t", perm=[1, 0]),
        node("Shape", "t", "s"),
        node("ConstantOfShape", "s", "zeros"),
        node("Add", "t zeros", "m"),
        node("MatMul", "x m", "y"),
    ]
    made = model(nodes, {"w": random(3, 4)}, ["N", 4])
    lifted, x = lift(made), torch.from_numpy(random(2, 4, seed=1))
    for rows in (2, 1, 2):
        assert torch.allclose(lifted(x[:rows]), served(made, x[:rows]), atol=1e-6)


def test_statistics_of_a_batch_norm_are_trainable():
    nodes = [node("BatchNormalization", "x s b m v", "y")]
    stored = {name: random(3, seed=i) for i, name in enumerate("sbm")}
    made = model(nodes, stored | {"v": np.abs(random(3, seed=4)) + 1}, ["N", 3, 2])
    lifted, x = lift(made), torch.from_numpy(random(2, 3, 2, seed=5))
    assert torch.allclose(lifted(x), served(made, x), atol=1e-6)
    lifted(x).square().sum().backward()
    assert all(bool(value.grad.any()) for value in lifted.parameters())


def test_wide_unsigned_integers_wrap_and_the_widest_are_refused():
    from audit.models.onnx.operators.arithmetic import _unsigned

    subtract = _unsigned(torch.sub)
    small = torch.tensor([1, 5], dtype=torch.uint16)
    assert subtract(small, torch.tensor([5, 1], dtype=torch.uint16)).tolist() == [65532, 4]
    with pytest.raises(ValueError, match="2\\^63"):
        subtract(torch.tensor([2**64 - 1], dtype=torch.uint64), torch.tensor([0]).to(torch.uint64))
