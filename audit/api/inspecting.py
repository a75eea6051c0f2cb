"""`audit.inspect`: describe a model, and find the command that scans it."""

from pathlib import Path
from typing import Unpack

from audit.api.arguments import InspectArguments, documented
from audit.api.inputs import DataLike, ModelLike, check_model, loader_of, open_samples
from audit.inspection import Inspection, inspect_model
from audit.options import INSPECT, options_from


@documented(*INSPECT)
def inspect(
    model: ModelLike, data: DataLike | None = None, **options: Unpack[InspectArguments]
) -> Inspection:
    """Describe a model, and find the command that scans it.

    Args:
        model: a file, a ``torch.nn.Module``, or a function from a batch to scores.
        data: labelled samples, or None; required for a model that is not an ONNX file.
        options: the options of ``audit inspect``, with ``_`` for ``-``.

    Returns:
        Facts in the order in which they are shown, and the command of a scan, if one is known.

    Raises:
        AuditError: an option, the model or the data cannot be used.
    """
    loading, reading = options_from(INSPECT, options, "audit.inspect")
    check_model(model, loading)
    dataset = None
    if data is not None:
        dataset = open_samples(data, reading, loading.low, loading.high)
    path = Path(model) if isinstance(model, str | Path) else None
    named = Path(data) if isinstance(data, str | Path) else None
    return inspect_model(path, dataset, loading, named, loader_of(model, loading))
