"""Python functions from a batch to scores: served unchanged, and never differentiated."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from audit.errors import ModelError, UsageError, explained, out_of_memory
from audit.models import execution
from audit.models.classifier import Classifier, Output, Provenance, looks_like_probabilities
from audit.models.devices import pick_device
from audit.models.execution import Function, require_rows
from audit.models.finish import FEW, labels_as_scores, read_column, spec_for, with_classes
from audit.models.score_only import LARGEST_LABEL
from audit.options import LoadOptions

CALLABLE_FORMAT = "callable"


Scorer = Callable[..., object]


def load_callable(
    function: Scorer, x: Tensor, options: LoadOptions, label_classes: int | None = None
) -> Classifier:
    """Wrap a function as a classifier without gradients.

    The function is given copies of the samples, as float32 on the CPU and always with the same
    number of rows: a NumPy array, or a torch tensor where it raises `TypeError` or
    `AttributeError` on an array. This is tried once, and the notes state the result.

    Args:
        function: maps a batch ``(B, ...)`` to scores ``(B, K)``, to one probability or logit per
            sample ``(B,)`` or ``(B, 1)``, or to class indices ``(B,)`` of an integer type; as a
            list, an array or a tensor.
        x: (N, ...) samples of the user's data, float32, in ``[low, high]``; two or more.
        options: the user's statements about the model; ``trust_model`` has no effect.
        label_classes: number of classes of a function that returns class indices; if it is
            None, one more than the largest index returned for ``x``.

    Raises:
        ModelError: the function fails on the samples, or returns anything other than scores. An
            exception of the function is its cause.
        UsageError: an option does not fit the samples, or ``function`` cannot be called.
    """
    if not callable(function):
        raise UsageError(
            "A function from a batch to scores is expected, found an object of type "
            f"{type(function).__name__}: pass a callable."
        )
    name = qualified_name(function)
    spec = spec_for(x, (), torch.float32, options)
    rows = execution.call_rows(spec.sample)
    inputs = spec.prepare(x[:FEW])
    form = _form_of(function, inputs, name)
    run = execution.in_calls_of(rows, _scorer(function, form, name))
    scores = run(inputs)
    output: Output = "logits"
    if not scores.is_floating_point():
        output = "labels"
        run = labels_as_scores(
            run, max(2, label_classes or _classes_of_labels(run(spec.prepare(x))))
        )
    elif looks_like_probabilities(scores.reshape(len(scores), -1)):
        output = "probabilities"
    classifier = Classifier(
        spec=spec,
        classes=0,
        output=output,
        source=Provenance(name, "", CALLABLE_FORMAT),
        serve=run,
        device=pick_device(options.device),
        notes=(
            "No gradients: the model is a Python function, of which only the outputs are known.",
            f"The function {name} is called with {INPUT_FORMS[form]} of type float32 and "
            f"{rows} rows.",
        ),
    )
    return read_column(with_classes(classifier, x[:FEW]), x)


def qualified_name(function: Scorer) -> str:
    """Return the module and qualified name of a callable; for an object, those of its class."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _as_array(x: Tensor) -> object:
    return np.array(x.numpy(), dtype=np.float32, order="C")


def _as_tensor(x: Tensor) -> object:
    return x.to(torch.float32).contiguous().clone()


Form = Callable[[Tensor], object]
INPUT_FORMS: dict[Form, str] = {_as_array: "NumPy arrays", _as_tensor: "torch tensors"}
"""Input types that a function may accept, in the order in which they are tried."""


@torch.no_grad()
def _form_of(function: Scorer, inputs: Tensor, name: str) -> Form:
    """Find out which input type the function accepts.

    Raises:
        ModelError: it accepts neither, or fails for another reason.
    """
    try:
        function(_as_array(inputs))
        return _as_array
    except (TypeError, AttributeError) as error:
        refusal = explained(error)
        try:
            function(_as_tensor(inputs))
            return _as_tensor
        except Exception as second:  # the user's code may raise anything
            if out_of_memory(second):
                raise
            raise ModelError(
                f"{name} fails on a batch of shape {tuple(inputs.shape)}, both as a NumPy array "
                f"({refusal}) and as a torch tensor ({explained(second)}): it must take one batch "
                "of samples as float32 and return their scores."
            ) from second
    except Exception as error:
        if out_of_memory(error):
            raise
        raise _failure(name, inputs, error) from error


def _failure(name: str, x: Tensor, error: Exception) -> ModelError:
    return ModelError(
        f"{name} fails on a batch of shape {tuple(x.shape)} ({explained(error)}): it must take one "
        "batch of samples as float32 and return their scores."
    )


def _scorer(function: Scorer, form: Form, name: str) -> Function:
    """Return the function from inputs to scores as float32, or to class indices as int64."""

    @torch.no_grad()
    def run(x: Tensor) -> Tensor:
        try:
            result = function(form(x))
        except Exception as error:  # the user's code may raise anything
            if out_of_memory(error):
                raise
            raise _failure(name, x, error) from error
        array = _numbers(result, name)
        require_rows(array.shape, len(x))
        # One integer per sample is a class index; several are votes.
        if array.dtype.kind in "biu" and array.size == len(x):
            return torch.from_numpy(array.astype(np.int64))
        return torch.from_numpy(array.astype(np.float32))

    return run


def _numbers(result: object, name: str) -> "np.ndarray[tuple[int, ...], np.dtype[np.generic]]":
    """Return a result as an array of numbers.

    Raises:
        ModelError: the result is not an array of numbers.
    """
    if isinstance(result, (list, tuple)):
        result = [_on_cpu(row) for row in result]
    try:
        array = np.asarray(_on_cpu(result))
    except Exception as error:  # objects convert themselves, and rows may differ in length
        raise ModelError(
            f"{name} returns a {type(result).__name__} that is not an array of numbers "
            f"({explained(error)}): return scores of shape (batch, classes)."
        ) from error
    if array.dtype.kind not in "biuf":
        raise ModelError(
            f"{name} returns a {type(result).__name__} of type {array.dtype}, but numbers are "
            "expected: return scores of shape (batch, classes), or class indices."
        )
    return array


def _on_cpu(value: object) -> object:
    """Return a tensor as an array; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    stored = value.detach().cpu()
    # NumPy lacks some narrow float types.
    return (stored.float() if stored.is_floating_point() else stored).numpy()


def _classes_of_labels(labels: Tensor) -> int:
    """Return the number of classes implied by the largest plausible index."""
    known = labels[labels < LARGEST_LABEL]
    return int(known.max()) + 1 if len(known) else 2
