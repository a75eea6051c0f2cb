"""Check that examples made for other metrics break no further samples."""

import torch

from audit.health.common import confirmed_by_judge
from audit.health.registry import CheckResult, check
from audit.health.strength import MASKED
from audit.health.subjects import MetricSubject
from audit.runtime.storage import BLOCK


@check(
    "transfer",
    MetricSubject,
    title="Other examples break nothing new",
    advice="Give the attacks more steps and restarts, and look at the gradient checks: the attacks "
    "miss existing examples, and the attacked accuracy is too optimistic.",
)
def transfer(subject: MetricSubject) -> CheckResult:
    """Check that examples made for another metric break hardly any sample that remained unbroken.

    Each example is tried projected onto the ball (unchanged if it lies inside) and moved along its
    direction to the surface of the ball. Warn: more than `MASKED` of all samples break.

    Source: Carlini et al. 2019 (try a transfer attack); Pintor et al. 2022 (what transfers from a
    surrogate must not beat the attack on the model itself).
    """
    samples, metric, delta = subject.samples, subject.metric, subject.delta
    remaining = subject.remaining
    found, tried = torch.zeros_like(remaining), torch.zeros_like(remaining)
    blocks = (remaining & samples.correct).nonzero()[:, 0].split(BLOCK)
    for batch in subject.other_examples:
        for rows in filter(len, blocks):
            x0, x = samples.x[rows], batch[rows]
            tried[rows] |= (x != x0).flatten(1).any(1)
            stretched = metric.farthest(x0, x - x0, delta)
            for near in (metric.project(x0, x, delta), stretched):
                found[rows] |= confirmed_by_judge(subject, rows, near)
    if not bool(tried.any()):
        return CheckResult("not_applicable", "There are no examples of other metrics to try.")
    share = int(found.sum()) / len(samples)
    finding = (
        f"At {delta:.3g}, examples made for other metrics break {int(found.sum())} of "
        f"{int(tried.sum())} samples that the attacks did not break ({share:.2%} of all)."
    )
    numbers = {
        "broken": int(found.sum()),
        "tried": int(tried.sum()),
        "samples": len(samples),
        "share": share,
        "delta": delta,
    }
    return CheckResult("pass" if share <= MASKED else "warn", finding, numbers)
