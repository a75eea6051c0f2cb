"""Command line: one module per command, which parses, calls, prints and exits."""

from importlib import import_module

from audit.cli.app import app, main

COMMANDS = (
    "scan",
    "demo",
    "inspect",
    "train_attacker",
    "harden",
    "report",
    "gate",
    "compare",
    "config",
)
"""Modules of the commands, in the order in which the help lists them."""

for _name in COMMANDS:
    import_module(f"audit.cli.{_name}")

__all__ = ["app", "main"]
