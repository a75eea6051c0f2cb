"""Loading of a served file, a torch module or a function as a `Classifier`."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from audit.models.classifier import Classifier
from audit.models.devices import pick_device
from audit.models.files import identify
from audit.models.finish import FEW, read_column
from audit.models.from_callable import load_callable
from audit.models.from_module import load_module
from audit.models.preprocess import InputSpec
from audit.options import LoadOptions

__all__ = [
    "Classifier",
    "InputSpec",
    "LoadOptions",
    "load_callable",
    "load_classifier",
    "load_module",
    "pick_device",
]


def load_classifier(
    path: Path, sample: Tensor, options: LoadOptions, *, label_classes: int = 2
) -> Classifier:
    """Load a served model for samples like the given ones.

    Args:
        path: ONNX file, TorchScript archive or torch.export archive; the bytes decide which.
        sample: (2 or more, ...) samples of the user's data, float32, in ``[low, high]``. The model
            is loaded for the first `FEW`; all decide how a single column is interpreted.
        options: the user's statements about the model.
        label_classes: number of classes to assume if the model returns labels and no scores.

    Raises:
        ModelError: the file is missing, broken, untrusted, or does not fit the samples.
        UsageError: an option does not fit the model or the samples.
    """
    device = pick_device(options.device)
    kind = identify(path)
    if kind == "onnx":
        from audit.models.load_onnx import load_onnx

        load: Callable[..., Classifier] = load_onnx
    else:
        from audit.models.load_torch import load_exported, load_torchscript

        load = load_torchscript if kind == "torchscript" else load_exported
    classes = max(2, label_classes)
    loaded = load(path, sample[:FEW], options, device=device, label_classes=classes)
    return read_column(loaded, sample)
