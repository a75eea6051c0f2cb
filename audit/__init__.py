"""Audit a served classifier: attacked and certified accuracy under stated threats."""

from importlib.metadata import version

__version__ = version("wasserstein-audit")
