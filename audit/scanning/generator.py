"""The training of a generator within a scan: what its effort allows."""

from pathlib import Path

from audit.data import Dataset
from audit.generators import generator_files, training
from audit.generators.generator_files import Trained
from audit.generators.training import TrainConfig
from audit.models.classifier import Load
from audit.options import ScanConfig
from audit.runtime.atomic_files import written
from audit.runtime.progress import Progress, silent
from audit.scanning.config import effort_of


def within(config: ScanConfig) -> TrainConfig:
    """The training that a scan's effort allows, for its largest image-Wasserstein budget."""
    epochs, samples = effort_of(config).training
    largest = max(config.deltas_of("wasserstein"), default=0.0)
    chosen = largest if config.deltas is not None and "wasserstein" in config.metrics else 0.0
    return TrainConfig(
        radius=chosen or TrainConfig.radius,
        epochs=epochs,
        samples=samples,
        seed=config.seed,
        low=config.low,
        high=config.high,
    )


GENERATOR_FILE = "generator.safetensors"
"""Name of the file of a generator that a scan trains, in the folder of its report."""


def train_within_scan(
    dataset: Dataset, config: ScanConfig, load: Load, folder: Path, progress: Progress = silent
) -> Trained:
    """Train a generator against the scanned model and write it into the folder of the report."""
    lesson = training.prepare(dataset, within(config), load)
    course = training.train(lesson, training.begin(lesson), None, progress)
    file = folder / GENERATOR_FILE
    with written(file) as path:
        path.write_bytes(training.finished(lesson, course))
    return generator_files.read(file, lesson.classifier.device)
