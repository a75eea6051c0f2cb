"""ONNX classifiers: safe loading, and an interpreter that gives torch values and gradients."""

import onnx

from audit.models.onnx import operators as operators
from audit.models.onnx.module import OnnxModule
from audit.models.onnx.reader import inline_functions, read_model

__all__ = ["OnnxModule", "lift", "read_model"]


def lift(model: onnx.ModelProto) -> OnnxModule:
    """The model as a torch module.

    Raises:
        UnsupportedOperator: an operator, or a variant of one, that the importer does not know.
        ModelError: not a classifier with one input, or a broken graph.
    """
    return OnnxModule(inline_functions(model))
