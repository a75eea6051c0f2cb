"""Training of a generator within a scan, within the limits that the effort sets."""

from pathlib import Path

from audit.data import Dataset
from audit.generators import generator_files
from audit.generators.generator_files import Trained
from audit.generators.loop import train_generator
from audit.generators.plan import plan_training
from audit.generators.training_state import generator_file, initial_state
from audit.models.classifier import Load
from audit.options import ScanConfig, TrainConfig
from audit.runtime.atomic_files import written
from audit.runtime.progress import Progress, silent
from audit.scanning.config import effort_of

GENERATOR_FILE = "generator.safetensors"
"""Name of the file of a generator that a scan trains, in the folder of its report."""


def training_config(config: ScanConfig) -> TrainConfig:
    """Return the training options for a scan's effort and its largest image-Wasserstein budget."""
    epochs, samples = effort_of(config).generator_training
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


def train_within_scan(
    dataset: Dataset,
    config: ScanConfig,
    load: Load,
    folder: Path,
    progress: Progress = silent,
) -> Trained:
    """Train a generator against the scanned model and write it into the folder of the report.

    Args:
        dataset: training data, separate from the samples of the scan.
        config: options of the scan.
        load: loads the scanned model.
        folder: folder of the report.
        progress: shows the number of images used so far.
    """
    plan = plan_training(dataset, training_config(config), load)
    state = initial_state(plan)
    train_generator(plan, state, progress=progress)
    file = folder / GENERATOR_FILE
    with written(file) as path:
        path.write_bytes(generator_file(plan, state))
    return generator_files.read(file, plan.classifier.device)
