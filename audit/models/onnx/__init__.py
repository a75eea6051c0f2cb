"""ONNX classifiers: safe loading, and an interpreter in torch with gradients."""

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
        UnsupportedOperator: an operator, or a variant of one, is not supported.
        ModelError: the model is not a classifier with one input, or its graph is broken.
    """
    try:
        model = inline_functions(model)
        require_order(model.graph)
        return OnnxModule(model)
    except AuditError:
        raise
    except Exception as error:  # protobuf fields of a broken file may hold anything
        raise ModelError(
            f"The ONNX graph cannot be read ({error}): export the model again."
        ) from error
