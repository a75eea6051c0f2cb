"""Checks that adversarial examples agree with the differentiable copy and with certificates."""

from audit.health.common import scale_of
from audit.health.model import PARITY_TOLERANCE
from audit.health.needs import COPY, FOUND_EXAMPLES
from audit.health.registry import CheckResult, check
from audit.health.subjects import PROBE_SIZE, MetricSubject


@check(
    "parity_adversarial",
    MetricSubject,
    title="Copy agrees on adversarial examples",
    advice="Attacks may miss examples of the served model: also run attacks without gradients "
    "(--effort max). Every counted example was confirmed by the runtime.",
    needs=(COPY, FOUND_EXAMPLES),
)
def parity_on_adversarial(subject: MetricSubject) -> CheckResult:
    """Check that the copy agrees with the runtime on the adversarial examples found."""
    found = subject.radius.isfinite() & (subject.radius > 0)
    x = subject.x[found.nonzero()[: 4 * PROBE_SIZE, 0]]
    served, copied = subject.classifier.deployed(x), subject.classifier.copied(x)
    difference = float((served - copied).abs().max())
    numbers = {"max_abs_difference": difference, "examples": len(x)}
    if difference <= PARITY_TOLERANCE * scale_of(served):
        finding = (
            f"Runtime and copy differ by at most {difference:.1e} on {len(x)} adversarial examples."
        )
        return CheckResult("pass", finding, numbers)
    finding = f"Runtime and copy differ by {difference:.3g} on {len(x)} adversarial examples."
    return CheckResult("warn", finding, numbers)


@check(
    "certified_below_attacked",
    MetricSubject,
    title="Certificates agree with attacks",
    advice="This is a bug of the program: please report it with the model.",
)
def certified_below_attacked(subject: MetricSubject) -> CheckResult:
    """Check that no certified radius exceeds a verified distance; the scan stops if one does."""
    above, n = int((subject.certified > subject.radius).sum()), len(subject.radius)
    numbers = {"contradictions": above, "samples": n}
    if above:
        finding = f"{above} of {n} samples are certified beyond their adversarial example."
        return CheckResult("fail", finding, numbers)
    finding = f"No certified radius exceeds the attacked one on any of {n} samples."
    return CheckResult("pass", finding, numbers)
