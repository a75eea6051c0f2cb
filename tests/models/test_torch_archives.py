"""TorchScript and torch.export archives: values, gradients, logits, refusals, trust."""

import logging
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import makers
import pytest
import torch
from torch import Tensor, nn

from audit.errors import ModelError
from audit.models import Classifier, LoadOptions, graph, load_classifier
from audit.models.onnx import OnnxModule
from tests.cli import tiny
from tests.cli.command import Outcome, audit, scan

KINDS = ["scripted", "traced", "frozen", "dynamic", "fixed"]
FIXED = 4
SCRIPT_AND_EXPORT = ["script", "export"]


def inputs(n: int = 7) -> Tensor:
    return torch.rand(n, *makers.SHAPE, generator=torch.Generator().manual_seed(1))


def save(module: nn.Module, folder: Path, how: str) -> Path:
    """An archive of every form; its name says nothing."""
    path, x = folder / f"{how}.bin", inputs(FIXED)
    if how in ("scripted", "script"):
        return makers.script(module, path)
    if how == "traced":
        torch.jit.trace(module, x).save(str(path))
    elif how == "frozen":
        torch.jit.freeze(torch.jit.script(module)).save(str(path))
    else:
        batch = None if how == "fixed" else torch.export.Dim("batch")
        makers.export(module, path, x, batch=batch)
    return path


def load(path: Path, *, x: Tensor | None = None, **options: object) -> Classifier:
    given = LoadOptions(trust_model=True, device="cpu", **options)
    return load_classifier(path, inputs() if x is None else x, given, label_classes=3)


def gradient(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(run(x).square().sum(), x)
    return found


# Values and gradients


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("archives")
    return {how: save(makers.net(), folder, how) for how in KINDS}


@pytest.mark.parametrize("how", KINDS)
def test_values_and_gradients_are_those_of_the_module(archives: dict[str, Path], how: str) -> None:
    module, x = makers.net(), inputs(11)
    classifier = load(archives[how])
    exported = how in ("dynamic", "fixed")
    assert classifier.source.format == ("torch.export" if exported else "torchscript")
    assert classifier.spec.batch == (FIXED if how == "fixed" else None)
    assert (classifier.classes, classifier.output) == (3, "logits")
    assert (classifier.gradient, classifier.notes) == ("native", ())
    expected = module(x).detach()
    assert expected.abs().max() > 0.1
    for found in (classifier.deployed(x), classifier.copied(x), classifier.differentiable(x)):
        torch.testing.assert_close(found.detach(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        gradient(classifier.differentiable, x), gradient(module, x), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("how", KINDS)
def test_parameters_collect_nothing(archives: dict[str, Path], how: str) -> None:
    classifier = load(archives[how])
    assert not classifier.differentiable(inputs()).requires_grad


def test_a_batch_of_limited_size(tmp_path: Path) -> None:
    """Calls have as many rows as the program was exported for, and no more."""
    path = tmp_path / "m"
    makers.export(makers.net(), path, inputs(3), batch=torch.export.Dim("batch", max=5))
    x = inputs(13)
    expected = makers.net()(x).detach()
    torch.testing.assert_close(load(path).deployed(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["scripted", "dynamic"])
def test_a_module_in_double_precision(tmp_path: Path, how: str) -> None:
    module = makers.net().double()
    path = tmp_path / "m"
    if how == "scripted":
        makers.script(module, path)
    else:
        makers.export(module, path, inputs().double(), batch=torch.export.Dim("batch"))
    classifier, x = load(path), inputs()
    assert classifier.spec.dtype == torch.float64
    expected = module(x.double()).float().detach()
    torch.testing.assert_close(classifier.deployed(x), expected)
    assert gradient(classifier.differentiable, x).dtype == torch.float32


def test_an_integer_input_is_rounded_and_differentiated_after_its_cast(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = makers.net()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.float() / 255)

    pixels = (inputs() * 255).round().to(torch.uint8)
    path = makers.export(Scaled(), tmp_path / "m", pixels, batch=torch.export.Dim("batch"))
    classifier = load(path, std=(1 / 255,))
    assert (classifier.spec.dtype, classifier.gradient) == (torch.uint8, "lifted")
    x = pixels.float() / 255
    expected = makers.net()(x).detach()
    near = (x + 0.3 / 255).clamp(0, 1)
    for given in (x, near):
        torch.testing.assert_close(classifier.deployed(given), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        gradient(classifier.differentiable, x), gradient(makers.net(), x), rtol=1e-3, atol=1e-4
    )


# What is attacked behind probabilities and labels


@pytest.mark.parametrize("how", SCRIPT_AND_EXPORT)
def test_the_logits_behind_a_softmax_are_attacked(tmp_path: Path, how: str) -> None:
    module = makers.net(nn.Softmax(dim=1))
    with torch.no_grad():
        module[4].weight.mul_(1000)  # float32 probabilities are exactly 0 and 1
    classifier, x = load(save(module, tmp_path, how)), inputs()
    assert (classifier.output, classifier.gradient) == ("probabilities", "lifted")
    assert classifier.notes == ()
    torch.testing.assert_close(classifier.deployed(x).sum(1), torch.ones(len(x)))
    assert classifier.deployed(x).max() == 1
    torch.testing.assert_close(classifier.copied(x), classifier.deployed(x))
    torch.testing.assert_close(
        classifier.differentiable(x), module[:5](x).detach(), rtol=1e-4, atol=1e-2
    )
    assert gradient(module, x).flatten(1).abs().amax(1).min() < 1e-6
    assert gradient(classifier.differentiable, x).flatten(1).abs().amax(1).min() > 1


@pytest.mark.parametrize("how", SCRIPT_AND_EXPORT)
def test_one_probability_is_that_of_the_second_class(tmp_path: Path, how: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(36, 1)
    module = nn.Sequential(nn.Flatten(), layer, nn.Sigmoid())
    classifier, x = load(save(module, tmp_path, how)), inputs()
    assert (classifier.classes, classifier.output) == (2, "probabilities")
    p, z = module(x).detach(), layer(x.flatten(1)).detach()
    torch.testing.assert_close(classifier.deployed(x), torch.cat([1 - p, p], 1))
    found = classifier.differentiable(x)
    torch.testing.assert_close(found, torch.cat([torch.zeros_like(z), z], 1))


def test_independent_sigmoids_are_attacked_before_them(tmp_path: Path) -> None:
    classifier = load(makers.script(makers.net(nn.Sigmoid()), tmp_path / "m"))
    x = inputs()
    assert classifier.classes == 3
    torch.testing.assert_close(classifier.differentiable(x), makers.net()(x).detach())


def test_logits_that_happen_to_be_small_stay_logits(tmp_path: Path) -> None:
    module = makers.net()
    with torch.no_grad():
        module[4].weight.mul_(1e-3)
        module[4].bias.copy_(torch.tensor([0.4, 0.5, 0.6]))
    classifier = load(makers.script(module, tmp_path / "m"))
    assert (classifier.output, classifier.gradient) == ("logits", "native")


class Top(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = makers.net()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).argmax(1)


@pytest.mark.parametrize("how", SCRIPT_AND_EXPORT)
def test_a_module_of_labels_is_attacked_through_its_scores(tmp_path: Path, how: str) -> None:
    classifier, x = load(save(Top(), tmp_path, how)), inputs()
    assert (classifier.output, classifier.gradient, classifier.classes) == ("labels", "lifted", 3)
    assert torch.equal(classifier.deployed(x).sum(1), torch.ones(len(x)))
    assert torch.equal(classifier.predict(x), makers.net()(x).argmax(1))
    torch.testing.assert_close(classifier.differentiable(x), makers.net()(x).detach())


# The parity gate: a graph that computes something else is not used


def test_a_graph_has_the_values_and_logits_of_its_module() -> None:
    module, x = makers.net(nn.Softmax(dim=1)), inputs()
    for form in (torch.jit.script(module), torch.export.export(module, (x,))):
        lifted = graph.as_graph(form, x)
        assert (lifted.head, lifted.differentiable) == ("probabilities", True)
        torch.testing.assert_close(lifted(x), module(x))
        torch.testing.assert_close(lifted.logits(x), makers.net()(x))


@pytest.fixture(params=["shifted", "not a number", "other shape"])
def wrong_graph(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter makes a mistake."""

    def lift(model: object) -> OnnxModule:
        lifted = real(model)
        weight = max(lifted.parameters(), key=torch.numel)
        with torch.no_grad():
            weight.mul_(1.5 if request.param == "shifted" else torch.nan)
        if request.param == "other shape":
            forward = lifted.forward
            lifted.forward = lambda x: forward(x)[:, :2]
        return lifted

    real = graph.lift
    monkeypatch.setattr(graph, "lift", lift)


@pytest.mark.usefixtures("wrong_graph")
def test_a_graph_that_differs_is_refused() -> None:
    for form in (torch.jit.script(makers.net()), torch.export.export(makers.net(), (inputs(),))):
        with pytest.raises(ModelError, match="does not compute what the model computes"):
            graph.as_graph(form, inputs())


@pytest.mark.usefixtures("wrong_graph")
def test_without_a_graph_the_probabilities_are_attacked(tmp_path: Path) -> None:
    module, x = makers.net(nn.Softmax(dim=1)), inputs()
    classifier = load(makers.script(module, tmp_path / "m"))
    assert (classifier.output, classifier.gradient) == ("probabilities", "native")
    assert "does not compute" in classifier.notes[0]
    assert "log-probabilities" in classifier.notes[0]
    expected = module(x).log().detach()
    torch.testing.assert_close(classifier.differentiable(x), expected)


@pytest.mark.usefixtures("wrong_graph")
def test_without_a_graph_one_probability_keeps_its_decision(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 1), nn.Sigmoid())
    with torch.no_grad():
        module[1].weight.mul_(20)
        module[1].bias.copy_(-module[1].weight.sum() / 2)
    classifier, x = load(makers.script(module, tmp_path / "m")), inputs(40)
    assert len(classifier.predict(x).unique()) == 2
    assert torch.equal(classifier.differentiable(x).argmax(1), classifier.predict(x))
    assert gradient(classifier.differentiable, x).isfinite().all()


def test_without_a_graph_labels_are_only_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_graph(module: object, example: Tensor) -> OnnxModule:
        raise ModelError("The model's graph cannot be read: it is too tangled.")

    monkeypatch.setattr(graph, "as_graph", as_graph)
    classifier = load(makers.script(Top(), tmp_path / "m"))
    assert (classifier.output, classifier.gradient, classifier.white_box) == (
        "labels", "none", None,
    )  # fmt: skip
    assert "No gradients: The model's graph cannot be read" in classifier.notes[0]
    assert torch.equal(classifier.predict(inputs()), makers.net()(inputs()).argmax(1))


# What is no classifier of one tensor


class Sum(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x + y).flatten(1)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flatten(1), x.flatten(1)


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": x.flatten(1)}


def one_sentence(error: ModelError) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 600
    assert text.endswith(".")
    return text


@pytest.mark.parametrize("how", SCRIPT_AND_EXPORT)
def test_two_inputs_are_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "m"
    if how == "script":
        makers.script(Sum(), path)
    else:
        makers.export(Sum(), path, inputs(2), inputs(2), batch=torch.export.Dim("batch"))
    with pytest.raises(ModelError) as caught:
        load(path)
    text = one_sentence(caught.value)
    assert "one tensor" in text
    assert "2 inputs" in text


@pytest.mark.parametrize("module", [Pair(), Named()], ids=["tuple", "dict"])
@pytest.mark.parametrize("how", SCRIPT_AND_EXPORT)
def test_several_outputs_are_refused(tmp_path: Path, how: str, module: nn.Module) -> None:
    with pytest.raises(ModelError, match="one tensor of scores") as caught:
        load(save(module, tmp_path, how))
    one_sentence(caught.value)


@pytest.mark.parametrize("how", SCRIPT_AND_EXPORT)
def test_one_score_of_no_probability_is_a_logit(tmp_path: Path, how: str) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    with torch.no_grad():
        module[1].bias.sub_(3)
    classifier, x = load(save(module, tmp_path, how)), inputs()
    assert (classifier.classes, classifier.output) == (2, "logits")
    assert torch.equal(classifier.deployed(x)[:, 0], torch.zeros(len(x)))


@pytest.mark.parametrize("how", SCRIPT_AND_EXPORT)
def test_samples_of_another_size_are_refused(archives: dict[str, Path], how: str) -> None:
    path = archives["scripted" if how == "script" else "dynamic"]
    with pytest.raises(ModelError, match="shape") as caught:
        load(path, x=torch.rand(3, 2, 7, 7))
    one_sentence(caught.value)


# Through the command: trust, and one sentence


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.write_data(tmp_path / "data.npz", *makers.images())


def attempt(model: Path, data: Path, out: Path, *options: str) -> Outcome:
    words = ("--out", out, "--attack", "fgsm", "--delta", "0.1", "--threat", "linf", *options)
    return audit("scan", model, "--data", data, *words)


def refused(outcome: Outcome, out: Path) -> str:
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("audit: ")
    assert outcome.err.count("\n") == 1
    assert "internal error" not in outcome.err
    assert not out.exists()
    return outcome.err


class Touch:
    """Unpickling one makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


class Writer(nn.Module):
    """Calling one makes a file."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.marker = str(marker)

    def forward(self, x: Tensor) -> Tensor:
        # The value is used: the compiler removes what is not.
        return x.flatten(1)[:, :10] + 0 * torch.from_file(self.marker, shared=True, size=4)[0]


class Loaded(nn.Module):
    """A module whose pickle makes a file."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.payload = Touch(marker)


def malicious_script(folder: Path, marker: Path) -> Path:
    return makers.script(Writer(marker), folder / "evil")


def malicious_export(folder: Path, marker: Path) -> Path:
    good = makers.export(makers.linear(), folder / "good", inputs(2))
    payload = folder / "payload"
    torch.save(((Touch(marker),), {}), payload)  # what it claims to have been exported with
    evil = folder / "evil"
    return makers.rewritten(good, evil, "data/sample_inputs/model.pt", payload.read_bytes())


def malicious_module(folder: Path, marker: Path) -> Path:
    torch.save(Loaded(marker), folder / "evil")
    return folder / "evil"


def malicious_pickle(folder: Path, marker: Path) -> Path:
    (folder / "evil").write_bytes(pickle.dumps(Touch(marker)))
    return folder / "evil"


MALICIOUS = {
    "script": malicious_script,
    "export": malicious_export,
    "module": malicious_module,
    "pickle": malicious_pickle,
}


@pytest.mark.parametrize("name", ["m.pt", "m.pt2", "m.onnx"])
@pytest.mark.parametrize("kind", MALICIOUS)
def test_nothing_is_opened_without_trust(tmp_path: Path, data: Path, kind: str, name: str) -> None:
    marker, out = tmp_path / "marker", tmp_path / "out"
    model = MALICIOUS[kind](tmp_path, marker).rename(tmp_path / name)
    refused(attempt(model, data, out), out)
    refused(audit("inspect", model, "--data", data), out)
    audit("inspect", model)
    assert not marker.exists()
    if kind in ("script", "export"):
        assert "--trust-model" in refused(attempt(model, data, out), out)
        # The same file does what it is made for once it is trusted.
        attempt(model, data, out, "--trust-model")
        assert marker.exists()
    else:
        # A pickle is no served model: trust does not open it either.
        refused(attempt(model, data, out, "--trust-model"), out)
        assert not marker.exists()


@pytest.mark.parametrize("how", SCRIPT_AND_EXPORT)
def test_a_trusted_file_is_scanned(tmp_path: Path, data: Path, how: str) -> None:
    model, out = save(makers.linear(nn.Softmax(dim=1)), tmp_path, how), tmp_path / "out"
    assert "--trust-model" in refused(attempt(model, data, out), out)
    report = scan(
        model, data, "--trust-model", "--attack", "pgd", "--threat", "linf", "--delta", "0.1,0.3",
        out=out,
    )  # fmt: skip
    assert report["model"]["format"] == ("torchscript" if how == "script" else "torch.export")
    assert report["model"]["gradient"] == "lifted"
    assert {entry["id"]: entry["status"] for entry in report["health"]}["output"] == "pass"
    clean, *attacked = [p["attacked"]["value"] for p in report["threats"][0]["curves"][0]["points"]]
    assert report["clean"]["value"] > 0.8
    assert attacked[-1] < 0.5 * report["clean"]["value"]
    assert clean >= attacked[0]


def test_a_script_that_torch_cannot_read_back(tmp_path: Path, data: Path) -> None:
    """torch itself saves what it cannot load."""
    model, out = tmp_path / "m.pt", tmp_path / "out"
    torch.jit.optimize_for_inference(torch.jit.script(makers.net())).save(str(model))
    said = refused(attempt(model, data, out, "--trust-model"), out)
    assert "torch cannot load" in said
    assert "without torch.jit.optimize_for_inference, or export it to ONNX" in said


@pytest.mark.parametrize(
    "member", ["models/model.json", "archive_version", "data/sample_inputs/model.pt"]
)
def test_an_export_that_torch_cannot_read_back(tmp_path: Path, data: Path, member: str) -> None:
    good = makers.export(makers.linear(), tmp_path / "good", inputs(2))
    model, out = makers.rewritten(good, tmp_path / "m.pt2", member, b"{"), tmp_path / "out"
    said = refused(attempt(model, data, out, "--trust-model"), out)
    assert "torch cannot load" in said
    assert "Save it again" in said


def test_torch_logs_nothing_to_the_terminal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It would warn, with a traceback, that part of the file is a pickle of any kind."""
    load(malicious_export(tmp_path, tmp_path / "marker"))
    assert (tmp_path / "marker").exists()
    assert [entry for entry in caplog.records if entry.levelno >= logging.WARNING] == []
