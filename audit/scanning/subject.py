"""Subject of a scan (a served model, samples, options, a trained generator), and its attacks."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from attackers import default_choice
from attackers.gradient import value_and_grad
from attackers.losses import margin
from attackers.rows import row_max
from audit.data import Dataset
from audit.errors import contained
from audit.evidence.readings import Finding
from audit.evidence.samples import Samples
from audit.generators.generator_files import Trained
from audit.models.classifier import Classifier
from audit.models.smoothed import SOFT_DRAWS
from audit.options import ScanConfig
from audit.runtime.batches import Batches
from audit.statistics.judged import Scope


@dataclass(frozen=True)
class Subject:
    """Inputs of a scan that is ready to run.

    Attributes:
        classifier: the served model.
        dataset: the data that the samples were drawn from.
        config: the options.
        samples: the audited samples.
        readings: findings about other ways to interpret model and data.
        warnings: sentences on model, data and samples, for the report.
        generator: the trained generator that attacks may use, if there is one.
    """

    classifier: Classifier
    dataset: Dataset
    config: ScanConfig
    samples: Samples
    readings: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()
    generator: Trained | None = None

    @cached_property
    def batches(self) -> Batches:
        """Batches of the size that the user chose, or of a size that bounds the gradients' memory.

        Batches shrink when memory runs out; this never changes a result.
        """
        size = max(1, self.samples.x[0].numel())
        if self.classifier.base is not None:
            size *= SOFT_DRAWS
        room, most = (2**21, 512) if self.classifier.device.type == "cpu" else (2**27, 8192)
        chosen = self.config.batch_size or max(32, min(most, room // size) // 32 * 32)
        return Batches(min(chosen, len(self.samples)))

    @property
    def batch(self) -> int:
        """Number of samples attacked together."""
        return self.batches.size

    def scope_of(self, metric: str) -> Scope:
        """Return the orders, budgets and confidence that accuracies are stated for."""
        config = self.config
        return Scope(
            config.orders, config.deltas_of(metric), config.confidence, self.dataset.class_names
        )


@dataclass(frozen=True)
class Plan:
    """Attacks of a scan.

    Attributes:
        attacks: names of the attacks that the user chose, or of the strongest that apply.
        flat: (N,) bool, samples whose gradient is zero; all False if the model has no gradients.
        failures: sentences on what could not be determined because of an error.
    """

    attacks: tuple[str, ...]
    flat: Tensor
    failures: tuple[str, ...] = ()


def plan_of(subject: Subject) -> Plan:
    """Find the samples without a gradient, and choose the attacks."""
    flat, failures = flat_samples(subject)
    if subject.config.attacks is not None:
        return Plan(subject.config.attacks, flat, failures)
    names = default_choice(
        gradients=subject.classifier.white_box is not None,
        flat=bool(flat.any()),
        smoothed=subject.classifier.base is not None,
        generator=subject.generator is not None,
    )
    return Plan(names, flat, failures)


def flat_samples(subject: Subject) -> tuple[Tensor, tuple[str, ...]]:
    """Return which samples have a zero gradient, ``(N,)`` bool, and what failed, as sentences."""
    x, labels, model = subject.samples.x, subject.samples.labels, subject.classifier
    found = torch.zeros(len(x), dtype=torch.bool)
    if model.white_box is None:
        return found, ()

    def look(rows: Tensor) -> None:
        _, _, grad = value_and_grad(
            model.differentiable, margin, x[rows].to(model.device), labels[rows].to(model.device)
        )
        found[rows] = (row_max(grad.nan_to_num().abs()) == 0).cpu()

    failures: list[str] = []
    with contained("Looking for samples without a gradient", failures.append):
        subject.batches.each(torch.arange(len(x)), look)
    if failures:
        # No gradient can be relied on, so attacks without gradients try every sample.
        found.fill_(True)
    return found, tuple(f"The gradients of the samples: {reason}." for reason in failures)
