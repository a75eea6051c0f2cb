"""The last steps of loading any format: the input's reading, the number of classes, labels."""

from dataclasses import replace

import torch
from torch import Tensor

from audit.errors import ModelError
from audit.models.classifier import Classifier, Output, two_columns
from audit.models.execution import Function
from audit.models.load_options import LoadOptions
from audit.models.preprocess import InputSpec, Shape, make_spec


def spec_for(sample: Tensor, shape: Shape, dtype: torch.dtype, options: LoadOptions) -> InputSpec:
    """How samples of this shape become inputs of that model."""
    return make_spec(
        sample=tuple(sample.shape[1:]),
        shape=shape,
        dtype=dtype,
        layout=options.layout,
        low=options.low,
        high=options.high,
        mean=options.mean,
        std=options.std,
    )


def output_of(head: str) -> Output:
    """The report's word for what an importer head serves."""
    if head == "probabilities":
        return "probabilities"
    return "labels" if head == "labels" else "logits"


def labels_as_scores(run: Function, classes: int) -> Function:
    """Serve labels as one-hot scores, so that 'unique top class' keeps its meaning.

    A label outside ``0..classes - 1`` gives a row of zeros: no class is its unique top one.
    """

    def scores(x: Tensor) -> Tensor:
        labels = run(x).reshape(len(x), 1).long()
        return (labels == torch.arange(classes, device=labels.device)).float()

    return scores


def with_classes(classifier: Classifier, sample: Tensor) -> Classifier:
    """Count the classes by running the served model once, and check that there are scores.

    Raises:
        ModelError: fewer than two classes.
    """
    scores = two_columns(classifier.serve(classifier.spec.prepare(sample)), classifier.output)
    classes = scores.shape[1]
    if classes < 2:
        raise ModelError(
            f"The model returns {classes} value per sample ({classifier.output}), but scores of "
            "two classes or more are expected: export the model with its scores as output."
        )
    return replace(classifier, classes=classes)
