"""Training a generator and scanning with it, from the command line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tiny
from command import audit, read_report, scan
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from attackers.wagan.training import step

SHAPE = (1, 28, 28)
L2 = ("--threat", "l2", "--delta", "0.5,1.5", "--samples", "20", "--certify", "none")


@dataclass(frozen=True)
class Case:
    folder: Path
    model: Path
    train: Path
    test: Path

    @property
    def generator(self) -> Path:
        return self.folder / "generator.safetensors"

    def learn(self, *options: object, out: Path | None = None) -> Any:
        words = ("--data", self.train, "--radius", 2.0, "--epochs", 2, "--batch-size", 32, *options)
        return audit("train-attacker", self.model, *words, "--out", out or self.generator)


def strokes(n: int, *, seed: int = 1) -> tuple[tiny.Floats, NDArray[np.int64]]:
    """A class is a row of light on a dark image: transport between so few pixels is cheap."""
    rng = np.random.default_rng(seed)
    x, y = np.zeros((n, *SHAPE), dtype=np.float32), rng.integers(0, tiny.CLASSES, n)
    for image, label in zip(x, y, strict=True):
        image[0, 4 + 2 * label, 8:20] = 0.3 + 0.6 * rng.random(12)
    return x, y


def matched() -> tuple[tiny.Floats, tiny.Floats]:
    """Weight and bias that add up the light in each class's row."""
    weight = np.zeros((*SHAPE, tiny.CLASSES), dtype=np.float32)
    for label in range(tiny.CLASSES):
        weight[0, 4 + 2 * label, 8:20, label] = 1
    return weight.reshape(-1, tiny.CLASSES), np.zeros(tiny.CLASSES, dtype=np.float32)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("attacker")
    weight, bias = matched()
    model = tiny.write_linear(folder / "m.onnx", weight, bias, shape=("n", *SHAPE))
    train = tiny.write_data(folder / "train.npz", *strokes(256))
    test = tiny.write_data(folder / "test.npz", *strokes(60, seed=2))
    case = Case(folder, model, train, test)
    done = case.learn()
    assert done.code == 0, done.err
    assert done.err == ""
    return case


def record(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="np") as file:
        return dict(json.loads((file.metadata() or {})["wasserstein-audit"])["training"])


def test_a_file_says_what_it_was_trained_for(case: Case) -> None:
    written = record(case.generator)
    assert written["variant"] == "wagan"
    assert written["radius"] == 2.0
    assert len(written["model_sha256"]) == len(written["data_sha256"]) == 64
    assert written["steps"] == 2 * (230 // 32 + 1 - 1)
    assert [entry["epoch"] for entry in written["history"]] == [1, 2]
    assert all(0 <= entry["judged"] <= entry["clean"] for entry in written["history"])
    assert not case.generator.with_name("generator.safetensors.checkpoint").exists()


@pytest.fixture(scope="module")
def moved(case: Case) -> dict[str, Any]:
    """The one scan that moves mass: its own checks take long."""
    return scan(
        case.model, case.test, "--threat", "wasserstein", "--delta", "0.1,2.0", "--samples", "6",
        "--effort", "quick", "--certify", "none", "--generator", case.generator,
        out=case.folder / "moved",
    )  # fmt: skip


def test_a_scan_uses_it_and_says_so(case: Case, moved: dict[str, Any]) -> None:
    (threat,) = moved["threats"]
    first = threat["attacks"][0]
    assert first["name"] == "wagan"
    assert first["status"] == "ran"
    assert first["gradients"] == 0, "forward passes of the generator are all that quick spends"
    assert first["broken"] > 0
    assert "trained for this model" in first["detail"]
    used = moved["generator"]
    assert used["transfer"] is False
    assert used["head"] == "flow"
    made = used["as_generated"]
    assert made["samples"] == made["planned"] == 6
    assert 0.5 <= made["wasserstein"]["largest"] <= 2.0
    assert made["mass_ratio"]["smallest"] > 1 - 1e-5
    assert made["mass_ratio"]["largest"] < 1 + 1e-5
    assert moved["config"]["generator"] == str(case.generator)
    assert f"--generator {case.generator}" in moved["config"]["command"]


def test_alone_it_is_the_only_attack(case: Case, tmp_path: Path) -> None:
    document = scan(
        case.model, case.test, *L2, "--generator", case.generator, "--attack", "wagan",
        "--effort", "quick", out=tmp_path / "out", code=4,
    )  # fmt: skip
    attacks = document["threats"][0]["attacks"]
    assert [entry["name"] for entry in attacks] == ["wagan", "w-fgsm"]


def test_refined_breaks_what_it_does_not_break_alone(case: Case, tmp_path: Path) -> None:
    broken = {}
    for effort in ("quick", "standard"):
        document = scan(
            case.model, case.test, *L2, "--generator", case.generator, "--attack", "wagan",
            "--effort", effort, out=tmp_path / effort, code=4 if effort == "quick" else 0,
        )  # fmt: skip
        broken[effort] = document["threats"][0]["attacks"][0]["broken"]
    assert broken["standard"] > broken["quick"]


def test_another_model_is_a_transfer_attack(case: Case, tmp_path: Path) -> None:
    weight, bias = matched()
    other = tiny.write_linear(tmp_path / "o.onnx", 2 * weight, 2 * bias, shape=("n", *SHAPE))
    document = scan(other, case.test, *L2, "--generator", case.generator, out=tmp_path / "o")
    assert document["generator"]["transfer"] is True
    assert "a transfer attack" in document["threats"][0]["attacks"][0]["detail"]


def test_a_model_without_gradients_is_attacked_by_transfer(case: Case, tmp_path: Path) -> None:
    weight, bias = matched()
    labels = tiny.write_linear(
        tmp_path / "l.onnx", weight, bias, shape=("n", *SHAPE), step="Greater"
    )
    outcome = audit(
        "scan", labels, "--data", case.test, *L2, "--generator", case.generator, "--out",
        tmp_path / "out",
    )  # fmt: skip
    assert outcome.code in (0, 4), outcome.err
    attacks = read_report(tmp_path / "out")["threats"][0]["attacks"]
    assert attacks[0]["name"] == "wagan"
    assert attacks[0]["status"] == "ran"


def test_trained_within_a_scan(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    document = scan(
        case.model, case.test, *L2, "--train-data", case.train, "--effort", "quick", out=out
    )
    assert document["generator"]["path"] == str(out / "generator.safetensors")
    assert record(out / "generator.safetensors")["options"]["epochs"] == 2


def test_the_same_seed_gives_the_same_file(case: Case, tmp_path: Path) -> None:
    assert case.learn(out=tmp_path / "again.safetensors").code == 0
    assert (tmp_path / "again.safetensors").read_bytes() == case.generator.read_bytes()
    assert case.learn("--seed", 1, out=tmp_path / "other.safetensors").code == 0
    first, other = (load_file(p) for p in (case.generator, tmp_path / "other.safetensors"))
    assert any(not np.array_equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("stopped_at", [3, 7, 9])
@pytest.mark.parametrize("options", [(), ("--average", "0.9"), ("--head", "image")])
def test_an_interrupted_run_goes_on_to_the_same_generator(
    case: Case, tmp_path: Path, stopped_at: int, options: tuple[str, ...]
) -> None:
    whole, halves = tmp_path / "whole.safetensors", tmp_path / "halves.safetensors"
    assert case.learn(*options, out=whole).code == 0
    calls = iter(range(1, 100))

    def interrupted(*args: Any, **named: Any) -> Any:
        if next(calls) == stopped_at:
            raise KeyboardInterrupt
        return step(*args, **named)

    with mock.patch("audit.generators.loop.step", interrupted):
        outcome = case.learn(*options, out=halves)
    assert outcome.code == 130
    assert f"after {stopped_at - 1} steps" in outcome.err
    assert not halves.exists()
    resumed = case.learn(*options, "--resume", out=halves)
    assert resumed.code == 0, resumed.err
    assert halves.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.checkpoint"))


def test_resuming_with_other_options_is_refused(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "g.safetensors"
    with mock.patch("audit.generators.loop.step", side_effect=KeyboardInterrupt):
        assert case.learn(out=out).code == 130
    refused = case.learn("--resume", "--radius", "0.2", out=out)
    assert refused.code == 2
    assert "written with radius 2.0, now it is 0.2" in refused.err


# What is wrong ------------------------------------------------------------------------------------


def damaged(case: Case, folder: Path) -> Iterator[tuple[Path, str]]:
    missing = folder / "missing.safetensors"
    yield missing, "cannot be read as a safetensors file"
    text = folder / "text.safetensors"
    text.write_text("no tensors at all")
    yield text, "cannot be read as a safetensors file"
    cut = folder / "cut.safetensors"
    cut.write_bytes(case.generator.read_bytes()[:-1000])
    yield cut, "cannot be read as a safetensors file"
    tensors = load_file(case.generator)
    with safe_open(case.generator, framework="np") as file:
        said = json.loads((file.metadata() or {})["wasserstein-audit"])

    def saying(**changed: object) -> dict[str, str]:
        return {"wasserstein-audit": json.dumps({**said, **changed})}

    foreign = folder / "foreign.safetensors"
    save_file(tensors, foreign)
    yield foreign, "of kind None"
    newer = folder / "newer.safetensors"
    save_file(tensors, newer, metadata=saying(version=99))
    yield newer, "has version 99"
    fewer = folder / "fewer.safetensors"
    save_file(dict(list(tensors.items())[1:]), fewer, metadata=saying())
    yield fewer, "is damaged"
    words = folder / "words.safetensors"
    save_file(tensors, words, metadata=saying(spec={"head": "flow"}))
    yield words, "is damaged"
    infinite = folder / "infinite.safetensors"
    save_file({n: np.full_like(v, np.inf) for n, v in tensors.items()}, infinite, metadata=saying())
    yield infinite, "weights that are not finite"


def test_files_that_are_no_generators(case: Case, tmp_path: Path) -> None:
    for path, message in damaged(case, tmp_path):
        outcome = audit(
            "scan", case.model, "--data", case.test, "--generator", path, "--out", tmp_path / "out"
        )
        assert outcome.code == 2, (path, outcome)
        assert message in outcome.err
        assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_generator_of_other_images(case: Case, tmp_path: Path) -> None:
    shape = (1, 30, 30)
    shown = tiny.patterns(shape)
    weight, bias = tiny.matched(shown)
    model = tiny.write_linear(tmp_path / "m.onnx", weight, bias, shape=("n", *shape))
    data = tiny.write_data(tmp_path / "d.npz", *tiny.noisy(shown, 20))
    for options, message in (
        ((model, "--data", data), "images of shape (1, 28, 28)"),
        ((case.model, "--data", case.test, "--high", "2"), "from 0 to 1"),
    ):
        outcome = audit("scan", *options, "--generator", case.generator, "--out", tmp_path / "out")
        assert outcome.code == 2
        assert message in outcome.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--attack", "wagan"), "needs a trained generator"),
        (("--attack", "pgd", "--generator", "g"), "does not name wagan"),
        (("--generator", "g", "--train-data", "t"), "leave one of them out"),
    ],
)
def test_scan_options_that_contradict(case: Case, options: tuple[str, ...], message: str) -> None:
    outcome = audit("scan", case.model, "--data", case.test, *options)
    assert outcome.code == 2
    assert message in outcome.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--variant", "gan"), "Unknown variant 'gan'. Did you mean 'wagan'?"),
        (("--head", "tail"), "Unknown head 'tail': choose from image, flow"),
        (("--radius", "0"), "--radius must be positive"),
        (("--epochs", "0"), "--epochs must be at least 1"),
        (("--average", "1"), "--average must lie between 0 and 1"),
        (("--samples", "0"), "--samples must be at least 1"),
        (("--paper", "--head", "flow"), "leave --head out"),
        (("--resume",), "to resume from"),
    ],
)
def test_training_options_that_cannot_be_meant(
    case: Case, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    outcome = case.learn(*options, out=tmp_path / "g.safetensors")
    assert outcome.code == 2, outcome
    assert message in outcome.err
    assert not list(tmp_path.iterdir())


def test_small_images_have_no_generator(case: Case, tmp_path: Path) -> None:
    shape = (1, 8, 8)
    shown = tiny.patterns(shape)
    weight, bias = tiny.matched(shown)
    model = tiny.write_linear(tmp_path / "m.onnx", weight, bias, shape=("n", *shape))
    data = tiny.write_data(tmp_path / "d.npz", *tiny.noisy(shown, 40))
    outcome = audit("train-attacker", model, "--data", data, "--out", tmp_path / "g")
    assert outcome.code == 2
    assert "at least 28×28 pixels" in outcome.err


@pytest.mark.parametrize("variant", ["advgan", "wagan-beta-minus", "wagan-beta-plus"])
@pytest.mark.parametrize("paper", [(), ("--paper",)])
def test_every_variant_trains(
    case: Case, tmp_path: Path, variant: str, paper: tuple[str, ...]
) -> None:
    out = tmp_path / "g.safetensors"
    outcome = case.learn("--variant", variant, "--head", "image", *paper, out=out)
    assert outcome.code == 0, outcome.err
    written = record(out)
    assert written["variant"] == variant
    assert written["paper"] is bool(paper)
    assert "on the generated images" in outcome.out
