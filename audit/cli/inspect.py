"""`audit inspect`."""

from pathlib import Path
from typing import Annotated

import typer

from audit.cli.app import app
from audit.cli.arguments import (
    DATA_HELP,
    MODEL_HELP,
    AllowDomain,
    ClassMap,
    Device,
    High,
    Layout,
    Low,
    Mean,
    Reading,
    Resize,
    Std,
    Trust,
    loading_of,
)
from audit.cli.output import interruptible, print_text


@app.command()
@interruptible("before the inspection was done")
def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    data: Annotated[Path | None, typer.Option("--data", metavar="DATA", help=DATA_HELP)] = None,
    trust_model: Trust = False,
    device: Device = "auto",
    layout: Layout = None,
    mean: Mean = None,
    std: Std = None,
    low: Low = "0",
    high: High = "1",
    resize: Resize = None,
    class_map: ClassMap = None,
    allow_domain: AllowDomain = None,
) -> None:
    """Show what a model file holds and how to scan it."""
    from audit import inspection
    from audit.models.files import identify

    loading = loading_of(trust_model, device, layout, mean, std, low, high, allow_domain)
    identify(model)
    dataset = None
    if data is not None:
        dataset = Reading(resize, class_map).open(data, loading.low, loading.high)
    found = inspection.inspect(model, dataset, loading, data)
    for name, value in found.facts:
        print_text(f"{name:<16}{value}\n")
    if found.command is not None:
        print_text(f"\nScan it with:\n  {found.command}\n")
