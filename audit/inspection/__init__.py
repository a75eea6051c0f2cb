"""Inspection of a model before any attack: contents of its file, and whether data fits it."""

from audit.inspection.inspector import Inspection, inspect_model

__all__ = ["Inspection", "inspect_model"]
