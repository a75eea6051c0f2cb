"""Conditions for resuming a training run: a checkpoint of the same model, data and options."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from audit.errors import UsageError
from audit.generators.tensor_files import JsonObject


@dataclass(frozen=True)
class RunIdentity:
    """Model, data and options of a training run.

    Attributes:
        hashes: sha256 of each input file, by its role (``model``, ``data``, ...); None where the
            run has no such file.
        options: JSON values by name.
    """

    hashes: Mapping[str, str | None]
    options: JsonObject

    def require_same(self, found: "RunIdentity", checkpoint: Path) -> None:
        """Check that a checkpoint was written by a run with this identity.

        Raises:
            UsageError: model, data or an option differs; the message states which.
        """
        for role, sha256 in self.hashes.items():
            if found.hashes.get(role) != sha256:
                raise UsageError(
                    f"{checkpoint} belongs to a run with a different {role} file: use the same "
                    "file, or delete the checkpoint to start again."
                )
        for name, value in self.options.items():
            if found.options.get(name) != value:
                raise UsageError(
                    f"{checkpoint} was written with {name} {found.options.get(name)!r}, now it is "
                    f"{value!r}: use the same options, or delete the checkpoint to start again."
                )


def require_checkpoint(path: Path) -> None:
    """Check that the checkpoint to resume from exists; raises `UsageError`."""
    if not path.exists():
        raise UsageError(f"There is no checkpoint {path} to resume from: remove --resume.")


def json_values(values: Mapping[str, object]) -> JsonObject:
    """Return values as JSON stores them: tuples as lists, infinities as words."""
    return {name: _json_value(value) for name, value in values.items()}


def _json_value(value: object) -> object:
    if isinstance(value, tuple):
        return [_json_value(item) for item in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value
