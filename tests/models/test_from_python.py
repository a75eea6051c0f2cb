"""Models given in Python: a module is copied and differentiated, a function is only called."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import makers
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attackers import ATTACKS
from attackers.geometry import METRICS
from attackers.random_streams import SampleGenerator
from attackers.threat import Threat
from audit.errors import ModelError, UsageError
from audit.models import Classifier, LoadOptions, load_callable, load_classifier, load_module
from audit.models.from_module import state_digest

CPU = LoadOptions(device="cpu")


def inputs(n: int = 11) -> Tensor:
    return torch.rand(n, *makers.SHAPE, generator=torch.Generator().manual_seed(1))


def trained() -> nn.Sequential:
    """A module in training mode, with everything that evaluation mode changes."""
    module = makers.net()
    return nn.Sequential(module[:3], nn.Dropout(0.5), module[3:]).train()


def gradient(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(run(x).square().sum(), x)
    return found


# Modules


def test_a_module_has_its_values_gradients_and_graph() -> None:
    module, x = makers.net(), inputs()
    found = load_module(module, x, CPU, 3)
    assert (found.classes, found.output, found.gradient, found.notes) == (3, "logits", "native", ())
    expected = module(x).detach()
    for scores in (found.deployed(x), found.copied(x), found.differentiable(x)):
        torch.testing.assert_close(scores.detach(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        gradient(found.differentiable, x), gradient(module, x), rtol=1e-4, atol=1e-6
    )
    assert not found.differentiable(x).requires_grad
    assert found.graph is not None
    torch.testing.assert_close(found.graph()(x), expected, rtol=1e-4, atol=1e-5)


def test_the_callers_module_stays_as_it_is() -> None:
    module, x = trained(), inputs()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = load_module(module, x, CPU, 3)
    expected = trained().eval()(x).detach()
    torch.testing.assert_close(found.deployed(x), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(found.deployed(x), found.deployed(x))
    gradient(found.differentiable, x)
    assert all(part.training for part in module.modules())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    with torch.no_grad():
        module[2][1].weight.zero_()
    assert torch.equal(found.deployed(x), found.deployed(x))
    torch.testing.assert_close(found.deployed(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_a_module_is_attacked_as_its_file_is(tmp_path: Path, name: str) -> None:
    module = makers.linear()
    path = makers.script(module, tmp_path / "m")
    images, labels = makers.images(20)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    given = load_module(module, x, CPU, 10)
    stored = load_classifier(path, x, LoadOptions(trust_model=True, device="cpu"))
    assert torch.equal(given.predict(x), stored.predict(x))
    assert (given.predict(x) == y).float().mean() > 0.8
    a, b = (attacked(model, name, x, y) for model in (given, stored))
    assert torch.equal(a, b)
    assert (given.predict(a) == y).float().mean() < 0.5


def attacked(model: Classifier, name: str, x: Tensor, y: Tensor) -> Tensor:
    generator = SampleGenerator.seeded([row.numpy().tobytes() for row in x], 0)
    threat = Threat(METRICS["linf"](low=0.0, high=1.0), 0.3)
    return ATTACKS[name](model.differentiable, x, y, threat, generator=generator)


def test_the_digest_is_that_of_the_state() -> None:
    module, x = makers.net(), inputs()
    source = load_module(module, x, CPU, 3).source
    assert (source.path, source.format) == ("Sequential", "torch.nn.Module")
    assert source.sha256 == state_digest(makers.net())
    assert len(source.sha256) == len(hashlib.sha256().hexdigest())
    others = [makers.net(), makers.net().double(), nn.Sequential(makers.net())]
    with torch.no_grad():
        others[0][1].running_mean[0] += 1
    assert len({source.sha256, *map(state_digest, others)}) == 4
    nn.init.normal_(module[0].weight)
    assert state_digest(module) != source.sha256


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_module_of_another_dtype_gets_inputs_of_it(dtype: torch.dtype) -> None:
    module, x = makers.net().to(dtype), inputs()
    found = load_module(module, x, CPU, 3)
    assert found.spec.dtype == dtype
    torch.testing.assert_close(found.deployed(x), module(x.to(dtype)).float().detach())
    assert gradient(found.differentiable, x).dtype == torch.float32


def test_a_module_of_mixed_dtypes_is_refused_with_its_own_exception() -> None:
    module = makers.net()
    module[4].double()
    with pytest.raises(ModelError, match=r"fails on inputs of shape \(8, 1, 6, 6\)") as caught:
        load_module(module, inputs(), CPU, 3)
    assert isinstance(caught.value.__cause__, RuntimeError)


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("no such layer")


def test_an_exception_of_the_module_is_the_cause() -> None:
    with pytest.raises(ModelError, match="no such layer") as caught:
        load_module(Raises(), inputs(), CPU, 3)
    assert isinstance(caught.value.__cause__, KeyError)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1), x.flatten(1)


class Pooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(0)


@pytest.mark.parametrize(
    ("module", "said"), [(Pair(), "returns a tuple"), (Pooled(), "one row of scores per sample")]
)
def test_other_outputs_are_refused(module: nn.Module, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load_module(module, inputs(), CPU, 3)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = makers.net()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) if x.sum() > 0 else -self.inner(x)


class Counts(nn.Module):
    """A module whose factor is a Python number that a trace holds as a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = makers.net()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(x) * self.calls


@pytest.mark.parametrize(
    ("module", "said"),
    [(Branches(), "may depend on the values"), (Counts(), "does not compute")],
)
def test_without_a_trace_there_is_no_graph(module: nn.Module, said: str) -> None:
    x = inputs()
    found = load_module(module, x, CPU, 3)
    assert found.graph is None
    assert found.gradient == "native"
    (note,) = found.notes
    assert note.startswith("No bounds through the network's operations: ")
    assert said in note
    assert gradient(found.differentiable, x).abs().max() > 0


def test_a_module_that_writes_to_its_input_leaves_the_samples(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Hardtanh(0.4, 0.6, inplace=True), makers.net()).eval()
    x = inputs(32)
    kept = x.clone()
    path = makers.script(module, tmp_path / "m")
    stored = load_classifier(path, x, LoadOptions(trust_model=True, device="cpu"))
    for found in (load_module(module, x, CPU, 3), stored):
        found.deployed(x)
        gradient(found.differentiable, x)
        assert torch.equal(x, kept)


def test_the_logits_behind_a_softmax_are_attacked() -> None:
    x = inputs()
    found = load_module(makers.net(nn.Softmax(dim=1)), x, CPU, 3)
    assert (found.output, found.gradient) == ("probabilities", "lifted")
    torch.testing.assert_close(found.differentiable(x), makers.net()(x).detach())


def test_a_column_of_probabilities_is_cut_at_one_half() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 1), nn.Sigmoid())
    found = load_module(module, inputs(), CPU, 2)
    assert (found.classes, found.output) == (2, "probabilities")


class Top(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = makers.net()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).argmax(1)


def test_a_module_of_labels_is_attacked_through_its_scores() -> None:
    x = inputs()
    found = load_module(Top(), x, CPU, None)
    assert (found.output, found.gradient, found.classes) == ("labels", "lifted", 3)
    assert torch.equal(found.predict(x), makers.net()(x).argmax(1))


def test_what_is_not_a_module_is_refused() -> None:
    with pytest.raises(UsageError, match="found an object of type str"):
        load_module("model.onnx", inputs(), CPU, 3)  # type: ignore[arg-type]


def test_a_module_that_cannot_be_copied_is_refused() -> None:
    module = makers.net()
    module.computed = module[4].weight * 2
    with pytest.raises(ModelError, match="cannot be copied") as caught:
        load_module(module, inputs(), CPU, 3)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_module_without_values_is_refused() -> None:
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(ModelError, match=r"'1\.weight' has no values yet|'1\.bias' has no values"):
        load_module(lazy, inputs(), CPU, 3)


# Functions

NET = makers.net()


def of_tensors(x: Tensor) -> Tensor:
    return NET(x)


def of_arrays(x: np.ndarray) -> np.ndarray:
    assert isinstance(x, np.ndarray)
    assert x.dtype == np.float32
    return NET(torch.from_numpy(x)).detach().numpy()


def of_lists(x: np.ndarray) -> list[list[float]]:
    return of_arrays(x).tolist()


def of_rows(x: np.ndarray) -> list[Tensor]:
    return list(NET(torch.from_numpy(x)))


@pytest.mark.parametrize(
    ("function", "form"),
    [
        (of_tensors, "torch tensors"),
        (NET, "torch tensors"),
        (of_arrays, "NumPy arrays"),
        (of_lists, "NumPy arrays"),
        (of_rows, "NumPy arrays"),
    ],
)
def test_a_function_has_scores_alone(function: Callable[..., object], form: str) -> None:
    x = inputs(40)
    found = load_callable(function, x, CPU, 3)
    assert (found.classes, found.output, found.gradient) == (3, "logits", "none")
    assert (found.copy, found.attackable, found.graph) == (None, None, None)
    assert "No gradients" in found.notes[0]
    assert f"is called with {form} of type float32 and 32 rows" in found.notes[1]
    torch.testing.assert_close(found.deployed(x), NET(x).detach(), rtol=1e-5, atol=1e-6)
    assert found.source.format == "callable"


class Wrapper:
    def predict(self, x: np.ndarray) -> np.ndarray:
        return of_arrays(x).argmax(1)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return of_arrays(x)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (of_arrays, "of_arrays"),
        (partial(partial(of_arrays)), "of_arrays"),
        (Wrapper(), "Wrapper"),
        (Wrapper().predict, "Wrapper.predict"),
    ],
)
def test_the_source_is_the_qualified_name(function: Callable[..., object], name: str) -> None:
    assert load_callable(function, inputs(), CPU, 3).source.path == f"{__name__}.{name}"


@pytest.mark.parametrize("known", [3, None])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_labels_alone_become_scores(known: int | None, shape: tuple[int, ...]) -> None:
    def function(x: np.ndarray) -> np.ndarray:
        return (np.rint(x.reshape(len(x), -1)[:, 0] * 2)).astype(np.int32).reshape(shape)

    x = inputs(40)
    found = load_callable(function, x, CPU, known)
    assert (found.output, found.classes, found.gradient) == ("labels", 3, "none")
    expected = (x.flatten(1)[:, 0] * 2).round().long()
    assert torch.equal(found.deployed(x), nn.functional.one_hot(expected, 3).float())


def test_counts_of_votes_are_scores() -> None:
    def function(x: np.ndarray) -> np.ndarray:
        first = (x.reshape(len(x), -1) > 0.5).sum(1)
        return np.stack([first, 36 - first], 1)

    found = load_callable(function, inputs(), CPU)
    assert (found.output, found.classes) == ("logits", 2)


def test_probabilities_of_a_function_are_recognised() -> None:
    def columns(x: np.ndarray) -> np.ndarray:
        return torch.from_numpy(of_arrays(x)).softmax(1).numpy()

    def column(x: np.ndarray) -> np.ndarray:
        return columns(x)[:, 0]

    several, one = (load_callable(function, inputs(), CPU) for function in (columns, column))
    assert (several.output, several.classes) == ("probabilities", 3)
    assert (one.output, one.classes) == ("probabilities", 2)
    x = inputs()
    assert one.predict(x).tolist() == (column(x.numpy()) > 0.5).astype(int).tolist()


def test_a_function_that_writes_to_its_input_leaves_the_samples() -> None:
    def function(x: np.ndarray) -> np.ndarray:
        scores = of_arrays(x.copy())
        x[:] = 0
        return scores

    x = inputs(32)
    kept = x.clone()
    load_callable(function, x, CPU).deployed(x)
    assert torch.equal(x, kept)


def fails(x: object) -> object:
    raise ZeroDivisionError("the scaler has no rows")


def wants_more(x: object) -> object:
    raise TypeError("two arguments are needed")


@pytest.mark.parametrize(
    ("function", "cause", "said"),
    [
        (fails, ZeroDivisionError, "the scaler has no rows"),
        (wants_more, TypeError, "both as a NumPy array .* and as a torch tensor"),
    ],
)
def test_an_exception_of_the_function_is_the_cause(
    function: Callable[..., object], cause: type[Exception], said: str
) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        load_callable(function, inputs(), CPU)
    assert isinstance(caught.value.__cause__, cause)


def test_an_exception_of_a_later_call_is_reported_too() -> None:
    def function(x: np.ndarray) -> np.ndarray:
        if x.max() > 5:
            raise ValueError("a value beyond 5")
        return of_arrays(x)

    found = load_callable(function, inputs(), CPU)
    with pytest.raises(ModelError, match="a value beyond 5") as caught:
        found.deployed(inputs() + 6)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda x: None, "numbers are expected"),
        (lambda x: np.array(["cat"] * len(x)), "numbers are expected"),
        (lambda x: [[1.0], [1.0, 2.0]], "not an array of numbers"),
        (lambda x: np.zeros(3), "one row of scores per sample"),
        (lambda x: 1.0, "one row of scores per sample"),
    ],
)
def test_other_results_are_refused(result: Callable[..., object], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load_callable(result, inputs(), CPU)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(UsageError, match="found an object of type int"):
        load_callable(3, inputs(), CPU)  # type: ignore[arg-type]
