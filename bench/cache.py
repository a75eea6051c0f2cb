"""Results of slow peers kept in files, so that our side can be measured again without them."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import numpy as np

Result = TypeVar("Result")


def cached(path: Path | None, kind: type[Result], run: Callable[[], Result]) -> tuple[Result, bool]:
    """Read a dataclass of arrays and numbers from a file, or compute and store it.

    Args:
        path: the ``.npz`` file, or None to always compute.
        kind: the dataclass.
        run: computes it.

    Returns:
        The result, and whether it was computed in this run.
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if path is not None and path.exists():
        with np.load(path) as stored:
            values = {name: stored[name] for name in names}
        return kind(**{k: v if v.ndim else v.item() for k, v in values.items()}), False
    result = run()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{name: getattr(result, name) for name in names})
    return result, True
