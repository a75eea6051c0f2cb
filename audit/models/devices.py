"""Devices that models run on."""

import torch

from audit.errors import UsageError


def pick_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UsageError: CUDA is not available, or the name is unknown.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"Unknown device {name!r}: choose auto, cpu or cuda.")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError(
            "--device cuda was given, but torch finds no CUDA device: install a driver and a CUDA "
            "build of torch, or use --device cpu."
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")
