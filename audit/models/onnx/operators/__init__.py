"""The supported operators, one family per file; importing this package fills the table."""

from audit.models.onnx.operators import (
    activation,
    arithmetic,
    attention,
    casting,
    indexing,
    linear,
    ml,
    movement,
    normalisation,
    pooling,
    quantisation,
    recurrent,
    reduction,
    resize,
    sampling,
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
    "movement",
    "normalisation",
    "pooling",
    "quantisation",
    "recurrent",
    "reduction",
    "resize",
    "sampling",
    "shape",
]
