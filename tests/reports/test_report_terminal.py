"""The terminal text fits its width, keeps its colours to itself, and quotes nothing that acts."""

import re

import pytest
from golden import COMMAND, golden
from rich.cells import cell_len

from reports.terminal import render


@pytest.mark.parametrize("width", [60, 80, 100, 160])
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


def test_three_orders_fit_one_table_at_the_usual_width() -> None:
    rows = [line for line in render(golden()).splitlines() if line.startswith("2/255  ")]
    assert len(rows[0].split()) == 1 + 2 * 3


def test_trouble_comes_first_and_passes_are_counted() -> None:
    text = render(golden(), full=False)
    assert text.index("fail unbounded_attack") < text.index("warn finite_differences")
    assert "3 of 6 checks passed" in text
    assert "pass parity" not in text
    assert "pass parity" in render(golden())


def test_the_end_says_where_the_files_are_and_how_to_repeat() -> None:
    tail = render(golden(), width=240)[-600:]
    for part in ("report.html", "samples.csv", "adversarial.npz", COMMAND):
        assert part in tail
