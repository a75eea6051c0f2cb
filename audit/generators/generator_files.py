"""Trained generators as files: safetensors, with what they are and what they were trained for.

Nothing in such a file can run: it holds tensors and a JSON description.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from attackers.wagan.networks import Generator, Spec, untrained
from audit.errors import ModelError

KIND = "wasserstein-audit generator"
"""What a file says that it is; a version follows."""

VERSION = 1

ENTRY = "wasserstein-audit"
"""The one entry of a file's metadata: JSON."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """A generator from a file.

    Attributes:
        network: in evaluation mode, its parameters collecting nothing.
        record: what it was trained for: variant, radius, sha256 of model and data, metrics.
        path: of the file.
        sha256: of the file.
    """

    network: Generator
    record: Record
    path: str
    sha256: str

    @property
    def variant(self) -> str:
        """Name of `attackers.wagan.objective.VARIANTS`."""
        return str(self.record["variant"])

    @property
    def radius(self) -> float:
        """The largest radius it was trained for."""
        return float(self.record["radius"])


def to_bytes(spec: Spec, weights: Mapping[str, Tensor], record: Record) -> bytes:
    """The file of a generator.

    Args:
        spec: what it is built from.
        weights: parameters and buffers.
        record: JSON values about its training.
    """
    return tensor_file(KIND, VERSION, weights, {"spec": asdict(spec), "training": record})


def read(path: Path, device: torch.device) -> Trained:
    """Open the file of a generator.

    Raises:
        ModelError: it is missing, no such file, of a newer version, or damaged.
    """
    tensors, said = read_tensors(path, KIND, VERSION)
    try:
        spec, record = Spec(**said["spec"]), said["training"]
        network = untrained(spec)
        network.load_state_dict(tensors)
        trained = Trained(
            network.eval().requires_grad_(False).to(device),
            record,
            str(path),
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        # What every reader needs is asked for here, where the file can still be named.
        _ = trained.variant, trained.radius, record["model_sha256"]
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{path} is damaged: it is a generator's file, but what is in it does not fit together "
            f"({reason}). Train it again with `audit train-attacker`."
        ) from error
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise ModelError(f"{path} holds weights that are not finite: train the generator again.")
    return trained


def check_fits(trained: Trained, shape: tuple[int, ...], low: float, high: float) -> None:
    """Refuse a generator of other images.

    Raises:
        ModelError: shape or box differ.
    """
    spec = trained.network.spec
    if tuple(shape) != spec.shape:
        raise ModelError(
            f"{trained.path} generates images of shape {spec.shape} (channels, height, width), but "
            f"the data has {tuple(shape)}: train one on this data with `audit train-attacker`."
        )
    if (low, high) != (spec.low, spec.high):
        raise ModelError(
            f"{trained.path} was trained on values from {spec.low:g} to {spec.high:g}, but the "
            f"scan has --low {low:g} --high {high:g}: use the same."
        )


def tensor_file(kind: str, version: int, tensors: Mapping[str, Tensor], said: Record) -> bytes:
    """A safetensors file that says what it is, the same bytes for the same content."""
    # Entries of the metadata are written in random order: there is one.
    text = json.dumps({"kind": kind, "version": version, **said})
    apart = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    return save(apart, metadata={ENTRY: text})


def read_tensors(path: Path, kind: str, version: int) -> tuple[dict[str, Tensor], Record]:
    """Tensors of a safetensors file that says it is of a kind, and what else it says.

    Raises:
        ModelError: it is missing, not safetensors, damaged, or of another kind or newer version.
    """
    article = "a generator written by `audit train-attacker`"
    try:
        with safe_open(path, framework="pt") as file:
            said = json.loads((file.metadata() or {}).get(ENTRY, "{}"))
            found = said.get("kind")
            if found != kind:
                raise ModelError(
                    f"{path} is a safetensors file, but says that it is {found!r} where {kind!r} "
                    f"is expected: name {article}."
                )
            if said["version"] > version:
                raise ModelError(
                    f"{path} is of version {said['version']}, this program reads up to "
                    f"{version}: install a newer one."
                )
            return {name: file.get_tensor(name) for name in file.keys()}, said  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read as a safetensors file ({str(error).splitlines()[0]}): name "
            f"{article}."
        ) from error
