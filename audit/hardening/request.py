"""Inputs of a hardening, the files that it writes, and the functions that write its reports."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from audit.data import Dataset
from audit.models import LoadOptions, load_classifier
from audit.models.classifier import Load
from audit.options import HardenConfig, ScanConfig
from audit.scanning.result import ScanResult
from audit.schema import HardenReport, ScanReport


@dataclass(frozen=True)
class HardenRequest:
    """Inputs of a hardening and what it writes.

    Attributes:
        model: file of the model.
        train: opens the labelled training data, in the range of ``config``.
        evaluation: opens the labelled data that both models are scanned on.
        config: options of training.
        scans: one scan per threat of ``config``; each runs on the model before and after.
        loading: options of the model.
        out: folder of the hardened model, which keeps the name of the original.
        write_scan: writes the report of a scan into a folder of the given name in ``out``, and
            returns it.
        write_report: writes the report of the hardening; the checkpoint is deleted afterwards.
        generator: file of a trained generator for the method ``wagan``, or None to train one.
        resume: whether to resume from the checkpoint in ``out``.
    """

    model: Path
    train: Callable[[], Dataset]
    evaluation: Callable[[], Dataset]
    config: HardenConfig
    scans: tuple[ScanConfig, ...]
    loading: LoadOptions
    out: Path
    write_scan: Callable[[ScanResult, str], ScanReport]
    write_report: Callable[[HardenReport], None]
    generator: Path | None = None
    resume: bool = False

    @property
    def hardened(self) -> Path:
        """File of the hardened model."""
        return self.out / self.model.name

    @property
    def checkpoint(self) -> Path:
        """File of the training state."""
        return self.out / "checkpoint.safetensors"

    @property
    def weights(self) -> Path:
        """File of the trained weights, by their names in the model."""
        return self.out / "weights.safetensors"

    def load(self, file: Path) -> Load:
        """Return a function that loads a model file with the options of this request."""
        return lambda x, classes: load_classifier(file, x, self.loading, label_classes=classes)
