"""ONNX classifiers: safe loading, and an interpreter that gives torch values and gradients."""

import onnx

from audit.errors import AuditError, ModelError
from audit.models.onnx import operators as operators
from audit.models.onnx.flow import require_order
from audit.models.onnx.module import OnnxModule
from audit.models.onnx.reader import inline_functions, read_model

__all__ = ["OnnxModule", "lift", "read_model"]


def lift(model: onnx.ModelProto) -> OnnxModule:
    """Translate an ONNX model into a torch module.

    Raises:
        UnsupportedOperator: an operator, or a variant of one, that the importer does not know.
        ModelError: not a classifier with one input, or a broken graph.
    """
    try:
        model = inline_functions(model)
        require_order(model.graph)
        return OnnxModule(model)
    except AuditError:
        raise
    except Exception as error:  # protobuf fields of a broken file hold anything, even under `str`
        raise ModelError(
            f"The ONNX graph cannot be read ({error}): export the model again."
        ) from error
