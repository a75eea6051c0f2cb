"""Audit a served classifier: attacked and certified accuracy under stated threats.

The functions below are the whole program; the command line calls them. They are imported when first
used: ``import audit`` loads no torch.

    import audit

    report = audit.scan("model.onnx", "test.npz", threat="linf", delta="8/255")
    report.require("attacked.linf@8/255 >= 0.5")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from audit.version import __version__

if TYPE_CHECKING:
    from audit.api.comparing import compare
    from audit.api.generating import train_attacker
    from audit.api.hardening import harden
    from audit.api.inspecting import inspect
    from audit.api.judging import judge
    from audit.api.report import GateFailed, Report
    from audit.api.scanning import scan

HOME = {
    "GateFailed": "report",
    "Report": "report",
    "compare": "comparing",
    "harden": "hardening",
    "inspect": "inspecting",
    "judge": "judging",
    "scan": "scanning",
    "train_attacker": "generating",
}
"""Module of `audit.api` that each public name is in."""

__all__ = [
    "GateFailed",
    "Report",
    "__version__",
    "compare",
    "harden",
    "inspect",
    "judge",
    "scan",
    "train_attacker",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in HOME:
        raise AttributeError(f"module 'audit' has no attribute {name!r}")
    return getattr(import_module(f"audit.api.{HOME[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, for completion in notebooks."""
    return sorted({*globals(), *__all__})
