"""Inspection of a model: what its file holds and whether data fits, before anything is attacked."""

from audit.inspection.inspector import Inspection, inspect_model

__all__ = ["Inspection", "inspect_model"]
