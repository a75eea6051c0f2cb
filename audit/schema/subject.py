"""The model and the data of a scan."""

from typing import Literal

from audit.schema.base import Record


class ModelInput(Record):
    """Input of the served model, and the units in which radii are measured.

    ``shape`` is the model's own input shape, batch first; ``None`` marks a dynamic dimension.
    """

    shape: list[int | None]
    dtype: str
    layout: str | None
    low: float
    high: float
    mean: list[float] | None
    std: list[float] | None


class Parity(Record):
    """Largest absolute score difference between the served runtime and its differentiable copy."""

    max_abs_difference: float
    samples: int


class Model(Record):
    """The audited file, under Gaussian noise of standard deviation ``smoothed`` if that is set.

    Under noise, the prediction is the class that the model predicts most often.
    """

    path: str
    sha256: str
    format: str
    classes: int
    input: ModelInput
    output: Literal["logits", "probabilities", "labels"]
    gradient: Literal["native", "lifted", "none"]
    parity: Parity | None
    smoothed: float | None = None


class Data(Record):
    """The labelled samples: number in the file, number evaluated, number classified correctly."""

    path: str
    sha256: str
    available: int
    evaluated: int
    correct: int
