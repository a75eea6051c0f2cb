"""Last steps of loading, common to all formats: input, number of classes, labels."""

from dataclasses import replace

import torch
from torch import Tensor

from audit.errors import ModelError
from audit.models.classifier import CUT, Classifier, Output, log_odds, two_columns
from audit.models.execution import Function
from audit.models.preprocess import InputSpec, Shape, make_spec
from audit.options import LoadOptions

FEW = 8
"""Number of samples on which a model is tried while loading; some take them one by one."""

DRAWS = 32
"""Number of random inputs, of each kind, on which a single output column is examined."""

GREYS = 11
"""Number of constant inputs, from the lower to the upper end of the box."""

PROBABILITY_TOLERANCE = 1e-5
"""Largest distance from [0, 1] that rounding can cause in an average of probabilities."""

READ_AS_PROBABILITY = (
    "The model's single output column lies in [0, 1] on the samples and on random inputs, so it "
    "is interpreted as the probability of class 1, with a decision threshold of 0.5."
)


def spec_for(sample: Tensor, shape: Shape, dtype: torch.dtype, options: LoadOptions) -> InputSpec:
    """Choose the conversion of samples of this shape to inputs of the model."""
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
    """Return the kind of output, as the report names it, of an ONNX head."""
    if head == "probabilities":
        return "probabilities"
    return "labels" if head == "labels" else "logits"


def labels_as_scores(run: Function, classes: int) -> Function:
    """Convert labels to one-hot scores, so that a unique top class exists.

    A label outside ``0..classes - 1`` gives a row of zeros, which has no unique top class.
    """

    def scores(x: Tensor) -> Tensor:
        labels = run(x).reshape(len(x), 1).long()
        return (labels == torch.arange(classes, device=labels.device)).float()

    return scores


def with_classes(classifier: Classifier, sample: Tensor) -> Classifier:
    """Count the classes by running the served model once.

    Raises:
        ModelError: there are fewer than two classes.
    """
    scores = two_columns(classifier.serve(classifier.spec.prepare(sample)), classifier.output)
    classes = scores.shape[1]
    if classes < 2:
        raise ModelError(
            f"The model returns {classes} value(s) per sample ({classifier.output}), but scores of "
            "at least two classes are expected: export the model with its scores as output."
        )
    return replace(classifier, classes=classes)


def read_column(classifier: Classifier, sample: Tensor) -> Classifier:
    """Interpret the single output column of a binary model as a probability if its values allow it.

    A column of logits that is never below 0 would predict class 1 for every input. So a column that
    stays in [0, 1] on the data and on random inputs of the box is interpreted as the probability of
    class 1: only this leaves two classes. All other models are returned unchanged.

    Args:
        classifier: the loaded model; a column after a known sigmoid is already "probabilities".
        sample: (N, ...) samples of the user's data.
    """
    if classifier.output != "logits":
        return classifier
    if not all(
        _is_probability(classifier, x) for x in (sample[:1], sample, box_inputs(classifier.spec))
    ):
        return classifier
    white_box = classifier.white_box
    return replace(
        classifier,
        output="probabilities",
        threshold=CUT,
        white_box=(
            None
            if white_box is None
            else replace(white_box, logits=lambda x: log_odds(white_box.logits(x)))
        ),
        notes=(*classifier.notes, READ_AS_PROBABILITY),
    )


@torch.no_grad()
def _is_probability(classifier: Classifier, x: Tensor) -> bool:
    """Return whether the served output for these samples is one column in [0, 1]."""
    for block in x.split(DRAWS):
        scores = classifier.serve(classifier.spec.prepare(block)).reshape(len(block), -1)
        # NaN fails these comparisons, as it must.
        inside = (scores >= -PROBABILITY_TOLERANCE) & (scores <= 1 + PROBABILITY_TOLERANCE)
        if scores.shape[1] != 1 or not bool(inside.all()):
            return False
    return True


def box_inputs(spec: InputSpec) -> Tensor:
    """Make samples in the box: `DRAWS` uniform, `DRAWS` corners, and `GREYS` constant ones."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand((DRAWS, *spec.sample), generator=generator)
    corners = torch.rand((DRAWS, *spec.sample), generator=generator).round()
    greys = torch.linspace(0, 1, GREYS).reshape(-1, *[1] * len(spec.sample))
    unit = torch.cat([uniform, corners, greys.expand(-1, *spec.sample)])
    return (spec.low + unit * (spec.high - spec.low)).clamp(spec.low, spec.high)
