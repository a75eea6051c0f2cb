"""Options with which the user describes the model and its input."""

from dataclasses import dataclass

import torch

from audit.errors import UsageError


@dataclass(frozen=True)
class LoadOptions:
    """Options for loading a model; see `audit.models.preprocess.InputSpec` for the input."""

    trust_model: bool = False
    device: str = "auto"
    layout: str | None = None
    low: float = 0.0
    high: float = 1.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    allow_domains: frozenset[str] = frozenset()


def pick_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device that exists.

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
