"""The comparison of two revisions: one changed digit is found, an addition is told apart."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from scripts.revisions.difference import Found, compare_folders

REPORT: dict[str, Any] = {
    "schema_version": 1,
    "created": "2024-01-01T00:00:00+00:00",
    "status": "complete",
    "clean": {"value": 0.1, "low": 0.05, "high": None},
    "threats": [
        {
            "metric": metric,
            "attacks": [
                {"name": "fgsm", "broken": 3, "forwards": 40, "seconds": 1.5, "detail": "One step."}
            ],
            "curves": [{"order": "inf", "points": [{"delta": 0.1, "attacked": 0.3}]}],
            "radii": {"edges": [0.0, 0.1, 0.2]},
        }
        for metric in ("linf", "l2")
    ],
    "health": [
        {"id": "parity", "metric": None, "status": "pass", "finding": "They agree."},
        {"id": "square", "metric": "linf", "status": "pass", "finding": "No more."},
    ],
    "warnings": ["A subset."],
}
TABLE = "index,linf_attacked\n0,0.1\n1,0.2\n"


def write(folder: Path, report: Any, table: str = TABLE, **arrays: Any) -> Path:
    inside = folder / "r"
    inside.mkdir(parents=True)
    (inside / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (inside / "samples.csv").write_bytes(table.encode())
    (inside / "report.html").write_text("<html>", encoding="utf-8")
    x = {"linf_x": np.linspace(0, 1, 5, dtype=np.float32), **arrays}
    np.savez(inside / "adversarial.npz", **x)
    save_file({"weight": x["linf_x"]}, inside / "weights.safetensors")
    return folder


def compared(tmp_path: Path, report: Any, *words: str, **arrays: Any) -> Found:
    old = write(tmp_path / "old", REPORT)
    return compare_folders(old, write(tmp_path / "new", report, *words, **arrays))


def changed() -> Any:
    return copy.deepcopy(REPORT)


def test_the_same_folder_differs_nowhere_and_counts_its_values(tmp_path: Path) -> None:
    report = changed()
    report["created"], report["threats"][0]["attacks"][0]["seconds"] = "now", 99.0
    found = compared(tmp_path, report)
    assert (found.differences, found.new, found.reworded) == ([], [], [])
    # The report's 30 values, 4 cells, 5 elements of each array.
    assert found.values == 30 + 4 + 5 + 5


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("clean", "value"), 0.1 + 2**-56, "clean value: 0.1 -> 0.10000000000000002"),
        (("clean", "high"), 0.0, "clean high: None -> 0.0"),
        (("clean", "low"), None, "clean low: 0.05 -> None"),
        (("status",), "interrupted", "status: 'complete' -> 'interrupted'"),
        (
            ("threats", 1, "attacks", 0, "forwards"),
            41,
            "threats l2 attacks fgsm forwards: 40 -> 41",
        ),
        (("threats", 0, "curves", 0, "points", 0, "attacked"), 0.31, "points 0.1 attacked: 0.3 ->"),
        (("threats", 0, "radii", "edges", 2), 0.3, "radii edges [2]: 0.2 -> 0.3"),
        (("health", 0, "status"), "warn", "health parity status: 'pass' -> 'warn'"),
    ],
)
def test_one_digit_is_a_difference(
    tmp_path: Path, where: tuple[Any, ...], value: Any, said: str
) -> None:
    report = changed()
    place = report
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    found = compared(tmp_path, report)
    assert len(found.differences) == 1
    assert said in found.differences[0]
    assert found.new == []


def test_only_keys_and_health_checks_are_new(tmp_path: Path) -> None:
    report = changed()
    report["clean"]["samples"] = 40
    report["health"].insert(
        0, {"id": "masking", "metric": None, "status": "pass", "finding": "None."}
    )
    report["threats"][0]["curves"].append({"order": "2", "points": []})
    report["threats"][0]["radii"]["edges"].append(0.3)
    found = compared(tmp_path, report)
    assert found.new == ["r/report.json clean samples", "r/report.json health masking"]
    assert found.differences == [
        "r/report.json threats linf curves 2: was not there",
        "r/report.json threats linf radii edges [3]: was not there",
    ]


def test_what_is_missing_is_a_difference(tmp_path: Path) -> None:
    report = changed()
    del report["clean"]["low"]
    report["health"].clear()
    report["threats"].pop()
    old, new = write(tmp_path / "old", REPORT), write(tmp_path / "new", report)
    (new / "r" / "weights.safetensors").unlink()
    (new / "r" / "harden.json").write_text("{}", encoding="utf-8")
    found = compare_folders(old, new)
    assert found.differences == [
        "r/weights.safetensors: missing",
        "r/report.json clean low: missing",
        "r/report.json threats l2: missing",
        "r/report.json health parity: missing",
        "r/report.json health square linf: missing",
    ]
    assert found.new == ["r/harden.json"]


def in_version_1(report: Any, **statuses: str) -> Any:
    """The report with health checks as schema version 1 wrote them."""
    report["health"] = [
        {
            "check": ".".join(filter(None, [entry["id"], entry["metric"]])),
            "status": statuses.get(entry["id"], entry["status"]),
            "detail": "Other words.",
        }
        for entry in report["health"]
    ]
    return report


def test_health_checks_of_version_1_are_matched_with_those_of_version_2(tmp_path: Path) -> None:
    new = write(tmp_path / "new", REPORT)
    old = write(tmp_path / "old", in_version_1(changed()))
    found = compare_folders(old, new)
    assert (found.differences, found.new) == ([], [])
    assert len(found.reworded) == 2
    # The comparison reads statuses: one that differs is told.
    other = write(tmp_path / "other", in_version_1(changed(), square="warn"))
    found = compare_folders(other, new)
    assert found.differences == ["r/report.json health square linf status: 'warn' -> 'pass'"]


def test_an_attack_that_ran_twice_is_compared_twice(tmp_path: Path) -> None:
    twice, other = changed(), changed()
    for report in (twice, other):
        report["threats"][0]["attacks"].append(dict(report["threats"][0]["attacks"][0]))
    other["threats"][0]["attacks"][1]["broken"] = 4
    found = compare_folders(write(tmp_path / "old", twice), write(tmp_path / "new", other))
    assert found.differences == ["r/report.json threats linf attacks fgsm (2) broken: 3 -> 4"]


def test_a_sentence_may_be_worded_anew(tmp_path: Path) -> None:
    report = changed()
    report["health"][0]["finding"] = "Both agree."
    report["warnings"].append("More.")
    found = compared(tmp_path, report)
    assert found.differences == []
    assert len(found.reworded) == 2


def test_cells_and_array_elements_are_compared_to_the_last_bit(tmp_path: Path) -> None:
    x = np.linspace(0, 1, 5, dtype=np.float32)
    x[3] = np.nextafter(x[3], np.float32(1))
    table = "index,linf_attacked,l2_attacked\n0,0.1,1\n1,0.20,1\n"
    found = compared(tmp_path, REPORT, table, linf_x=x, l2_x=x)
    assert found.differences == [
        "r/adversarial.npz linf_x: 1 of 5 values differ",
        "r/samples.csv linf_attacked row 1: 0.2 -> 0.20",
        "r/weights.safetensors weight: 1 of 5 values differ",
    ]
    assert found.new == ["r/adversarial.npz l2_x", "r/samples.csv l2_attacked"]


def test_a_type_is_part_of_an_array_and_bytes_of_a_table(tmp_path: Path) -> None:
    wide = np.linspace(0, 1, 5)
    found = compared(tmp_path, REPORT, TABLE.replace("\n", "\r\n"), linf_x=wide)
    assert found.differences == [
        "r/adversarial.npz linf_x: float32[5] -> float64[5]",
        "r/samples.csv: the cells are the same, the bytes are not",
        "r/weights.safetensors weight: float32[5] -> float64[5]",
    ]
