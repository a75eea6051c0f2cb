"""Keyword arguments of the public functions: their types, and their signature for `help`."""

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypedDict, TypeVar

from audit.options import keyword_options

P = ParamSpec("P")
R = TypeVar("R")

Number = float | str
"""Number, or text such as ``8/255``."""

Numbers = Number | Sequence[Number]
Names = str | Sequence[str]


class InspectArguments(TypedDict, total=False):
    """Options for reading the model and the data."""

    trust_model: bool
    device: str
    layout: str | None
    low: Number
    high: Number
    mean: Numbers | None
    std: Numbers | None
    allow_domain: Names
    resize: str | tuple[int, int] | None
    class_map: str | Path | None


class ScanArguments(InspectArguments, total=False):
    """Options of a scan."""

    threat: Names
    order: Numbers
    delta: Numbers | None
    attack: Names | None
    effort: str
    certify: str
    smooth: Number | None
    samples: int | None
    seed: int
    confidence: Number
    batch_size: int | str | None
    generator: str | Path | None
    train_data: str | Path | None
    fail_under: Number | None
    policy: str | Path | None
    strict: bool


class TrainArguments(InspectArguments, total=False):
    """Options of the training of a generator."""

    variant: str
    head: str | None
    radius: Number
    epochs: int
    batch_size: int
    samples: int | None
    seed: int
    paper: bool
    average: Number | None


class HardenArguments(InspectArguments, total=False):
    """Options of hardening."""

    method: str
    threat: Names
    radius: Numbers
    order: Number
    epochs: int
    time_budget: Number | None
    min_clean: Number
    rate: Number | None
    schedule: str
    steps: int
    beta: Number
    clean: Number
    average: Number
    freeze: Names
    refresh: int
    samples: int | None
    batch_size: int
    seed: int
    eval_samples: int
    delta: Numbers | None
    effort: str
    certify: str
    generator: str | Path | None


def documented(*groups: type) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that adds every option with its default to the signature of a function.

    Args:
        groups: the groups of options that the function takes as keyword arguments.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(*args, **kwargs)

        own = inspect.signature(function)
        kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        options = [
            inspect.Parameter(keyword, inspect.Parameter.KEYWORD_ONLY, default=default)
            for keyword, (_, default) in keyword_options(*groups).items()
        ]
        signature = own.replace(parameters=[*kept, *options])
        call.__signature__ = signature  # type: ignore[attr-defined]
        return call

    return decorate
