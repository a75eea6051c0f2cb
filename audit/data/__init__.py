"""Labelled data from the user's files: one `Dataset` for all formats, in [low, high] units."""

from audit.data.dataset import Dataset, check_labels
from audit.data.formats import open_data

__all__ = ["Dataset", "check_labels", "open_data"]
