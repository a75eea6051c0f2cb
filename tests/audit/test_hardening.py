"""Hardening: paired statistics, inner attacks, which weights move, and the loop that is resumed."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from attackers.geometry import METRICS, NORMS
from attackers.losses import cross_entropy
from attackers.random_streams import SampleGenerator
from attackers.threat import Threat
from attackers.wagan.networks import Spec
from audit.errors import ModelError, UsageError
from audit.evidence.samples import Samples
from audit.generators.resuming import RunIdentity
from audit.hardening import loop
from audit.hardening.adversaries import (
    Mixed,
    Pgd,
    Wdro,
    adversarial_loss,
    divergence,
    trades_loss,
)
from audit.hardening.before_after import lost_classes
from audit.hardening.co_training import CoTrained
from audit.hardening.config import threats_of
from audit.hardening.hardening_state import HardeningState, restore_state, save_state
from audit.hardening.plan import EpochRecord, HardeningPlan, Hyperparameters
from audit.hardening.schedules import SCHEDULES, constant
from audit.hardening.weights import open_trainable
from audit.models import LoadOptions, load_classifier
from audit.options import HardenConfig
from audit.statistics.pairs import paired, paired_points
from tests.models import makers

# Paired comparison --------------------------------------------------------------------------------


def booleans(*runs: tuple[bool, int]) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    return np.concatenate([np.full(count, value) for value, count in runs])


def test_paired_counts_and_the_exact_test() -> None:
    before = booleans((True, 50), (False, 30), (False, 12), (True, 3))
    after = booleans((True, 50), (False, 30), (True, 12), (False, 3))
    found = paired(before, after, 0.95)
    assert (found.gained, found.lost) == (12, 3)
    assert found.before == 53 / 95
    assert found.after == 62 / 95
    assert found.difference.value == pytest.approx(9 / 95)
    # P(X <= 3) + P(X >= 12) for X ~ B(15, 1/2).
    assert found.p_value == pytest.approx(2 * (1 + 15 + 105 + 455) / 2**15)
    # Clopper-Pearson of 12 of 15: (0.51911, 0.95669).
    assert found.difference.low == pytest.approx((2 * 0.51911 - 1) * 15 / 95, abs=1e-5)
    assert found.difference.high == pytest.approx((2 * 0.95669 - 1) * 15 / 95, abs=1e-5)


def test_without_a_change_there_is_no_difference() -> None:
    same = booleans((True, 4), (False, 3))
    found = paired(same, same, 0.95)
    assert found.difference.value == found.difference.low == found.difference.high == 0
    assert found.p_value == 1
    with pytest.raises(ValueError, match="two equally long, non-empty arrays"):
        paired(same, same[:-1], 0.95)


def test_intervals_of_the_difference_hold_as_often_as_they_say() -> None:
    rng, inside = np.random.default_rng(0), 0
    gain, loss = 0.12, 0.05
    for _ in range(400):
        u = rng.random(200)
        before = (u < loss) | (u > 0.6)
        after = ((u >= loss) & (u < loss + gain)) | (u > 0.6)
        found = paired(before, after, 0.9).difference
        changed = (before != after).sum()
        # The claim is given how many changed: the share of gains among them.
        truth = (2 * gain / (gain + loss) - 1) * changed / 200
        inside += found.low <= truth <= found.high
    assert inside >= 0.88 * 400


def test_budgets_are_compared_one_by_one() -> None:
    before = (np.array([0.0, 0.1, 0.3]), np.array([0.0, 0.05, 0.1]))
    after = (np.array([0.0, 0.2, np.inf]), np.array([0.0, 0.15, 0.2]))
    (point,) = paired_points(before, after, (0.0, 0.12), 0.95)
    assert (point.attacked.before, point.attacked.after) == (1 / 3, 2 / 3)
    assert (point.certified.before, point.certified.after) == (0, 2 / 3)


# Inner attacks ------------------------------------------------------------------------------------


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)
    ).eval()


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def batch(seed: int = 0, size: int = 12) -> tuple[nn.Module, Tensor, Tensor]:
    model = network()
    x = torch.rand(size, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model, x, model(x).argmax(1)


def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", METRICS)
def test_inner_attacks_stay_inside_and_raise_the_loss(name: str) -> None:
    metric = METRICS[name]()
    radius = {"linf": 0.1, "l2": 0.7, "l1": 4.0, "wasserstein": 0.3}[name]
    model, x0, labels = batch()
    x = Pgd(metric, radius, 10)(model, x0, labels, random())
    assert not x.requires_grad
    assert bool((metric.distance(x0, x) <= radius * (1 + 1e-5)).all())
    assert bool(((x >= 0) & (x <= 1)).all())
    noise = Pgd(metric, radius, 0)(model, x0, labels, random())
    with torch.no_grad():
        clean, moved, shaken = (cross_entropy(model(z), labels).mean() for z in (x0, x, noise))
    assert moved > shaken
    assert moved - clean > 3 * (shaken - clean).abs()


def test_wdro_spends_one_budget_over_the_batch() -> None:
    model, x0, labels = batch()
    metric = NORMS["l2"]()
    x = Wdro(Threat(metric, 0.5, 2.0), 5)(model, x0, labels, random())
    moved = metric.distance(x0, x)
    assert float(moved.square().mean().sqrt()) <= 0.5 * (1 + 1e-5)
    assert float(moved.max()) > 0.53, "some get more than the average"
    assert float(moved.min()) < 0.45, "and some less"


def test_mixed_gives_every_part_its_share() -> None:
    model, x0, labels = batch()
    linf, l2 = NORMS["linf"](), NORMS["l2"]()
    x = Mixed((Pgd(linf, 0.02, 3), Pgd(l2, 1.0, 3)))(model, x0, labels, random())
    small = linf.distance(x0, x) <= 0.02 * (1 + 1e-6)
    assert int(small.sum()) == 6


def weight_gradient(model: nn.Module, loss: Tensor) -> Tensor:
    return torch.autograd.grad(loss, next(iter(model.parameters())))[0]


def test_attacks_are_outside_the_graph_of_the_weights() -> None:
    model, x0, labels = batch()
    attack = Pgd(NORMS["linf"](), 0.1, 4)
    x = attack(model, x0, labels, random())
    expected = weight_gradient(model, functional.cross_entropy(model(x), labels))
    found = weight_gradient(model, adversarial_loss(model, attack, x0, labels, random()))
    torch.testing.assert_close(found, expected)
    half = weight_gradient(model, adversarial_loss(model, attack, x0, labels, random(), clean=0.5))
    clean = weight_gradient(model, functional.cross_entropy(model(x0), labels))
    torch.testing.assert_close(half, (clean + expected) / 2)


def test_trades_is_cross_entropy_and_a_divergence() -> None:
    model, x0, labels = batch()
    attack = Pgd(NORMS["linf"](), 0.1, 4, divergence)
    still = replace(attack, radius=1e-9)
    clean = functional.cross_entropy(model(x0), labels)
    assert float(trades_loss(model, still, x0, labels, random()).detach()) == pytest.approx(
        float(clean.detach()), abs=1e-5
    )
    one, six = (
        float(trades_loss(model, attack, x0, labels, random(), beta=b).detach()) for b in (1, 6)
    )
    apart = (six - one) / 5
    assert apart > 0
    assert one == pytest.approx(float(clean.detach()) + apart, rel=1e-4)


def test_the_divergence_is_the_one_of_the_paper() -> None:
    p, scores = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.0, 1.0, 2.0]])
    q = scores.softmax(1)
    found = float(divergence(scores, p.log()))
    assert found == pytest.approx(float((p * (p / q).log()).sum()))


def test_trades_stays_finite_where_a_probability_underflows() -> None:
    model, x0, labels = batch()
    sure = nn.Sequential(model, Scaled(1e4))
    loss = trades_loss(sure, Pgd(NORMS["linf"](), 0.1, 2, divergence), x0, labels, random())
    grads = torch.autograd.grad(loss, list(sure.parameters()))
    assert all(bool(grad.isfinite().all()) for grad in grads)


# Weights ------------------------------------------------------------------------------------------


def onnx_net(path: Path, *, raw: bool = True) -> Path:
    """Normalisation, convolution, batch norm, a transposed dense layer with its bias apart."""
    rng = np.random.default_rng(0)
    arrays = {
        "mean": np.float32([0.1]).reshape(1, 1, 1),
        "scale": np.float32([2.0]).reshape(1, 1, 1),
        "conv.weight": rng.normal(size=(3, 1, 3, 3)).astype(np.float32),
        "bn.scale": np.ones(3, np.float32),
        "bn.bias": np.zeros(3, np.float32),
        "bn.mean": np.zeros(3, np.float32),
        "bn.var": np.ones(3, np.float32),
        "dense": rng.normal(size=(4, 108)).astype(np.float32) / 10,
        "dense.bias": np.zeros(4, np.float32),
    }
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "conv.weight"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node(
            "BatchNormalization", ["c", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["b"]
        ),
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Transpose", ["dense"], ["dense.T"]),
        helper.make_node("MatMul", ["f", "dense.T"], ["m"]),
        helper.make_node("Add", ["m", "dense.bias"], ["scores"]),
    ]

    def stored(name: str, value: "np.ndarray[Any, Any]") -> TensorProto:
        if raw:
            return numpy_helper.from_array(value, name)
        return helper.make_tensor(name, TensorProto.FLOAT, value.shape, value.ravel())

    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 6, 6])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 4])],
        [stored(name, value) for name, value in arrays.items()],
        doc_string="kept",
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8, producer_name="test"
    )
    model.metadata_props.add(key="owner", value="somebody")
    onnx.save(model, path)
    return path


def opened(path: Path, **options: Any) -> Any:
    x = torch.rand(16, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    loading = LoadOptions(trust_model=True, device="cpu")
    classifier = load_classifier(path, x[:8], loading)
    return classifier, open_trainable(path, classifier, loading, x, **options), x


@pytest.mark.parametrize("raw", [True, False])
def test_only_values_of_layers_change_in_an_onnx_file(tmp_path: Path, raw: bool) -> None:
    path = onnx_net(tmp_path / "m.onnx", raw=raw)
    _, model, x = opened(path)
    assert set(model.weights) == {
        "conv.weight", "bn.scale", "bn.bias", "dense", "dense.bias",
    }  # fmt: skip
    assert {"bn.mean", "bn.var", "mean", "scale"} <= set(model.frozen)
    before = model.logits(x).detach()
    model.load({name: value + 0.1 for name, value in model.values().items()})
    hardened = tmp_path / "h.onnx"
    hardened.write_bytes(model.file())
    onnx.checker.check_model(onnx.load(hardened), full_check=True)
    served = load_classifier(hardened, x[:8], LoadOptions(device="cpu"))
    torch.testing.assert_close(served.deployed(x), model.logits(x).detach(), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, served.deployed(x))
    assert skeleton(onnx.load(path)) == skeleton(onnx.load(hardened))
    old, new = values(onnx.load(path)), values(onnx.load(hardened))
    for name, value in old.items():
        if name in model.weights:
            np.testing.assert_allclose(new[name], value + 0.1, rtol=1e-6)
        else:
            np.testing.assert_array_equal(new[name], value)


def values(model: onnx.ModelProto) -> dict[str, "np.ndarray[Any, Any]"]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def skeleton(model: onnx.ModelProto) -> bytes:
    """Everything but the values of initializers."""
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
    return bytes(model.SerializeToString(deterministic=True))


def test_frozen_weights_stay(tmp_path: Path) -> None:
    path = onnx_net(tmp_path / "m.onnx")
    _, model, _ = opened(path, freeze=("conv.*", "bn.*"))
    assert set(model.weights) == {"dense", "dense.bias"}
    assert {"conv.weight", "bn.scale"} <= set(model.frozen)
    with pytest.raises(UsageError, match=r"--freeze head\.\* matches no weight"):
        opened(path, freeze=("head.*",))
    with pytest.raises(UsageError, match="leaves no weight"):
        opened(path, freeze=("*",))


def archives(folder: Path) -> Iterator[Path]:
    module = makers.net()
    yield makers.script(module, folder / "m.pt")
    yield makers.export(
        module, folder / "m.pt2", torch.rand(4, 1, 6, 6), batch=torch.export.Dim("batch")
    )


def test_torch_archives_come_back_as_what_they_were(tmp_path: Path) -> None:
    for path in archives(tmp_path):
        classifier, model, x = opened(path)
        before = classifier.deployed(x)
        torch.testing.assert_close(model.logits(x).detach(), before, rtol=1e-5, atol=1e-5)
        model.load({name: value * 1.3 for name, value in model.values().items()})
        hardened = tmp_path / f"hardened-{path.name}"
        hardened.write_bytes(model.file())
        again, _, _ = opened(hardened)
        assert again.source.format == classifier.source.format
        torch.testing.assert_close(
            again.deployed(x), model.logits(x).detach(), rtol=1e-5, atol=1e-5
        )
        assert not torch.allclose(again.deployed(x), before)


def test_what_cannot_be_trained_is_refused_with_the_reason(tmp_path: Path) -> None:
    frozen = torch.jit.freeze(torch.jit.script(makers.net()))
    frozen.save(str(tmp_path / "frozen.pt"))
    with pytest.raises(ModelError, match="frozen TorchScript"):
        opened(tmp_path / "frozen.pt")
    makers.script(makers.net(nn.Softmax(1)), tmp_path / "soft.pt")
    with pytest.raises(ModelError, match="serves probabilities"):
        opened(tmp_path / "soft.pt")
    path = onnx_net(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
    onnx.save(model, tmp_path / "labels.onnx")
    with pytest.raises(ModelError, match="labels only"):
        opened(tmp_path / "labels.onnx")
    quantised = onnx.load(path)
    quantised.graph.initializer.extend(
        [
            numpy_helper.from_array(np.float32(0.1), "q.scale"),
            numpy_helper.from_array(np.uint8(0), "q.zero"),
        ]
    )
    parts = ["q.scale", "q.zero"]
    quantised.graph.node.insert(0, helper.make_node("QuantizeLinear", ["x", *parts], ["q"]))
    quantised.graph.node.insert(1, helper.make_node("DequantizeLinear", ["q", *parts], ["d"]))
    quantised.graph.node[2].input[0] = "d"
    onnx.save(quantised, tmp_path / "q.onnx")
    with pytest.raises(ModelError, match="quantised"):
        opened(tmp_path / "q.onnx")


# The loop -----------------------------------------------------------------------------------------


class Learning:
    """A trained adversary that counts its refreshes."""

    def __init__(self) -> None:
        self.state = torch.zeros(3)

    def refresh(self, epoch: int) -> None:
        if self.state[0] <= epoch:
            self.state = torch.tensor([epoch + 1.0, 1.5 * float(self.state[1]) + epoch, 1.0])

    def tensors(self) -> dict[str, Tensor]:
        return {"state": self.state}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.state = tensors["state"]


def training(tmp_path: Path, **changed: Any) -> HardeningPlan:
    _, model, _ = opened(onnx_net(tmp_path / "m.onnx"))
    x = torch.rand(50, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    labels = (x.mean((1, 2, 3)) * 40).long() % 4
    opponent = Learning()

    def loss(logits: Any, x0: Tensor, wanted: Tensor, random: torch.Generator) -> Tensor:
        noise = torch.randn(x0.shape, generator=random) * 0.1 + float(opponent.state.mean()) / 1e3
        return functional.cross_entropy(logits(x0 + noise), wanted)

    def validate() -> EpochRecord:
        with torch.no_grad():
            right = float((model.logits(x).argmax(1) == labels).double().mean())
        return {"clean": right, "attacked": right, "evaluation": right, "accepted": True}

    plan = Hyperparameters(
        epochs=3, batch=16, rate=0.01, schedule="cosine", average=0.9, seed=0, seconds=None
    )
    made = HardeningPlan(
        model, x, labels, loss, plan, validate, RunIdentity({"model": "m"}, {}), opponent
    )
    return replace(made, **changed)


def finished(
    made: HardeningPlan, at: HardeningState, path: Path, stop: int | None = None
) -> HardeningState:
    def tick(done: int) -> None:
        if stop is not None and at.number >= stop:
            raise KeyboardInterrupt

    loop.train_model(made, at, path, tick, lambda entry: None)
    return at


def test_a_run_that_stops_anywhere_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    made = training(tmp_path)
    whole = finished(made, HardeningState.of(made.model), path)
    assert len(whole.history) == 3
    assert whole.best_epoch is not None
    for stop in range(1, 9):
        made = training(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            finished(made, HardeningState.of(made.model), path, stop)
        again = training(tmp_path)
        halves = finished(again, restore_state(again, path), path)
        assert halves.history == whole.history
        assert halves.best_epoch == whole.best_epoch
        for part in ("weights", "first", "second", "average", "best"):
            for name, value in getattr(whole, part).items():
                assert torch.equal(getattr(halves, part)[name], value), (stop, part, name)


def co_trained(monkeypatch: pytest.MonkeyPatch) -> CoTrained:
    monkeypatch.setattr("audit.hardening.co_training.REFRESH_STEPS", 3)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 4))
    x = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    return CoTrained(
        Spec("flow", 1, 28, 28), model, x, torch.arange(20) % 4,
        radius=0.3, every=2, seed=0, device=torch.device("cpu"),
    )  # fmt: skip


def test_a_generator_learns_once_per_refresh_wherever_it_was_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = co_trained(monkeypatch)
    for epoch, steps in ((0, 3), (0, 3), (1, 3), (2, 6)):
        whole.refresh(epoch)
        assert whole.state.number == steps
    stopped = co_trained(monkeypatch)
    stopped.refresh(0)
    monkeypatch.setattr("audit.hardening.co_training.REFRESH_STEPS", 2)
    stopped.refresh(2)  # stops after four steps of six
    assert stopped.state.number == 4
    again = co_trained(monkeypatch)
    again.restore(stopped.tensors())
    again.refresh(2)
    for name, value in whole.tensors().items():
        assert torch.equal(again.tensors()[name], value), name
    x = again.x[:4]
    made = again(again.logits, x, again.labels[:4], random())
    assert bool((METRICS["wasserstein"]().distance(x, made) <= 0.3).all())
    assert not torch.equal(made, x)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    made = training(tmp_path)
    save_state(made, HardeningState.of(made.model), path)
    with pytest.raises(UsageError, match="a different model file"):
        restore_state(replace(made, identity=RunIdentity({"model": "n"}, {})), path)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ModelError, match="cannot be read"):
        restore_state(made, path)


def test_only_accepted_epochs_are_kept(tmp_path: Path) -> None:
    verdicts = iter([(0.5, False), (0.4, True), (0.3, True)])

    def validate() -> EpochRecord:
        attacked, accepted = next(verdicts)
        return {"clean": 1.0, "attacked": attacked, "evaluation": 0.9, "accepted": accepted}

    made = training(tmp_path, validate=validate)
    at = finished(made, HardeningState.of(made.model), tmp_path / "c")
    assert at.best_epoch == 2


def test_the_time_budget_ends_training(tmp_path: Path) -> None:
    made = training(tmp_path)
    made = replace(made, hyperparameters=replace(made.hyperparameters, seconds=1e-6))
    at = finished(made, HardeningState.of(made.model), tmp_path / "c")
    assert at.number == 1
    assert len(at.history) == 1, "what was reached is judged all the same"


def test_a_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    made = training(tmp_path)
    broken = replace(made, loss=lambda *batch: made.loss(*batch) * torch.nan)
    with pytest.raises(ModelError, match="not finite"):
        finished(broken, HardeningState.of(broken.model), tmp_path / "c")


def test_adam_is_torchs_adam(tmp_path: Path) -> None:
    made = training(tmp_path, adversary=None)
    made = replace(
        made, hyperparameters=replace(made.hyperparameters, epochs=1, schedule="constant")
    )
    at = finished(made, HardeningState.of(made.model), tmp_path / "c")
    other = training(tmp_path, adversary=None)
    optimiser = torch.optim.Adam(other.model.weights.values())
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    for number in range(3):
        rows = order[16 * number : 16 * number + 16]
        random = torch.Generator().manual_seed(number)
        loss = other.loss(other.model.logits, other.x[rows], other.labels[rows], random)
        for group in optimiser.param_groups:
            group["lr"] = 0.01 * constant((number + 1) / 3)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for name, value in other.model.weights.items():
        torch.testing.assert_close(at.weights[name], value.detach())


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_rise_and_end_low(name: str) -> None:
    shares = [SCHEDULES[name](done / 100) for done in range(1, 101)]
    assert shares[0] < 0.5
    assert max(shares) <= 1
    assert all(a >= b for a, b in itertools.pairwise(shares[10:]))


# Options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "luck"}, "Unknown method 'luck'"),
        ({"metrics": ("l3",)}, "Unknown threat 'l3'"),
        ({"schedule": "none"}, "Unknown schedule"),
        ({"radii": (0.1, 0.2)}, "one number per --threat"),
        ({"metrics": ("linf", "l2"), "radii": (0.1, 1.0)}, "several need --with mixed"),
        ({"method": "wagan"}, "--threat wasserstein"),
        ({"radii": (0.0,)}, "--radius must be positive"),
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"rate": 0.0}, "--rate must be positive"),
        ({"seconds": -1.0}, "--time-budget must be positive"),
        ({"min_clean": 1.0}, "--min-clean must be"),
        ({"order": 1.0}, "--order of wdro"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        HardenConfig(**options)


def test_threats_have_their_radii() -> None:
    config = HardenConfig(method="mixed", metrics=("linf", "l2"), radii=(0.1, 1.0), high=255.0)
    assert [(m.name, m.high, r) for m, r in threats_of(config)] == [
        ("linf", 255.0, 0.1), ("l2", 255.0, 1.0),
    ]  # fmt: skip


# Classes ------------------------------------------------------------------------------------------


def judged(labels: list[int], correct: list[bool]) -> Samples:
    n = len(labels)
    return Samples(
        index=torch.arange(n),
        x=torch.zeros(n, 1),
        labels=torch.tensor(labels),
        prediction=torch.zeros(n, dtype=torch.long),
        correct=torch.tensor(correct),
        generator=SampleGenerator(tuple(range(n))),
    )


@pytest.mark.parametrize(("left", "warned"), [(0, True), (1, True), (2, False), (10, False)])
def test_a_class_of_which_next_to_nothing_is_left_is_named(left: int, warned: bool) -> None:
    labels = [0] * 300 + [1] * 12
    before = judged(labels, [True] * 310 + [False] * 2)
    after = judged(labels, [True] * (300 + left) + [False] * (12 - left))
    said = list(lost_classes(before, after, ("common", "rare")))
    assert len(said) == warned
    for sentence in said:
        assert "class 1 (rare)" in sentence
        assert f"of its 12 evaluation samples 10 were classified correctly before and {left}" in (
            sentence
        )
        assert "--min-clean" in sentence


def test_a_class_that_was_never_right_is_not_given_up() -> None:
    before, after = judged([0, 3], [True, False]), judged([0, 3], [True, False])
    assert list(lost_classes(before, after, None)) == []
    assert "class 0:" in next(lost_classes(before, judged([0, 3], [False, True]), None))
