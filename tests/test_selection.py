"""The quick selection of tests: every entry of the list of slow files exists."""

from pathlib import Path

from conftest import SLOW, is_slow

TESTS = Path(__file__).resolve().parent


def test_every_slow_file_exists() -> None:
    assert [name for name in SLOW if not (TESTS / name).is_file()] == []


def test_a_file_is_slow_only_if_it_is_listed() -> None:
    assert all(is_slow(TESTS / name) for name in SLOW)
    assert not is_slow(Path(__file__))
