"""Safetensors files that state their kind and version: generators, checkpoints, trained weights.

Loading such a file cannot run code: it contains tensors and a JSON description.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from audit.errors import ModelError

METADATA_KEY = "wasserstein-audit"
"""The only key of a file's metadata; its value is JSON."""

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class FileKind:
    """A kind of safetensors file.

    Attributes:
        name: name of the kind, stored in the file.
        version: version of the layout; a file with a larger version is refused.
        described: description of the file that the user should name instead of a wrong one.
    """

    name: str
    version: int
    described: str


def tensor_file(kind: FileKind, tensors: Mapping[str, Tensor], description: JsonObject) -> bytes:
    """Return a safetensors file of a kind; equal content gives equal bytes."""
    # safetensors writes metadata keys in random order, so everything is stored under one key.
    text = json.dumps({"kind": kind.name, "version": kind.version, **description})
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    return save(copies, metadata={METADATA_KEY: text})


def read_tensors(path: Path, kind: FileKind) -> tuple[dict[str, Tensor], JsonObject]:
    """Read the tensors and the description of a file of a kind.

    Raises:
        ModelError: the file is missing, damaged, not safetensors, of another kind, or of a newer
            version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            found = description.get("kind")
            if found != kind.name:
                raise ModelError(
                    f"{path} is a safetensors file of kind {found!r}, but {kind.name!r} is "
                    f"expected: name {kind.described}."
                )
            if description["version"] > kind.version:
                raise ModelError(
                    f"{path} has version {description['version']}, but this program reads versions "
                    f"up to {kind.version}: install a newer release."
                )
            return {name: file.get_tensor(name) for name in file.keys()}, description  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read as a safetensors file ({str(error).splitlines()[0]}): name "
            f"{kind.described}."
        ) from error
