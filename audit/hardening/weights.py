"""Opening of a model file for training, and the choice of the weights that are trained."""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from torch import Tensor

from audit.errors import ModelError, UsageError
from audit.hardening.archive_weights import open_exported_weights, open_script_weights
from audit.hardening.onnx_weights import open_onnx_weights
from audit.hardening.trainable import Trainable
from audit.models.classifier import Classifier
from audit.models.files import identify
from audit.options import LoadOptions

OPENERS: Mapping[str, Callable[[Path, Classifier, LoadOptions, Tensor], Trainable]] = {
    "onnx": open_onnx_weights,
    "torchscript": open_script_weights,
    "torch.export": open_exported_weights,
}
"""Functions that open a file for training, by the kind that `audit.models.files.identify` gives."""

LISTED_NAMES = 8
"""Largest number of names in an error message."""


def open_trainable(
    path: Path,
    classifier: Classifier,
    options: LoadOptions,
    sample: Tensor,
    freeze: Iterable[str] = (),
) -> Trainable:
    """Open a model file for training.

    Args:
        path: file that ``classifier`` was loaded from.
        classifier: the loaded model; it defines preprocessing and output.
        options: options that it was loaded with.
        sample: (2 or more, ...) samples.
        freeze: patterns of names of weights that are not trained, e.g. ``conv1.*``.

    Raises:
        ModelError: the model cannot be trained; the message states the reason.
        UsageError: a pattern of ``freeze`` matches no weight, or no weight is left to train.
    """
    if classifier.output == "labels":
        raise ModelError(
            f"{path} serves labels only, so it has no scores to train. Remove the final ArgMax and "
            "harden the model that returns scores."
        )
    opened = OPENERS[identify(path)](path, classifier, options, sample)
    patterns = tuple(freeze)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in opened.weights):
            raise UsageError(
                f"--freeze {pattern} matches no weight: choose from {_some(opened.weights)}."
            )
    kept = {
        name: value
        for name, value in opened.weights.items()
        if not any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not kept:
        raise UsageError("--freeze leaves no weight to train: freeze fewer weights.")
    frozen = (*opened.frozen, *(name for name in opened.weights if name not in kept))
    for name, value in opened.weights.items():
        value.requires_grad_(name in kept)
    return Trainable(opened.logits, kept, frozen, opened.file, opened.notes)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:LISTED_NAMES]) + (", …" if len(listed) > LISTED_NAMES else "")
