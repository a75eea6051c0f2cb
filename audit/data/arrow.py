"""pyarrow, which only tables need: imported when one is opened, its failures in our words."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from audit.data.wording import brief
from audit.errors import DataError


def arrow(path: Path, module: str = "pyarrow") -> Any:
    """A module of pyarrow.

    Raises:
        DataError: pyarrow is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"{path} needs pyarrow ({brief(error)}): pip install 'wasserstein-audit[data]'"
        ) from error


@contextmanager
def arrow_errors(file: Path, kind: str) -> Iterator[None]:
    """Whatever pyarrow finds wrong with a file becomes a `DataError`."""
    try:
        yield
    # Arrow's own errors are subclasses of these; damage can ask for more memory than there is.
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError, MemoryError) as error:
        raise DataError(
            f"{file} is not a readable {kind} file ({brief(error)}): truncated, damaged or of "
            "another kind; download or write it again."
        ) from error
