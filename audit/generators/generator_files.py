"""Trained generators as safetensors files that describe the network and its training."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from attackers.wagan.networks import Generator, Spec, untrained
from audit.errors import ModelError
from audit.generators.tensor_files import FileKind, JsonObject, read_tensors, tensor_file

GENERATOR_KIND = FileKind(
    "wasserstein-audit generator", 1, "a generator written by `audit train-attacker`"
)


@dataclass(frozen=True)
class Trained:
    """A generator read from a file.

    Attributes:
        network: the generator in evaluation mode; its parameters collect no gradients.
        record: the training: variant, radius, sha256 of model and data, metrics.
        path: path of the file.
        sha256: hash of the file.
    """

    network: Generator
    record: JsonObject
    path: str
    sha256: str

    @property
    def variant(self) -> str:
        """Name of `attackers.wagan.objective.VARIANTS`."""
        return str(self.record["variant"])

    @property
    def radius(self) -> float:
        """Largest radius that the generator was trained for."""
        return float(self.record["radius"])


def to_bytes(spec: Spec, weights: Mapping[str, Tensor], record: JsonObject) -> bytes:
    """Return the file of a generator.

    Args:
        spec: architecture of the network.
        weights: parameters and buffers.
        record: JSON values about its training.
    """
    return tensor_file(GENERATOR_KIND, weights, {"spec": asdict(spec), "training": record})


def read(path: Path, device: torch.device) -> Trained:
    """Open the file of a generator.

    Raises:
        ModelError: the file is missing, damaged, newer, or not a generator.
    """
    tensors, description = read_tensors(path, GENERATOR_KIND)
    try:
        spec, record = Spec(**description["spec"]), description["training"]
        network = untrained(spec)
        network.load_state_dict(tensors)
        trained = Trained(
            network.eval().requires_grad_(False).to(device),
            record,
            str(path),
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        # Read the entries that every user of a generator needs while the error can name the file.
        _ = trained.variant, trained.radius, record["model_sha256"]
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{path} is damaged: it states that it contains a generator, but its contents are "
            f"inconsistent ({reason}). Train the generator again with `audit train-attacker`."
        ) from error
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise ModelError(f"{path} contains weights that are not finite: train the generator again.")
    return trained


def check_fits(trained: Trained, shape: tuple[int, ...], low: float, high: float) -> None:
    """Check that a generator was trained for images of this shape and range.

    Raises:
        ModelError: the shape or the range differs.
    """
    spec = trained.network.spec
    if tuple(shape) != spec.shape:
        raise ModelError(
            f"{trained.path} generates images of shape {spec.shape} (channels, height, width), but "
            f"the data has {tuple(shape)}: train a generator on this data with "
            "`audit train-attacker`."
        )
    if (low, high) != (spec.low, spec.high):
        raise ModelError(
            f"{trained.path} was trained on values from {spec.low:g} to {spec.high:g}, but the "
            f"scan has --low {low:g} --high {high:g}: use the same range."
        )
