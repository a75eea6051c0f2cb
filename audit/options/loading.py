"""Options for loading the model, and the format of its input."""

from dataclasses import dataclass
from typing import Any, Literal

from audit.options.option import option
from audit.values import names, number, numbers, switch, word

DeviceName = Literal["auto", "cpu", "cuda"]
"""Devices that models run on."""


def domain_names(value: Any, flag: str) -> frozenset[str] | None:
    """Read a list of operator domains."""
    found = names(value, flag)
    return None if found is None else frozenset(found)


@dataclass(frozen=True)
class LoadOptions:
    """Options for loading a model; see `audit.models.preprocess.InputSpec` for its input.

    Attributes:
        trust_model: whether to open an archive that can run code.
        device: device of the differentiable copy.
        layout: axis order of the model's input, or None to detect it.
        low: smallest value of the data; budgets use this unit.
        high: largest value of the data.
        mean: value that is subtracted from the input, one or one per channel, or None.
        std: value that the input is divided by after ``mean``, one or one per channel, or None.
        allow_domains: further operator domains that an ONNX file may use.
    """

    trust_model: bool = option(
        "--trust-model",
        default=False,
        read=switch,
        help="Allow opening a TorchScript or torch.export archive, which can run code.",
    )
    device: str = option(
        "--device",
        default="auto",
        read=word,
        choices=DeviceName,
        metavar="NAME",
        help="Device for attacks and certificates.",
    )
    layout: str | None = option(
        "--layout",
        default=None,
        read=word,
        metavar="AXES",
        fallback="detected",
        help="Axis order of the model's input, for example chw or hwc.",
    )
    low: float = option(
        "--low",
        default=0.0,
        read=number,
        metavar="V",
        help="Smallest value of the data. Budgets are in the same unit.",
    )
    high: float = option(
        "--high",
        default=1.0,
        read=number,
        metavar="V",
        help="Largest value of the data. Integer images are scaled so that 255 becomes this value.",
    )
    mean: tuple[float, ...] | None = option(
        "--mean",
        default=None,
        read=numbers,
        several=True,
        metavar="V",
        help="Mean that is subtracted from the model's input: one value, or one per channel as in "
        ".49,.48,.45.",
    )
    std: tuple[float, ...] | None = option(
        "--std",
        default=None,
        read=numbers,
        several=True,
        metavar="V",
        help="Standard deviation that the input is divided by after --mean: one value, or one per "
        "channel. Use 1/255 for a model that takes values from 0 to 255.",
    )
    allow_domains: frozenset[str] = option(
        "--allow-domain",
        default=frozenset(),
        read=domain_names,
        several=True,
        metavar="NAME",
        help="Accept ONNX operators of another domain, for example com.microsoft.",
    )
