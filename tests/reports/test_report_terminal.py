"""The terminal text fits its width, keeps its colours to itself, and quotes nothing that acts."""

import re

import pytest
from golden import COMMAND, golden
from rich.cells import cell_len

from reports.numbers import budget, proportion
from reports.terminal import render


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_lines_fit_the_width(width: int) -> None:
    assert max(map(cell_len, render(golden(), width=width).splitlines())) <= width


def test_colour_is_written_only_on_request() -> None:
    assert "\x1b" not in render(golden())
    coloured = render(golden(), color=True)
    assert "\x1b[" in coloured
    plain = re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert "\x1b" not in plain
    assert plain.split() == render(golden()).split()


def test_colours_do_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    before = render(golden()), render(golden(), color=True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    assert before == (render(golden()), render(golden(), color=True))


def test_control_characters_and_markup_are_shown_not_obeyed() -> None:
    report = golden().model_copy(
        update={
            "warnings": ["\x1b]0;owned\x07 \u202e [red]x[/red] [/nonsense] :smile:\r\nclean 100 %"]
        }
    )
    text = render(report, color=True, width=200)
    assert "\\u001b]0;owned\\u0007 \\u202e [red]x[/red] [/nonsense] :smile:" in text
    assert "\\u000d\\u000aclean 100 %" in text


def test_the_header_states_verdict_and_both_denominators() -> None:
    head = render(golden(), width=200)[:1500]
    assert "clean 98.9 % (989 of 1,000 correct; accuracies count all 1,000 samples)" in head
    assert "RED" in head
    assert "FAIL" in head
    assert "PARTIAL" in head
    assert "order inf, delta 12/255 (0.04706): the strongest adversary leaves at least" in head


def accuracies(text: str, metric: str) -> list[str]:
    """The lines of the table of accuracies of a metric."""
    lines = text.splitlines()
    start = next(i for i, s in enumerate(lines) if s.startswith(f"{metric}: accuracy against"))
    end = next(i for i, s in enumerate(lines) if s.startswith(f"{metric}: attacks"))
    return lines[start:end]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("orders", [("inf",), ("inf", "2", "1"), ("inf", "2", "1", "1.5", "4")])
def test_each_order_heads_its_rows_once_and_no_row_is_broken(
    width: int, orders: tuple[str, ...]
) -> None:
    threats = []
    for threat in golden().threats:
        curves = [threat.curves[0].model_copy(update={"order": order}) for order in orders]
        threats.append(threat.model_copy(update={"curves": curves}))
    text = render(golden().model_copy(update={"threats": threats}), width=width)
    for threat in threats:
        table = accuracies(text, threat.metric)
        assert [line for line in table if line.startswith("order")] == [
            f"order {o}" for o in orders
        ]
        assert sum("attacked (at most)" in line for line in table) == 1
        for point in threat.curves[0].points:
            rows = [
                line for line in table if line.startswith(f"{budget(point.delta, threat.metric)} ")
            ]
            assert len(rows) == len(orders)
            for row in rows:
                for side, interval in (
                    ("attacked", point.attacked),
                    ("certified", point.certified),
                ):
                    shown = proportion(interval, side)
                    assert f"{shown.value.removesuffix(' %')} {shown.ends}" in row


def test_a_long_class_name_does_not_break_the_numbers() -> None:
    threat = golden().threats[0]
    classes = [threat.classes[0].model_copy(update={"name": "a very long name " * 8})]
    report = golden().model_copy(
        update={"threats": [threat.model_copy(update={"classes": classes})]}
    )
    (point, *_) = classes[0].points
    for width in (60, 80):
        text = render(report, width=width)
        shown = proportion(point.attacked, "attacked")
        assert f"{shown.value.removesuffix(' %')} {shown.ends}" in text


def test_trouble_comes_first_and_passes_are_counted() -> None:
    text = render(golden(), full=False)
    order = [
        text.index(f"{status} {title}")
        for status, title in (
            ("fail", "Unlimited budget breaks every sample (linf)"),
            ("error", "Search without gradients finds no more (l2)"),
            ("warn", "Gradients match finite differences"),
        )
    ]
    assert order == sorted(order)
    assert "3 of 7 checks passed" in text
    assert "[parity" not in text
    assert "[parity: " in render(golden())


def test_the_end_says_where_the_files_are_and_how_to_repeat() -> None:
    tail = render(golden(), width=240)[-600:]
    for part in ("report.html", "samples.csv", "adversarial.npz", COMMAND):
        assert part in tail


@pytest.mark.parametrize("width", [40, 60, 80])
def test_large_costs_of_attacks_are_never_cut(width: int) -> None:
    threat = golden().threats[0]
    costly = threat.attacks[1].model_copy(
        update={"forwards": 123_456_789_012, "gradients": 98_765_432_109, "seconds": 98765.4}
    )
    report = golden().model_copy(
        update={"threats": [threat.model_copy(update={"attacks": [costly]})]}
    )
    text = render(report, width=width)
    for number in ("123,456,789,012", "98,765,432,109", "98800 s"):
        assert number in text
