"""The importer against onnx's own node cases: right, or refused; never silently wrong."""

import functools
import warnings
from collections import defaultdict

import numpy as np
import onnx
import torch

from audit.errors import AuditError
from audit.models.onnx import operators  # noqa: F401  (fills the table)
from audit.models.onnx.dtypes import FLOAT8, TORCH, to_tensor
from audit.models.onnx.lifting import lift_graph
from audit.models.onnx.node import OPERATORS
from audit.models.onnx.program import execute, with_frees
from audit.models.onnx.reader import inline_functions


@functools.cache
def cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy overflows while onnx makes its expected values
        from onnx.backend.test.loader import load_model_tests

        found = load_model_tests(kind="node")
    return {case.name: case for case in found if case.model is not None}


EIGHT_BIT_FLOATS = {str(kind).removeprefix("torch."): kind for kind in FLOAT8}


def tensor(value):
    """A case's array as torch; what torch cannot hold is refused like a model that needs it."""
    if isinstance(value, onnx.TensorProto):
        return to_tensor(value)
    if not isinstance(value, np.ndarray | np.generic):
        raise AuditError("not a tensor")
    value = np.asarray(value)
    if str(value.dtype) == "bfloat16":
        return torch.from_numpy(value.view(np.int16).copy()).view(torch.bfloat16)
    if str(value.dtype) in EIGHT_BIT_FLOATS:
        return torch.from_numpy(value.view(np.uint8).copy()).view(
            EIGHT_BIT_FLOATS[str(value.dtype)]
        )
    if value.dtype.kind not in "fiub":
        raise AuditError(f"type {value.dtype}")
    try:
        return torch.from_numpy(np.array(value))
    except TypeError as error:
        raise AuditError(f"type {value.dtype}") from error


def run(model, inputs):
    model = inline_functions(model)
    targets = [value.name for value in model.graph.output if value.name]
    lifted = lift_graph(model, targets)
    values = {**lifted.constants, **lifted.parameters, **lifted.buffers}
    for value, array in zip(model.graph.input, inputs, strict=True):
        values[value.name] = tensor(array)
    kept = {lifted.names[name] for name in targets}
    with torch.no_grad():
        execute(with_frees(lifted.steps, kept | set(values)), values)
    results = []
    for value in model.graph.output:
        if value.name:
            result = values[lifted.names[value.name]]
            dtype = TORCH.get(value.type.tensor_type.elem_type)
            if (
                dtype is not None
                and not dtype.is_floating_point
                and isinstance(result, torch.Tensor)
            ):
                result = result.to(dtype)
            results.append(result)
    return results


def differs(got, expected, case):
    expected = tensor(expected)
    if not isinstance(got, torch.Tensor):
        return "not a tensor"
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return f"{got.dtype}{list(got.shape)}, expected {expected.dtype}{list(expected.shape)}"
    # A bfloat16 has 8 bits: one rounding in another place moves a number by 2^-8 of its size.
    loose = {torch.float16: (1e-2, 1e-3), torch.bfloat16: (1e-2, 1e-2)}
    rtol, atol = loose.get(expected.dtype, (max(case.rtol, 1e-3), max(case.atol, 1e-5)))
    same = torch.allclose(got.double(), expected.double(), rtol, atol, equal_nan=True)
    return "" if same else f"off by {(got.double() - expected.double()).abs().max():.2g}"


def outcome(case):
    """`correct`, `refused: why` or `wrong: why`."""
    try:
        for inputs, outputs in case.data_sets:
            results = run(case.model, inputs)
            for got, expected in zip(results, outputs, strict=True):
                difference = differs(got, expected, case)
                if difference:
                    return f"wrong: {difference}"
    except AuditError as error:
        return f"refused: {error}"
    return "correct"


# Measured with onnx 1.23: correct cases of one known operator each, and of all. A newer onnx
# may add cases; fewer correct ones are a step back. Refused are strings, sequences, 2- and 4-bit
# types, 8-bit floats where they are computed with, training mode, contradictions of runtimes.
CORRECT_SINGLE, CORRECT_ALL = 1077, 1470


@functools.cache
def outcomes():
    return {name: outcome(case) for name, case in cases().items()}


def operator_of(case):
    """The only operator of a case, None where there are several."""
    found = {(node.domain, node.op_type) for node in case.model.graph.node}
    return found.pop() if len(found) == 1 else None


@functools.cache
def groups():
    grouped = defaultdict(list)
    for name, case in cases().items():
        operator = operator_of(case)
        if operator in OPERATORS and "_expanded" not in name:
            grouped[operator[1]].append(name)
    return grouped


def test_no_case_of_an_operator_is_wrong_and_some_are_right():
    """One test for all operators: onnx takes seconds to make its cases, too long to collect by."""
    found = {
        operator: {name: outcomes()[name] for name in names} for operator, names in groups().items()
    }
    assert len(found) > 100
    for operator, texts in found.items():
        assert not {name: text for name, text in texts.items() if text.startswith("wrong")}
        assert "correct" in texts.values(), (operator, texts)


def test_no_case_at_all_is_wrong():
    assert not {name: text for name, text in outcomes().items() if text.startswith("wrong")}


def test_as_many_cases_are_right_as_were_measured():
    single = [name for names in groups().values() for name in names]
    assert sum(outcomes()[name] == "correct" for name in single) >= CORRECT_SINGLE
    assert sum(text == "correct" for text in outcomes().values()) >= CORRECT_ALL


def test_the_harness_sees_a_wrong_value():
    case = cases()["test_relu"]
    broken = onnx.ModelProto.FromString(case.model.SerializeToString())
    broken.graph.node[0].op_type = "Neg"
    assert differs(run(broken, case.data_sets[0][0])[0], case.data_sets[0][1][0], case)
