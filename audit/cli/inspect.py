"""`audit inspect`."""

from typing import Any

import audit
from audit.cli.app import app
from audit.cli.expansion import command
from audit.cli.output import print_text
from audit.cli.parameters import ModelFile, OptionalData
from audit.errors import interruptible
from audit.options import INSPECT


@command(app, *INSPECT)
@interruptible("before the inspection was done")
def inspect(model: ModelFile, data: OptionalData = None, **options: Any) -> None:
    """Show what a model file contains and how to scan it."""
    found = audit.inspect(model, data, **options)
    for name, value in found.facts:
        print_text(f"{name:<16}{value}\n")
    if found.command is not None:
        print_text(f"\nScan it with:\n  {found.command}\n")
