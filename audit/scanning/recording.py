"""Record of one attack: its cost, the samples it broke, and how it ended."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from torch import Tensor

from audit.errors import contained
from audit.models.classifier import Classifier
from audit.models.execution import Counted, Counter
from audit.scanning.config import effort_of
from audit.scanning.evidence import MetricRun
from audit.scanning.subject import Subject
from audit.schema import Attack, RunStatus

INTERRUPTED = "Interrupted before all samples were attacked."
"""Detail in the record of an attack that was interrupted."""


@dataclass
class Attacker:
    """Model under one attack, with counted passes, and the samples that the attack broke."""

    classifier: Classifier
    broken: set[int] = field(default_factory=set)
    detail: str = ""

    @property
    def logits(self) -> Callable[[Tensor], Tensor]:
        """Attacked function: the differentiable copy, or the served scores if there is no copy."""
        return self.classifier.attacked_function


@contextmanager
def recorded(run: MetricRun, name: str, subject: Subject, times: int = 1) -> Iterator[Attacker]:
    """Count the passes and the time of one attack, and record the attack even if it is cut short.

    An error ends only this attack: the examples it found remain, since they were judged, the record
    states the error, and the scan continues. An `InternalError` is raised.
    """
    counter = Counter()
    classifier = subject.classifier
    white_box = classifier.white_box
    attacker = Attacker(
        replace(
            classifier,
            serve=Counted(classifier.serve, counter),
            white_box=(
                None
                if white_box is None
                else replace(white_box, logits=Counted(white_box.logits, counter))
            ),
        )
    )
    started = time.perf_counter()
    status: RunStatus = "ran"

    def failed(reason: str) -> None:
        nonlocal status
        status, attacker.detail = "error", f"It stopped on an error: {reason}."
        run.errors.append(f"{run.metric.name}, {name}: {attacker.detail}")

    try:
        with contained(f"The attack {name}", failed):
            yield attacker
    except KeyboardInterrupt:
        status, attacker.detail = "error", INTERRUPTED
        raise
    finally:
        run.attacks.append(
            Attack(
                name=name,
                status=status,
                detail=attacker.detail,
                broken=len(attacker.broken),
                forwards=counter.forwards,
                gradients=counter.gradients,
                seconds=time.perf_counter() - started,
                budget=effort_of(subject.config).budget(name, times),
            )
        )


def not_run(name: str, detail: str) -> Attack:
    """Return the record of an attack that does not apply, with the reason."""
    return Attack(
        name=name,
        status="not_applicable",
        detail=detail,
        broken=None,
        forwards=None,
        gradients=None,
        seconds=None,
    )
