"""Mutated files end in the tool's own errors; `bench/fuzz_onnx.py` does the same at length."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import zoo
from bench.fuzz_onnx import MUTATIONS, load, mutated

KINDS = [("plain", "cnn", 17), ("plain", "lstm_bi2", 11), ("resize_nearest", "resnet", 11)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated")


@pytest.fixture(scope="module")
def sources(folder):
    return [
        zoo.write(zoo.Recipe(kind, name, "script", opset), folder) for kind, name, opset in KINDS
    ]


def test_a_valid_file_runs_and_a_foreign_error_is_seen(sources, monkeypatch):
    assert load(sources[0]) == "loaded and run"
    monkeypatch.setattr("bench.fuzz_onnx.lift", lambda _: {}["foreign"])
    assert load(sources[0]).startswith("foreign on lift: KeyError")


def test_mutations_are_those_of_their_number(sources):
    made = [mutated(sources, 0, number) for number in range(60)]
    assert made == [mutated(sources, 0, number) for number in range(60)]
    assert {name for name, _ in made} >= set(MUTATIONS)


@settings(max_examples=150, deadline=10_000)
@given(number=st.integers(0, 10**6))
def test_a_mutated_file_ends_in_one_family_of_errors(folder, sources, number):
    name, data = mutated(sources, 1, number)
    file = folder / "mutated.onnx"
    file.write_bytes(data)
    outcome = load(file)
    assert outcome.startswith(("refused", "loaded")), (name, outcome)
