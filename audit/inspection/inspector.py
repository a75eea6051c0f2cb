"""Inspection of a model: facts about it, and a scan command based on them."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from audit.data import Dataset
from audit.evidence import readings
from audit.inspection.fact import Fact
from audit.inspection.fit import measure_fit
from audit.inspection.model_file import file_facts
from audit.inspection.served_model import classifier_facts
from audit.inspection.trial import trial_labels, trial_samples
from audit.models import LoadOptions
from audit.models.classifier import Load
from audit.models.preprocess import InputSpec
from audit.options import ScanConfig


@dataclass(frozen=True)
class Inspection:
    """Facts in the order in which they are shown, and a scan command based on them.

    The command is None where data is missing, does not fit, or model or data have no path.
    """

    facts: tuple[Fact, ...]
    command: str | None


def inspect_model(
    path: Path | None,
    dataset: Dataset | None,
    options: LoadOptions,
    data_path: Path | None,
    load: Load,
) -> Inspection:
    """Describe a model, and run it on data or on random inputs.

    Args:
        path: file of the model, or None for a model that is given in Python.
        dataset: labelled data, or None.
        options: the user's options for loading the model.
        data_path: path of the data as the user gave it, for the command; None without a path.
        load: loads the model.

    Raises:
        ModelError: the file is not a model, or may not be opened without `trust_model`.
    """
    facts, shape = (
        ([], ()) if path is None else file_facts(path, options, with_data=dataset is not None)
    )
    sample = trial_samples(dataset, shape, options)
    if sample is None:
        facts.append(
            ("input", "unknown without data: pass --data to measure gradients, parity and speed")
        )
        return Inspection(tuple(facts), None)
    classes = 2 if dataset is None else int(dataset.labels.max()) + 1
    classifier = load(sample, classes)
    if dataset is not None:
        readings.require_labels(dataset, classifier, sample, trial_labels(dataset))
    if classifier.threshold:
        # The importer derives this fact from the graph; the output values have corrected it.
        facts = [fact for fact in facts if fact[0] != "served output"]
    facts += classifier_facts(classifier, sample)
    if dataset is None:
        return Inspection(tuple(facts), None)
    found, spec = measure_fit(classifier, dataset, sample)
    facts += found
    if spec is None or path is None or data_path is None:
        return Inspection(tuple(facts), None)
    words = ["audit", "scan", str(path), "--data", str(data_path)]
    words += _loading_options(spec, options, detected=classifier.spec.layout)
    if dataset.options.resize is not None:
        words += ["--resize", "x".join(map(str, dataset.options.resize))]
    if dataset.options.class_map is not None:
        words += ["--class-map", str(dataset.options.class_map.path)]
    words += ["--threat", ",".join(ScanConfig.metrics), "--samples", "1000"]
    return Inspection(tuple(facts), shlex.join(words))


def _loading_options(spec: InputSpec, options: LoadOptions, *, detected: str | None) -> list[str]:
    """Return the options with which a scan loads the model and reads the data in the same way."""
    words = ["--trust-model"] if options.trust_model else []
    if options.device != "auto":
        words += ["--device", options.device]
    if spec.layout is not None and (options.layout or spec.layout != detected):
        words += ["--layout", spec.layout]
    for flag, values in (("--mean", spec.mean), ("--std", spec.std)):
        if values is not None:
            words += [flag, ",".join(repr(value) for value in values)]
    for flag, value, default in (("--low", options.low, 0.0), ("--high", options.high, 1.0)):
        if value != default:
            words += [flag, repr(value)]
    for domain in sorted(options.allow_domains):
        words += ["--allow-domain", domain]
    return words
