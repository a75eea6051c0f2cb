"""Reader of TorchScript archives."""

from pathlib import Path

import torch

from audit.errors import ModelError
from audit.models.execution import first_line


def read_script(path: Path, *, trusted: bool, device: torch.device) -> torch.jit.ScriptModule:
    """Load a TorchScript module in evaluation mode.

    Loading and calling a module can read and write any file of the machine, so nothing is opened
    unless the user trusts the file.

    Raises:
        ModelError: the file is not trusted, damaged, or not loadable by this version of torch.
    """
    if not trusted:
        raise ModelError(
            f"{path} is a TorchScript archive, which can run arbitrary code when it is used: "
            "pass --trust-model if you trust its source, or export the model to ONNX."
        )
    try:
        module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location=device)
    except Exception as error:  # torch raises bare RuntimeError and errors of the archive reader
        raise ModelError(
            f"torch cannot load {path} as TorchScript: {first_line(error)}. "
            "Save it again with this version of torch and without "
            "torch.jit.optimize_for_inference, or export it to ONNX."
        ) from error
    arguments = module.forward.schema.arguments[1:]  # type: ignore[attr-defined]
    wanted = sum(not argument.has_default_value() for argument in arguments)
    if wanted > 1 or not arguments:
        raise ModelError(
            f"{path} takes {wanted} inputs, but a classifier that takes one tensor is expected: "
            "save a module whose forward takes one batch."
        )
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def input_dtype(module: torch.nn.Module) -> torch.dtype:
    """Return the dtype of a module's weights, as modules do not declare that of their input."""
    stored = (*module.parameters(), *module.buffers())
    return next((value.dtype for value in stored if value.is_floating_point()), torch.float32)
