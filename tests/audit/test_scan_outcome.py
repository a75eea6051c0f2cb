"""A whole scan of a tiny linear model, whose radii are known: the state, the report, the files."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import WEIGHT, classifier, inputs, key, linear, noisy_labels, scan_of, stop_at
from torch import Tensor

from attackers.geometry import METRICS
from attackers.losses import misclassified
from audit import certify
from audit.api.verdicts import Gates
from audit.certify import Certified
from audit.errors import InternalError, UsageError
from audit.evidence.samples import Samples
from audit.options import VerdictOptions
from audit.runtime.atomic_files import check_writable, replacing
from audit.scanning import artifacts, scan
from audit.scanning.assemble import report_of
from audit.scanning.result import ScanResult
from audit.schema import ScanReport

OPTIONS: dict[str, Any] = {
    "metrics": ("linf", "l2", "l1"),
    "deltas": (0.02, 0.05, 0.1),
    "orders": (math.inf, 2.0, 1.0),
}
X = inputs(40)
LABELS = noisy_labels(X)


def finished(x: Tensor = X, labels: Tensor = LABELS, **options: Any) -> ScanResult:
    return scan.run(scan_of(classifier(linear), x, labels, **{**OPTIONS, **options}))


@pytest.fixture(scope="module")
def done() -> ScanResult:
    return finished()


@pytest.fixture(scope="module")
def report(done: ScanResult) -> ScanReport:
    return report_of(done, config={}, gates=Gates(VerdictOptions(fail_under=0.2)).evaluate)


def test_every_radius_is_the_closed_form(done: ScanResult) -> None:
    value = ((X.double() - 0.5) * WEIGHT.double()).sum(1).abs()
    for run in done.evidence:
        exact = torch.where(
            done.samples.correct, value / run.metric.dual_norm(WEIGHT[None], WEIGHT[None]), 0.0
        )
        found = run.frontier.radius
        assert (found >= exact * (1 - 1e-5)).all()
        # Up to what the box or the search of l1 costs.
        assert (found <= exact * 1.15 + 1e-3).double().mean() > 0.9
        assert found.isfinite().all()


def test_health_is_green_and_everything_ran(done: ScanResult, report: ScanReport) -> None:
    statuses = {key(entry): entry.status for entry in done.health}
    assert set(statuses.values()) <= {"pass", "warn", "not_applicable"}
    # What cannot run: Square in l1, examples of an earlier metric for the first, 8 bits of tables
    # and of a model in floats.
    assert {check for check, status in statuses.items() if status == "not_applicable"} <= {
        "quantised_kernels",
        "square.l1",
        "transfer.linf",
        *(f"representable.{run.metric.name}" for run in done.evidence),
        *(f"active_test.{run.metric.name}" for run in done.evidence),
    }
    assert [key(h) for h in done.health if h.status == "warn"] == ["sample_size"]
    assert len({key(entry) for entry in done.health}) == len(done.health)
    for run in done.evidence:
        ran = {entry.name: entry for entry in run.attacks}
        assert list(ran) == ["fgsm", "minimal", "apgd", "w-fgsm"]
        assert all(entry.status == "ran" for entry in ran.values())
        assert ran["minimal"].broken == 36
        assert ran["minimal"].gradients > 36
    assert report.status == "complete"
    assert report.data.evaluated == 40
    assert report.data.correct == 36
    assert report.clean.value == 0.9
    assert [threat.metric for threat in report.threats] == ["linf", "l2", "l1"]
    assert report.verdict == "fail"  # 0.2 is not held at the largest budget


def test_the_bracket_of_the_report_is_ordered(report: ScanReport) -> None:
    for threat in report.threats:
        for curve in threat.curves:
            for point in curve.points:
                assert point.certified.value <= point.attacked.value <= report.clean.value
                assert point.first_order is not None or curve.order == "1"
        at = {curve.order: [p.attacked.value for p in curve.points] for curve in threat.curves}
        # A budget for the average is worth more than the same for each.
        assert all(a <= b for a, b in zip(at["1"], at["2"], strict=True))
        assert all(a <= b for a, b in zip(at["2"], at["inf"], strict=True))


def found(done: ScanResult) -> list[tuple[Tensor, Tensor, Tensor, list[str]]]:
    return [(r.frontier.radius, r.frontier.x, r.frontier.prediction, r.frontier.attack)
            for r in done.evidence]  # fmt: skip


def same(a: ScanResult, b: ScanResult, rows: Tensor | None = None) -> None:
    """Equal to the bit; the samples of ``b`` are the given rows of ``a``."""
    chosen = torch.arange(len(a.samples)) if rows is None else rows
    for one, other in zip(found(a), found(b), strict=True):
        assert all(torch.equal(u[chosen], v) for u, v in zip(one[:3], other[:3], strict=True))
        assert [one[3][row] for row in chosen.tolist()] == other[3]
    assert a.clean == b.clean
    timeless = [
        [t.model_dump(exclude={"attacks": {"__all__": {"seconds"}}}) for t in s.threats]
        for s in (a, b)
    ]
    assert timeless[0] == timeless[1]
    assert a.health == b.health


@pytest.mark.parametrize("batch", [1, 5])
def test_batch_size_changes_no_bit(batch: int) -> None:
    few: dict[str, Any] = {"metrics": ("linf", "l1"), "deltas": (0.1,), "orders": (math.inf, 2.0)}
    x, labels = X[3:11], LABELS[3:11]
    same(finished(x, labels, **few), finished(x, labels, **few, batch_size=batch))


def test_order_of_the_samples_changes_no_bit(done: ScanResult) -> None:
    shuffled = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    same(done, finished(X[shuffled], LABELS[shuffled]), shuffled)


def test_the_seed_changes_random_starts_only(done: ScanResult) -> None:
    other = finished(seed=1)
    assert other.clean == done.clean
    for (r, *_), (s, *_) in zip(found(done), found(other), strict=True):
        assert r == pytest.approx(s.numpy(), rel=0.25, abs=1e-3)


def test_without_gradients_scores_and_decisions_are_attacked() -> None:
    blind = classifier(linear, gradients=False)
    outcome = scan.run(scan_of(blind, X, LABELS, metrics=("linf",), deltas=(0.3,)))
    (run,) = outcome.evidence
    assert [(a.name, a.status) for a in run.attacks] == [
        ("random", "ran"),
        ("hopskipjump", "ran"),
        ("square", "ran"),
    ]
    assert all(a.gradients == 0 for a in run.attacks)
    white = scan.run(scan_of(classifier(linear), X, LABELS, metrics=("linf",), deltas=(0.3,)))
    exact = white.evidence[0].frontier.radius
    # Decisions alone come within a quarter of what gradients find.
    assert (run.frontier.radius <= 1.25 * exact + 1e-3).all()
    assert run.frontier.broken.any()
    assert run.threat.sensitivity == []
    named = scan.run(
        scan_of(blind, X, LABELS, metrics=("linf",), deltas=(0.3,), attacks=("pgd", "random"))
    )
    assert [(a.name, a.status) for a in named.evidence[0].attacks] == [
        ("pgd", "not_applicable"),
        ("random", "ran"),
    ]
    assert named.evidence[0].attacks[0].broken is None


def test_a_copy_that_computes_something_else_is_not_used() -> None:
    wrong = classifier(linear, copy=lambda x: -linear(x), attackable=lambda x: -linear(x))
    outcome = scan.run(scan_of(wrong, X, LABELS, metrics=("linf",), deltas=(0.3,)))
    assert outcome.classifier.gradient == "none"
    assert outcome.parity is not None
    assert outcome.parity.max_abs_difference > 0.1
    assert any("its gradients are not used" in w for w in outcome.warnings)
    assert [a.name for a in outcome.evidence[0].attacks] == ["random", "hopskipjump", "square"]
    assert {key(h): h.status for h in outcome.health}["parity"] == "warn"


def test_a_step_function_is_not_called_robust() -> None:
    steps = classifier(lambda x: linear((x > 0.5).float()))
    x = inputs(60)
    labels = steps.predict(x)
    outcome = scan.run(scan_of(steps, x, labels, metrics=("linf",), deltas=(0.05,)))
    statuses = {key(h): h.status for h in outcome.health}
    assert statuses["gradients"] == "fail"
    report = report_of(
        outcome, config={}, gates=Gates(VerdictOptions(fail_under=0.0, strict=True)).evaluate
    )
    assert report.verdict == "inconclusive"


def test_a_certificate_above_an_attack_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = certify.trivial

    def boasting(samples: Samples, *, asked: bool) -> Certified:
        trivial = honest(samples, asked=asked)
        return Certified(torch.full_like(trivial.radius, 0.2), trivial.certifier)

    monkeypatch.setattr(certify, "trivial", boasting)
    correct = linear(X).argmax(1) == LABELS
    with pytest.raises(InternalError, match=r"is certified up to linf 0\.2, yet broken at") as e:
        finished(X[correct], LABELS[correct])
    assert e.value.exit_code == 3


def test_an_interrupt_keeps_what_was_found(done: ScanResult) -> None:
    stopped = scan.run(scan_of(classifier(linear), X, LABELS, **OPTIONS), stop_at("l2: apgd"))
    assert stopped.status == "interrupted"
    assert [run.metric.name for run in stopped.evidence] == ["linf", "l2"]
    assert torch.equal(stopped.evidence[0].frontier.radius, done.evidence[0].frontier.radius)
    assert stopped.evidence[1].frontier.broken.any()
    last = stopped.evidence[1].attacks[-1]
    assert (last.name, last.status) == ("apgd", "error")
    report = report_of(stopped, config={}, gates=Gates().evaluate)
    assert report.status == "interrupted"
    assert any("interrupted" in warning for warning in report.warnings)
    # What is not attacked yet counts as standing: an upper bound, never a lower one.
    for before, after in zip(report.threats[1].curves, done.threats[1].curves, strict=True):
        for early, late in zip(before.points, after.points, strict=True):
            assert early.attacked.value >= late.attacked.value - 1e-12


def test_the_table_of_samples(done: ScanResult) -> None:
    rows = list(csv.DictReader(io.StringIO(artifacts.samples_csv(done))))
    assert list(rows[0]) == [
        "index", "label", "prediction", "correct",
        "linf_attacked", "linf_certified", "linf_attack",
        "l2_attacked", "l2_certified", "l2_attack",
        "l1_attacked", "l1_certified", "l1_attack",
    ]  # fmt: skip
    assert [int(row["index"]) for row in rows] == list(range(len(X)))
    assert [int(row["label"]) for row in rows] == LABELS.tolist()
    for row, correct, prediction in zip(
        rows, done.samples.correct.tolist(), done.samples.prediction.tolist(), strict=True
    ):
        assert row["correct"] == ("true" if correct else "false")
        assert int(row["prediction"]) == prediction
        for run in done.evidence:
            name = run.metric.name
            # Written in full: reading gives the same float64 back.
            assert float(row[f"{name}_attacked"]) == float(run.frontier.radius[int(row["index"])])
            assert float(row[f"{name}_certified"]) == 0
            assert bool(row[f"{name}_attack"]) == correct
            if not correct:
                assert float(row[f"{name}_attacked"]) == 0


def test_what_was_not_broken_is_empty_not_zero() -> None:
    state = scan_of(classifier(linear), X, LABELS, **OPTIONS, attacks=("fgsm",))
    short = scan.run(state)
    rows = list(csv.DictReader(io.StringIO(artifacts.samples_csv(short))))
    standing = [row for row in rows if row["linf_attacked"] == ""]
    unbroken = short.evidence[0].frontier.radius.isinf()
    assert len(standing) == int(unbroken.sum()) > 0
    assert {row["linf_attack"] for row in standing} == {""}
    assert {row["correct"] for row in standing} == {"true"}


def test_stored_examples_are_adversarial_when_read_again(done: ScanResult, tmp_path: Path) -> None:
    path = tmp_path / "adversarial.npz"
    np.savez_compressed(path, allow_pickle=False, **artifacts.adversarial_arrays(done))
    with np.load(path, allow_pickle=False) as stored:
        assert set(stored.files) == {
            f"{name}_{part}" for name in OPTIONS["metrics"] for part in ("index", "x", "prediction")
        }
        for run in done.evidence:
            name = run.metric.name
            index, x = stored[f"{name}_index"], torch.from_numpy(stored[f"{name}_x"])
            assert len(index) == len(x) == int(run.frontier.broken.sum()) > 0
            assert x.dtype == torch.float32
            assert ((x >= 0) & (x <= 1)).all()
            scores = done.classifier.deployed(x)
            assert misclassified(scores, LABELS[index]).all()
            assert scores.argmax(1).tolist() == stored[f"{name}_prediction"].tolist()
            distance = METRICS[name]().distance(X[index], x)
            assert torch.equal(distance, run.frontier.radius[index])


def test_rows_are_those_of_the_users_data() -> None:
    state = scan_of(classifier(linear), X, LABELS, metrics=("linf",), deltas=(0.1,))
    shifted = Samples(
        state.samples.index * 10 + 3,
        *(getattr(state.samples, n) for n in ("x", "labels", "prediction", "correct", "generator")),
    )
    moved = scan.run(replace(state, samples=shifted))
    arrays = artifacts.adversarial_arrays(moved)
    assert set(arrays["linf_index"] % 10) == {3}
    assert artifacts.samples_csv(moved).splitlines()[1].startswith("3,")


def test_pictures_are_of_images_only(done: ScanResult) -> None:
    assert artifacts.gallery(done) == []
    images = inputs(12, (1, 2, 2))
    labels = linear(images).argmax(1)
    drawn = scan.run(
        scan_of(classifier(linear, sample=(1, 2, 2)), images, labels, metrics=("linf",))
    )
    items = artifacts.gallery(drawn)
    assert 0 < len(items) <= artifacts.GALLERY
    assert [item.distance for item in items] == sorted(item.distance for item in items)
    for item in items:
        assert item.prediction != item.label
        for picture in (item.original, item.adversarial, item.difference):
            assert picture.startswith("data:image/png;base64,")


def test_a_folder_that_cannot_be_written_is_refused_before_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UsageError, match="is not a folder"):
        check_writable(file / "out")


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out" / "report.json"

    def write(text: str, *, stop: bool) -> None:
        with replacing(path) as temporary:
            temporary.write_text(text)
            if stop:
                raise KeyboardInterrupt

    write("whole", stop=False)
    with pytest.raises(KeyboardInterrupt):
        write("half", stop=True)
    assert path.read_text() == "whole"
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]
