"""The operators, a family per file; importing this package fills the table."""

from audit.models.onnx.operators import (
    activation,
    arithmetic,
    attention,
    casting,
    indexing,
    linear,
    ml,
    normalisation,
    pooling,
    quantisation,
    recurrent,
    reduction,
    resize,
    shape,
)

__all__ = [
    "activation",
    "arithmetic",
    "attention",
    "casting",
    "indexing",
    "linear",
    "ml",
    "normalisation",
    "pooling",
    "quantisation",
    "recurrent",
    "reduction",
    "resize",
    "shape",
]
