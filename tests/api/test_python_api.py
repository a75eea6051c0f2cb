"""The public Python API: one engine for files, modules, functions, arrays and data sets."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from torch import nn

import audit
from audit.api import arguments
from audit.errors import AuditError, UsageError
from audit.options import HARDEN, INSPECT, SCAN, TRAIN, keyword_options
from audit.runtime.progress import shown, silent

OPTIONS: dict[str, Any] = {
    "threat": "linf",
    "order": "inf",
    "delta": ["0.05", 0.1],
    "effort": "quick",
    "certify": "crown",
    "seed": 3,
}


class Sides(nn.Module):
    """Two classes, told apart by the sign of a sum; a dropout that must not act."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, -1.0, 0.5, 2.0], [-1.0, 1.0, -0.5, -2.0]]))
        self.drop = nn.Dropout(0.9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(x - 0.5) @ self.weight.T


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return Sides().train()


@pytest.fixture(scope="module")
def samples() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).random((40, 4), dtype=np.float32)
    score = (x - 0.5) @ np.array([1.0, -1.0, 0.5, 2.0], dtype=np.float32)
    return x, (score < 0).astype(np.int64)


@pytest.fixture(scope="module")
def report(module: nn.Module, samples: tuple[np.ndarray, np.ndarray]) -> audit.Report:
    return audit.scan(module, samples, progress=False, **OPTIONS)


def accuracies(report: audit.Report) -> list[tuple[float | None, float | None]]:
    points = report.record.threats[0].curves[0].points
    return [(point.attacked.value, point.certified.value) for point in points]


def test_a_module_is_audited_as_it_would_be_served(
    report: audit.Report, module: nn.Module, samples: tuple[np.ndarray, np.ndarray]
) -> None:
    assert module.training
    assert report.record.clean.value == 1.0
    assert report.record.model.path == "Sides"
    x, _ = samples
    margin = np.abs((x - 0.5) @ np.array([1.0, -1.0, 0.5, 2.0])) / 4.5
    for (attacked, certified), delta in zip(accuracies(report), (0.05, 0.1), strict=True):
        robust = float((margin > delta).mean())
        assert attacked == pytest.approx(robust)
        assert certified == pytest.approx(robust, abs=0.05)


def test_tensors_and_data_sets_are_the_same_data(
    report: audit.Report, module: nn.Module, samples: tuple[np.ndarray, np.ndarray]
) -> None:
    x, y = (torch.from_numpy(part) for part in samples)
    for data in ((x, y), torch.utils.data.TensorDataset(x, y)):
        found = audit.scan(module, data, progress=False, **OPTIONS)
        assert accuracies(found) == accuracies(report)


def test_a_function_of_a_batch_is_a_model(samples: tuple[np.ndarray, np.ndarray]) -> None:
    weight = np.array([[1.0, -1.0, 0.5, 2.0], [-1.0, 1.0, -0.5, -2.0]], dtype=np.float32)
    found = audit.scan(
        lambda x: (x - 0.5) @ weight.T,
        samples,
        progress=False,
        threat="linf",
        order="inf",
        delta=0.1,
        effort="quick",
    )
    assert found.record.clean.value == 1.0
    assert found.record.model.gradient == "none"
    # Neither a command line nor a digest can name a Python function.
    assert found.record.config["command"] is None
    assert "audit scan" not in found.render("text")
    assert "model sha256" not in found.render("text")
    (run,) = json.loads(found.render("sarif"))["runs"]
    assert "hashes" not in run["artifacts"][0]
    assert found.html().count("<dt>sha256</dt>") == 1, "the digest of the data alone"


def test_what_is_saved_is_read_again(report: audit.Report, tmp_path: Path) -> None:
    file = report.save(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"report.html", "report.json", "samples.csv", "adversarial.npz"}
    again = audit.Report.read(file)
    assert again.record == report.record
    assert again.samples_csv() == report.samples_csv()
    copy = again.save(tmp_path / "copy").parent
    assert (copy / "samples.csv").read_bytes() == (tmp_path / "out/samples.csv").read_bytes()
    assert (copy / "adversarial.npz").exists()
    same = audit.compare(report, again, max_regression=0.01)
    assert same.status == "pass"


def test_a_condition_holds_or_raises_with_the_reason(report: audit.Report) -> None:
    assert report.require("clean >= 0.8") is report
    with pytest.raises(
        audit.GateFailed, match=r"attacked.linf@0.1 >= 0.99 does not hold: measured"
    ):
        report.require("clean >= 0.8", "attacked.linf@0.1 >= 0.99")
    with pytest.raises(AssertionError, match="not measured"):
        report.require("attacked.l2@0.1 >= 0.1")
    with pytest.raises(UsageError, match="condition"):
        report.require("accuracy > 3")
    with pytest.raises(UsageError, match="At least one condition"):
        report.require()


def test_conditions_do_not_hold_on_evidence_that_cannot_be_relied_on(
    report: audit.Report,
) -> None:
    from dataclasses import replace

    failed = [entry.model_copy(update={"status": "fail"}) for entry in report.record.health[:1]]
    red = replace(report, record=report.record.model_copy(update={"health": failed}))
    with pytest.raises(audit.GateFailed, match="cannot be relied on"):
        red.require("clean >= 0.8")


def test_gates_are_evaluated_on_a_saved_report(report: audit.Report, tmp_path: Path) -> None:
    file = report.save(tmp_path)
    judged = audit.judge(file, ["clean >= 0.8"])
    assert (judged.verdict, judged.exit_code()) == ("pass", 0)
    assert audit.judge(file, ["clean >= 0.999"]).exit_code() == 1


def test_a_notebook_shows_every_accuracy(report: audit.Report) -> None:
    shown_as = report._repr_html_()
    assert shown_as.count("<tr>") == 1 + 2
    assert "100.0 %" in shown_as
    assert "<script" not in shown_as
    for text in (report.html(), report.json(), report.markdown(), report.text()):
        assert "linf" in text


def test_inspection_of_a_module(module: nn.Module, samples: tuple[np.ndarray, np.ndarray]) -> None:
    found = audit.inspect(module, samples)
    facts = dict(found.facts)
    assert facts["classes"] == "2"
    assert found.command is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, d: audit.scan(m, d, thread="linf"), "no option 'thread'. Did you mean 'threat'"),
        (lambda m, d: audit.scan(m, d, threat="l3"), "Unknown threat 'l3'"),
        (lambda m, d: audit.scan(m, d, attack="wagan"), "needs a trained generator"),
        (lambda m, d: audit.scan(m, d, fail_under=0.5), "--fail-under needs --delta"),
        (lambda m, d: audit.scan(3, d), "found an object of type int"),
        (lambda m, d: audit.scan(m, 3), "found an object of type int"),
        (lambda m, d: audit.scan(m, (d[0], d[1][:3])), "40 samples but 3 labels"),
        (lambda m, d: audit.scan(m, d, train_data="x.npz"), "train_data needs out"),
        (lambda m, d: audit.harden(m, d, d, out="o"), "takes a path"),
        (lambda m, d: audit.train_attacker(m, d, out="o"), "path of a model file"),
        (lambda m, d: audit.scan("nowhere.onnx", d), "nowhere.onnx"),
    ],
)
def test_wrong_calls_are_refused_in_one_sentence(
    call: Any, message: str, module: nn.Module, samples: tuple[np.ndarray, np.ndarray]
) -> None:
    with pytest.raises(AuditError, match=message):
        call(module, samples)


def test_items_of_a_data_set_must_fit_together() -> None:
    class Odd(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
            return torch.zeros(4 + row), 0

    with pytest.raises(AuditError, match=r"sample 1 has shape \(5,\)"):
        audit.scan(Sides(), Odd(), progress=False)


@pytest.mark.parametrize(
    ("function", "groups", "typed"),
    [
        (audit.scan, SCAN, arguments.ScanArguments),
        (audit.harden, HARDEN, arguments.HardenArguments),
        (audit.train_attacker, TRAIN, arguments.TrainArguments),
        (audit.inspect, INSPECT, arguments.InspectArguments),
    ],
)
def test_signatures_name_every_option(function: Any, groups: Any, typed: type) -> None:
    options = keyword_options(*groups)
    assert options.keys() == get_type_hints(typed).keys()
    parameters = inspect.signature(function).parameters
    assert options.keys() <= parameters.keys()
    assert "options" not in parameters
    for keyword, (_, default) in options.items():
        assert parameters[keyword].default == default


def test_importing_loads_no_torch() -> None:
    for code in ("import audit", "import audit, audit.cli; audit.judge; audit.Report"):
        probe = f"{code}; import sys; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", probe], timeout=60).returncode == 0
    assert set(audit.__all__) <= set(dir(audit))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        audit.nothing  # noqa: B018


def test_progress_is_drawn_where_a_person_looks() -> None:
    assert shown(False) is silent
    assert shown(silent) is silent
    assert shown(True) is silent  # no terminal and no notebook here
