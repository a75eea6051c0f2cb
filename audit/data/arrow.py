"""Access to pyarrow: imported only when a table is opened; its errors become `DataError`s."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from audit.data.wording import brief
from audit.errors import DataError


def arrow(path: Path, module: str = "pyarrow") -> Any:
    """Import a module of pyarrow.

    Raises:
        DataError: pyarrow is not installed; the message states how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"{path} needs pyarrow ({brief(error)}): pip install 'wasserstein-audit[data]'"
        ) from error


@contextmanager
def arrow_errors(file: Path, kind: str) -> Iterator[None]:
    """Raise every error that pyarrow reports about a file as a `DataError`."""
    try:
        yield
    # Arrow's own errors are subclasses of these; a damaged file can request too much memory.
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError, MemoryError) as error:
        raise DataError(
            f"{file} is not a readable {kind} file ({brief(error)}): it is truncated, damaged or "
            "of another kind; download it or write it again."
        ) from error
