"""What the user says about the model and its input."""

import torch

from audit.errors import UsageError


def pick_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device that exists.

    Raises:
        UsageError: CUDA is asked for and not there, or the name is unknown.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"Unknown device {name!r}: choose auto, cpu or cuda.")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError(
            "--device cuda was asked for, but torch sees no CUDA device: install a CUDA build of "
            "torch and a driver, or use --device cpu."
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")
