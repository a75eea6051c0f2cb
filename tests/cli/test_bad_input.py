"""Wrong input: exit 2, a sentence or two that say what to do, no traceback, nothing written."""

import dataclasses
import pickle
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import torch
from command import Outcome, audit

from audit.demo import data_path, model_path

SHAPE = (1, 6, 6)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and data that fit each other, in a folder of their own."""

    folder: Path
    model: Path
    data: Path
    x: tiny.Floats
    y: np.ndarray

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def scan(
        self, *options: object, model: Path | None = None, data: Path | None = None
    ) -> Outcome:
        words = (model or self.model, "--data", data or self.data, "--out", self.out)
        return audit(
            "scan", *words, "--attack", "minimal", "--effort", "quick", "--delta", "0.1", *options
        )

    def with_data(self, x: np.ndarray, y: np.ndarray) -> Path:
        return tiny.write_data(self.folder / "other.npz", x, y)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.chdir(tmp_path)
    shown = tiny.patterns(SHAPE)
    x, y = tiny.noisy(shown, 60)
    model = tiny.write_linear(tmp_path / "model.onnx", *tiny.matched(shown), shape=("N", *SHAPE))
    return Case(tmp_path, model, tiny.write_data(tmp_path / "data.npz", x, y), x, y)


def refuse(case: Case, outcome: Outcome, *patterns: str, code: int = 2) -> None:
    """The error is as every error must be, and says these things."""
    assert outcome.code == code, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("audit: ")
    assert outcome.err.endswith("\n")
    assert outcome.err.count("\n") == 1
    assert "Traceback" not in outcome.err
    assert "internal error" not in outcome.err
    for pattern in patterns:
        assert re.search(pattern, outcome.err), outcome.err
    assert not case.out.exists()
    assert not (case.folder / "audit-report").exists()


def test_the_case_itself_is_good(case: Case) -> None:
    outcome = case.scan()
    assert (outcome.code, outcome.err) == (0, "")
    assert case.out.is_dir()


# Model files


def test_missing_model(case: Case) -> None:
    refuse(case, case.scan(model=case.folder / "none.onnx"), "none.onnx", "check the path")


def test_empty_model(case: Case) -> None:
    case.model.write_bytes(b"")
    refuse(case, case.scan(), "empty", "copy the file or export")


def test_folder_as_model(case: Case) -> None:
    refuse(case, case.scan(model=case.folder), "folder", "give the path of the file")


@pytest.mark.parametrize("text", ["hello, this is no model\n" * 9, "{}", "<html></html>", "hi"])
def test_text_named_onnx(case: Case, text: str) -> None:
    case.model.write_text(text)
    refuse(case, case.scan(), "model.onnx", "ONNX")


def test_noise_named_onnx(case: Case) -> None:
    case.model.write_bytes(np.random.default_rng(0).bytes(5000))
    refuse(case, case.scan(), "model.onnx", "ONNX")


@pytest.mark.parametrize("share", [0.001, 0.01, *np.linspace(0.1, 0.9, 9), 0.99, 0.999])
def test_truncated_onnx(case: Case, share: float) -> None:
    whole = case.model.read_bytes()
    case.model.write_bytes(whole[: max(1, int(share * len(whole)))])
    refuse(case, case.scan(), "model.onnx")


@pytest.mark.parametrize("missing", [1, 2, 3, 5, 8, 13, 100, 400_000])
def test_truncated_convolutional_onnx(case: Case, missing: int) -> None:
    case.model.write_bytes(model_path().read_bytes()[:-missing])
    refuse(case, case.scan(data=data_path()), "model.onnx")


def test_pickle_as_model(case: Case) -> None:
    case.model.write_bytes(pickle.dumps({"weight": [1.0] * 100}))
    refuse(case, case.scan(), "pickle", "export")


def test_checkpoint_as_model(case: Case) -> None:
    torch.save({"weight": torch.zeros(3)}, case.model)
    refuse(case, case.scan("--trust-model"), "checkpoint", "export")


def test_zip_without_a_model(case: Case) -> None:
    with zipfile.ZipFile(case.model, "w") as archive:
        archive.writestr("a.txt", "a")
    refuse(case, case.scan(), "zip archive without a model", "expected")


def test_truncated_torchscript(case: Case) -> None:
    script(Plain()).save(str(case.model))
    case.model.write_bytes(case.model.read_bytes()[:-200])
    refuse(case, case.scan("--trust-model"), "model.onnx")


def test_model_of_two_inputs(case: Case) -> None:
    model = onnx.load(case.model)
    other = onnx.ValueInfoProto()
    other.CopyFrom(model.graph.input[0])
    other.name = "extra"
    model.graph.input.append(other)
    onnx.save(model, case.model)
    refuse(case, case.scan(), "2 inputs|found 2", "one")


# What a script can do, and does not before the user has said so


class Plain(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :10]


class WritesWhenCalled(torch.nn.Module):
    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The value is used: the compiler removes what is not.
        return x.flatten(1)[:, :10] + 0 * torch.from_file(self.marker, shared=True, size=4)[0]


class WritesWhenLoaded(torch.nn.Module):
    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker
        self.content = torch.zeros(1)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.marker, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.marker = state[0]
        self.training = state[1]
        self.content = torch.from_file(state[0], shared=True, size=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :10]


def script(module: torch.nn.Module) -> torch.jit.ScriptModule:
    return torch.jit.script(module.eval())


@pytest.mark.parametrize("make", [WritesWhenCalled, WritesWhenLoaded])
@pytest.mark.parametrize("name", ["model.pt", "model.onnx"])
def test_untrusted_torchscript_is_never_opened(
    case: Case, make: Callable[[str], torch.nn.Module], name: str
) -> None:
    marker = case.folder / "marker"
    model = case.folder / name
    script(make(str(marker))).save(str(model))
    refuse(case, case.scan(model=model), "TorchScript", "--trust-model", "ONNX")
    assert not marker.exists()
    # The same file does what it says once it is trusted: the marker would have been there.
    case.scan("--trust-model", model=model)
    assert marker.exists()


def test_untrusted_torchscript_is_refused_before_the_data_is_read(case: Case) -> None:
    model = case.folder / "model.pt"
    script(Plain()).save(str(model))
    refuse(case, case.scan(model=model, data=case.folder / "none.npz"), "none.npz|--trust-model")


# Model and data that do not fit


def test_wrong_input_shape(case: Case) -> None:
    data = case.with_data(np.zeros((60, 1, 7, 7), np.float32), case.y)
    refuse(case, case.scan(data=data), r"\(N, 1, 6, 6\)", r"\(1, 7, 7\)", "check")


def test_wrong_channel_count(case: Case) -> None:
    data = case.with_data(np.zeros((60, 3, 6, 6), np.float32), case.y)
    refuse(case, case.scan(data=data), r"\(N, 1, 6, 6\)", r"\(3, 6, 6\)", "channels")


def test_wrong_channel_count_of_a_model_with_a_dynamic_shape(case: Case) -> None:
    weight, bias = tiny.matched(tiny.patterns(SHAPE))
    model = tiny.write_linear(case.model, weight, bias, shape=("N", "C", "H", "W"))
    data = case.with_data(np.zeros((60, 3, 6, 6), np.float32), case.y)
    refuse(case, case.scan(model=model, data=data), "shape", "--layout|channels|fits")


def test_wrong_shape_for_torchscript(case: Case) -> None:
    model = case.folder / "model.pt"
    script(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(5, 10))).save(str(model))
    refuse(case, case.scan("--trust-model", model=model), "shape", "Check")


def test_torchscript_of_two_outputs(case: Case) -> None:
    class Pair(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    model = case.folder / "model.pt"
    script(Pair()).save(str(model))
    refuse(case, case.scan("--trust-model", model=model), "one tensor", "export")


def test_label_out_of_range(case: Case) -> None:
    y = case.y.copy()
    y[7] = 10
    refuse(case, case.scan(data=case.with_data(case.x, y)), "label 10", "row 7", r"0\.\.9")


def test_negative_label(case: Case) -> None:
    y = case.y.copy()
    y[3] = -1
    refuse(case, case.scan(data=case.with_data(case.x, y)), "label -1", "row 3")


def test_labels_from_one(case: Case) -> None:
    refuse(case, case.scan(data=case.with_data(case.x, case.y + 1)), "subtract 1")


def test_fewer_labels_than_images(case: Case) -> None:
    refuse(case, case.scan(data=case.with_data(case.x, case.y[:50])), "60 samples", "50 labels")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_data(case: Case, value: float) -> None:
    x = case.x.copy()
    x[5, 0, 2, 3] = value
    refuse(case, case.scan(data=case.with_data(x, case.y)), "row 5", "nan|inf")


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0])
def test_data_outside_the_box(case: Case, value: float) -> None:
    x = case.x.copy()
    x[5, 0, 2, 3] = value
    refuse(case, case.scan(data=case.with_data(x, case.y)), "row 5", r"\[0, 1\]", "--low|--high")


def test_missing_data(case: Case) -> None:
    refuse(case, case.scan(data=case.folder / "none.npz"), "none.npz", "does not exist")


def test_empty_data(case: Case) -> None:
    case.data.write_bytes(b"")
    refuse(case, case.scan(), "empty", "again")


def test_data_of_an_unknown_kind(case: Case) -> None:
    data = case.folder / "data.txt"
    data.write_text("hello")
    refuse(case, case.scan(data=data), "unknown kind", "Supported")


def test_broken_data(case: Case) -> None:
    case.data.write_bytes(case.data.read_bytes()[:-500])
    refuse(case, case.scan(), "not a readable", "np.savez")


# A model at chance receives the wrong inputs


def test_wrong_layout_is_recognised(case: Case) -> None:
    shape = (3, 5, 4)
    shown = tiny.patterns(shape)
    x, y = tiny.noisy(shown, 200)
    flat = tiny.matched(shown.transpose(0, 2, 3, 1))
    model = tiny.write_linear(case.model, *flat, shape=("N", 60))
    data = case.with_data(x, y)
    refuse(
        case,
        case.scan(model=model, data=data),
        "at chance",
        "Tried on 200 samples",
        r"--layout whc: \d",
        "--layout hwc looks right",
    )
    assert case.scan("--layout", "hwc", model=model, data=data).code == 0


def test_wrong_scale_is_recognised(case: Case) -> None:
    weight, bias = tiny.matched(tiny.patterns(SHAPE))
    # Fed with inputs of 0 to 1, this model sees black, and black is always the same class.
    model = tiny.write_linear(case.model, weight, bias, shape=("N", *SHAPE), scale=1 / 255)
    refuse(case, case.scan(model=model), "at chance", "--std 1/255 .*looks right")
    assert case.scan("--std", "1/255", model=model).code == 0


def test_wrong_centre_is_recognised(case: Case) -> None:
    shown = tiny.patterns(SHAPE)
    # Trained on inputs of -1 to 1, with a bias that makes one class win on those of 0 to 1.
    weight = tiny.matched(shown)[0]
    weight[:, 0] += 1
    model = tiny.write_linear(case.model, weight, np.zeros(10, np.float32), shape=("N", *SHAPE))
    refuse(case, case.scan(model=model), "at chance", "--mean .5 --std .5 .*looks right")
    assert case.scan("--mean", ".5", "--std", ".5", model=model).code == 0


def test_superfluous_mean_is_recognised(case: Case) -> None:
    refuse(case, case.scan("--mean", "30"), "at chance", "no --mean and --std looks right")


def test_shuffled_labels_are_not_explained(case: Case) -> None:
    data = case.with_data(case.x, (case.y + 3) % 10)
    refuse(case, case.scan(data=data), "at chance", "Tried", "check that labels")


def test_not_finite_scores(case: Case) -> None:
    weight, bias = tiny.matched(tiny.patterns(SHAPE))
    model = tiny.write_linear(case.model, weight * np.nan, bias, shape=("N", *SHAPE))
    refuse(case, case.scan(model=model), "at chance")


# Options


@pytest.mark.parametrize(
    ("options", "patterns"),
    [
        (("--threat", "l7"), ("Unknown threat 'l7'", "linf, l2, l1")),
        (("--threat", "linf,Linf"), ("Unknown threat 'Linf'", "Did you mean 'linf'", "Choose")),
        (("--threat", ""), ("--threat", "without a value")),
        (("--threat", ","), ("--threat", "without a value")),
        (("--attack", "zap"), ("Unknown attack 'zap'", "pgd")),
        (("--attack", ""), ("--attack", "without a value")),
        (("--order", "0.5"), ("order", "at least 1", "0.5")),
        (("--order", "0"), ("order", "at least 1")),
        (("--order", "-2"), ("order", "at least 1", "-2")),
        (("--order", "nan"), ("--order", "'nan'")),
        (("--order", "two"), ("--order", "'two'")),
        (("--delta", "-0.1"), ("delta", "not negative", "-0.1")),
        (("--delta", "0.1,-0.1"), ("delta", "not negative")),
        (("--delta", "abc"), ("--delta", "8/255", "'abc'")),
        (("--delta", "1/0"), ("--delta", "'1/0'")),
        (("--delta", "nan"), ("--delta", "'nan'")),
        (("--delta", "inf"), ("delta", "finite")),
        (("--delta", "1e400"), ("--delta", "1e400")),
        (("--delta", "1e999999999"), ("--delta", "1e999999999")),
        (("--delta", ""), ("--delta", "without a value")),
        (("--certify", "magic"), ("certificate 'magic'", "auto, simplex, crown, crown-ibp, none")),
        (("--confidence", "2"), ("--confidence", "between 0 and 1")),
        (("--confidence", "0"), ("--confidence", "between 0 and 1")),
        (("--confidence", "nan"), ("--confidence", "takes numbers", "'nan'")),
        (("--samples", "many"), ("--samples", "whole number", "'many'")),
        (("--samples", "0"), ("--samples", "at least 1")),
        (("--samples", "-5"), ("--samples", "at least 1")),
        (("--seed", "-1"), ("--seed", "-1")),
        (("--seed", "9" * 30), ("--seed", "2[*][*]63")),
        (("--batch-size", "0"), ("--batch-size", "positive")),
        (("--batch-size", "many"), ("--batch-size", "auto", "'many'")),
        (("--low", "1", "--high", "0"), ("--low", "--high")),
        (("--low", "0.5", "--high", "0.5"), ("--low", "--high")),
        (("--high", "inf"), ("--high inf", "finite")),
        (("--low", "x"), ("--low", "'x'")),
        (("--mean", "0.1,0.2"), ("--mean", "2 values", "1 channel")),
        (("--std", "1,1,1"), ("--std", "3 values", "1 channel")),
        (("--std", "0"), ("--std", "positive", "found 0")),
        (("--std", "-1"), ("--std", "positive", "found -1")),
        (("--std", "inf"), ("--std", "finite")),
        (("--mean", "inf"), ("--mean", "finite")),
        (("--mean", ""), ("--mean", "without a value")),
        (("--layout", "foo"), ("--layout", "permutation", "hwc")),
        (("--layout", "cc"), ("--layout", "permutation")),
        (("--resize", "big"), ("--resize", "224x224", "'big'")),
        (("--resize", "4x4"), ("--resize", "image files")),
        (("--device", "foo"), ("Unknown device 'foo'", "auto, cpu, cuda")),
        (("--fail-under", "x"), ("--fail-under", "'x'")),
        (("--fail-under", "90"), ("--fail-under", "0 to 1", "90")),
    ],
)  # fmt: skip
def test_wrong_option(case: Case, options: tuple[str, ...], patterns: tuple[str, ...]) -> None:
    refuse(case, case.scan(*options), *patterns)


def test_cuda_without_one(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refuse(case, case.scan("--device", "cuda"), "no CUDA device", "--device cpu")


def test_fail_under_without_a_budget(case: Case) -> None:
    outcome = audit(
        "scan", case.model, "--data", case.data, "--out", case.out, "--fail-under", "0.5"
    )
    refuse(case, outcome, "--fail-under needs --delta")


def test_wrong_options_cost_nothing(case: Case) -> None:
    """A typing mistake is found before any file is read."""
    nowhere = case.folder / "none"
    refuse(case, case.scan("--threat", "l7", model=nowhere, data=nowhere), "Unknown threat")
    refuse(case, case.scan("--device", "foo", model=nowhere, data=nowhere), "Unknown device")


@pytest.mark.parametrize("words", [[], ["--nonsense"]])
def test_usage(case: Case, words: list[str]) -> None:
    """What the command parser refuses it says in its own form: usage first, then the error."""
    data = ["--data", str(case.data)] if words else []
    outcome = audit("scan", str(case.model), *data, *words)
    assert outcome.code == 2
    assert outcome.err.startswith("Usage: audit scan")
    assert "Error: " in outcome.err
    assert (words[0] if words else "--data") in outcome.err
    assert "Traceback" not in outcome.err
    assert not (case.folder / "audit-report").exists()


# Where the report goes


def test_out_is_a_file(case: Case) -> None:
    case.out.write_text("mine")
    outcome = case.scan()
    assert case.out.read_text() == "mine"
    case.out.unlink()
    refuse(case, outcome, "--out", "is not a folder", "name a folder")


def test_out_below_a_file(case: Case) -> None:
    file = case.folder / "file"
    file.write_text("mine")
    refuse(case, case.scan("--out", file / "a" / "b"), "--out", "file is not a folder")
    assert file.read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write")
def test_out_in_a_read_only_place(case: Case) -> None:
    """Not even the superuser can make a file there, whatever its permission bits say."""
    refuse(case, case.scan("--out", "/proc/audit-report"), "--out", "cannot be written", "choose")


def test_out_that_becomes_unwritable(case: Case) -> None:
    """A folder where a file should go is found at the end only; still no traceback."""
    (case.out / "adversarial.npz").mkdir(parents=True)
    outcome = case.scan()
    assert outcome.code == 2
    assert re.fullmatch(r"audit: .*adversarial.npz cannot be written.*\n", outcome.err)
    assert not (case.out / "report.json").exists()
    assert not list(case.out.glob(".*"))


# What is installed


def test_no_onnxruntime(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refuse(case, case.scan(), "onnxruntime is not installed", r"pip install '.*\[cpu\]'")


# audit report


def test_unknown_report_format(case: Case) -> None:
    refuse(case, audit("report", case.model, "--format", "pdf"), "Unknown format 'pdf'", "html")


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (None, "No such file"),
        (b"", "not a complete JSON"),
        (b'{"schema_version": 1, "tool"', "not a complete JSON.*truncated"),
        (b'{"schema_version": 1}', "not valid"),
        (b"{}", "schema_version"),
        (b"[1, 2]", "not a report"),
        (b'{"schema_version": 99}', "upgrade"),
        (b"\xff\xfe\x00", "not text"),
    ],
)
def test_broken_report(case: Case, content: bytes | None, pattern: str) -> None:
    file = case.folder / "report.json"
    if content is not None:
        file.write_bytes(content)
    refuse(case, audit("report", file), pattern)
    refuse(case, audit("report", file, "-f", "html", "-o", case.out), pattern)


def test_report_to_a_place_that_cannot_be_written(case: Case) -> None:
    case.scan("--out", case.folder / "good")
    report = case.folder / "good" / "report.json"
    refuse(case, audit("report", report, "-o", case.model / "x.txt"), "cannot be written", "--out")


# Too little to say anything


def test_nothing_correct_of_a_few(case: Case) -> None:
    data = case.with_data(case.x[:5], (case.y[:5] + 5) % 10)
    refuse(case, case.scan(data=data), "nothing to attack", "more samples", code=5)


def test_no_samples(case: Case) -> None:
    refuse(case, case.scan(data=case.with_data(case.x[:0], case.y[:0])), "no sample", code=5)
