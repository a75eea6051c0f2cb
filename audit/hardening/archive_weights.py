"""Trained weights of TorchScript and torch.export archives: all named parameters.

An archive is saved in its own format. It is trained in evaluation mode, so batch norm keeps its
statistics and dropout stays inactive.
"""

import io
from pathlib import Path

import torch
from torch import Tensor

from audit.errors import ModelError
from audit.hardening.trainable import Trainable
from audit.models import exported, torchscript
from audit.models.classifier import Classifier
from audit.models.execution import last_line, one_tensor
from audit.models.preprocess import as_dtype
from audit.options import LoadOptions


def open_script_weights(
    path: Path, classifier: Classifier, options: LoadOptions, sample: Tensor
) -> Trainable:
    """Open a TorchScript archive for training; see `audit.hardening.weights.open_trainable`."""
    del sample
    module = torchscript.read_script(path, trusted=options.trust_model, device=classifier.device)
    weights = dict(module.named_parameters())
    if not weights:
        raise ModelError(
            f"{path} is a frozen TorchScript archive: its weights are constants of the code. Save "
            "it without torch.jit.freeze."
        )
    _require_logits(path, classifier)
    call, spec = one_tensor(module, last_line), classifier.spec

    def file() -> bytes:
        buffer = io.BytesIO()
        torch.jit.save(module, buffer)
        return buffer.getvalue()

    return Trainable(
        lambda x: classifier.logits_of(call(as_dtype(spec.prepare(x), spec.dtype))),
        weights,
        (),
        file,
        (
            "The archive was trained in evaluation mode: batch norm keeps its statistics, and "
            "dropout is inactive.",
        ),
    )


def open_exported_weights(
    path: Path, classifier: Classifier, options: LoadOptions, sample: Tensor
) -> Trainable:
    """Open a torch.export archive for training; see `audit.hardening.weights.open_trainable`."""
    del sample
    read = exported.read_program(path, trusted=options.trust_model)
    program = read.program
    module = read.module.to(classifier.device)
    weights = dict(module.named_parameters())
    if not weights:
        raise ModelError(
            f"{path} has no parameters: its weights are constants. Export it from a module."
        )
    _require_logits(path, classifier)
    call, spec = one_tensor(module), classifier.spec

    def file() -> bytes:
        for name, value in weights.items():
            program.state_dict[name].data.copy_(value.detach())
        buffer = io.BytesIO()
        with exported.quiet("torch.export", "torch._export"):
            torch.export.save(program, buffer)
        return buffer.getvalue()

    return Trainable(
        lambda x: classifier.logits_of(call(as_dtype(spec.prepare(x), spec.dtype))),
        weights,
        (),
        file,
        ("The exported program was trained in evaluation mode: batch norm keeps its statistics.",),
    )


def _require_logits(path: Path, classifier: Classifier) -> None:
    if classifier.output != "logits":
        raise ModelError(
            f"{path} serves {classifier.output}, and in this format the logits before them cannot "
            "be trained: save a module that returns logits, or export it to ONNX."
        )
