"""Checks of the strength of the attacks, by longer runs and by other attacks.

Sources: Carlini et al. 2019, "On Evaluating Adversarial Robustness"; Tramer, Carlini, Brendel,
Madry 2020, "On Adaptive Attacks"; Croce & Hein 2020 (AutoAttack's flags); Pintor et al. 2022,
"Indicators of Attack Failure".
"""

from functools import partial

import torch
from torch import Tensor

from attackers.fgsm import fgsm
from attackers.losses import cross_entropy, margin
from attackers.square import square
from audit.health.common import broken
from audit.health.needs import CORRECT_SAMPLES, GRADIENTS, SQUARE_SEARCH, UNSMOOTHED
from audit.health.registry import CheckResult, check
from audit.health.subjects import PROBE_SIZE, MetricSubject

LONGER = 4
"""Factor between the steps of the longer and of the usual run in `convergence`."""

SETTLED, UNSETTLED = 0.01, 0.03
"""Shares of the probe that a longer run breaks: below the first, `convergence` passes; above the
second, it fails."""

MASKED, MISLED = 0.002, 0.02
"""Shares of all samples that only another attack breaks: above the first, a check warns (alpha of
AutoAttack's ``check_square_sr``); above the second, it fails."""

QUERIES = 300
"""Queries per sample of the random search that attacks with gradients are compared with.

AutoAttack uses 5,000; this search only needs to show whether gradients are masked.
"""


# On a smoothed model, an attack with many steps ends where its surrogate changes its decision and
# the votes are still open, while one long step goes farther. The two cannot be compared.
@check(
    "iterative",
    MetricSubject,
    title="Many steps beat one step",
    advice="Try other step sizes, losses and starting points: the steps lead in wrong directions "
    "(gradient masking, or a step size that does not suit the model).",
    needs=(GRADIENTS, UNSMOOTHED, CORRECT_SAMPLES),
)
def iterative(subject: MetricSubject) -> CheckResult:
    """Check that one gradient step breaks no sample that many steps do not break.

    Many steps are the attacks of the scan other than FGSM, and two runs of the iterative attack.

    Source: Carlini et al. 2019 (iterative attacks must do better than single-step ones).
    """
    rows = subject.samples.probe(PROBE_SIZE)
    by_single = broken(subject, rows, fgsm)
    by_many = ~subject.remaining[rows]
    by_many &= torch.tensor([subject.found_by[row] != "fgsm" for row in rows.tolist()])
    for loss in (cross_entropy, margin):
        attack = partial(subject.attack, loss=loss)
        by_many |= broken(subject, rows, attack, steps=subject.steps)
    return compare_steps(subject.delta, by_single, by_many)


def compare_steps(delta: float, by_single: Tensor, by_many: Tensor) -> CheckResult:
    """Compare the samples that one step breaks with those that many steps break.

    Warn: one step breaks any sample that many steps do not; fail: more than `SETTLED` of the
    samples, since a single random start may miss one or two by chance.

    Args:
        delta: radius of both attacks.
        by_single: (B,) bool, broken by one step.
        by_many: (B,) bool, broken by many steps.
    """
    only, n = int((by_single & ~by_many).sum()), len(by_single)
    numbers = {
        "broken_by_one_step": int(by_single.sum()),
        "broken_by_many_steps": int(by_many.sum()),
        "broken_by_one_step_only": only,
        "samples": n,
        "delta": delta,
    }
    seen = (
        f"At {delta:.3g}, one step breaks {int(by_single.sum())} and many steps break "
        f"{int(by_many.sum())} of {n} samples"
    )
    if not only:
        finding = f"{seen}, including all that one step breaks."
        return CheckResult("pass", finding, numbers)
    finding = f"{seen}, but one step breaks {only} that many steps do not."
    return CheckResult("warn" if only / n <= SETTLED else "fail", finding, numbers)


@check(
    "convergence",
    MetricSubject,
    title="Attack converged",
    advice="Give the attack more steps (--effort max): the attacked accuracy is too optimistic.",
    needs=(GRADIENTS, CORRECT_SAMPLES),
)
def convergence(subject: MetricSubject, *, probe: int = 4 * PROBE_SIZE) -> CheckResult:
    """Check that four times the steps break hardly any sample that the scan's attacks did not.

    Pass: the longer run breaks less than `SETTLED` of the probe; fail: more than `UNSETTLED`. A
    second run of the usual length shows the effect of new random starts without more steps. While
    the check does not pass, a scan reruns its attacks with more steps (`audit.scanning.checks`).

    Source: Carlini et al. 2019 (verify that attacks have converged); Tramer et al. 2020 (defences
    that fell to more steps); Pintor et al. 2022 (indicator of incomplete optimization).
    """
    rows = subject.samples.probe(probe)
    left = rows[subject.remaining[rows]]
    again, longer = (
        int(broken(subject, left, subject.attack, steps=count).sum())
        for count in (subject.steps, LONGER * subject.steps)
    )
    drop = longer / len(rows)
    finding = (
        f"At {subject.delta:.3g}, {len(left)} of {len(rows)} samples remain unbroken; "
        f"{LONGER * subject.steps} steps break {longer} of them ({drop:.1%} of accuracy), another "
        f"run of {subject.steps} steps {again}."
    )
    numbers = {
        "remaining": len(left),
        "samples": len(rows),
        "broken_by_longer_run": longer,
        "broken_by_equal_run": again,
        "accuracy_drop": drop,
        "steps": subject.steps,
        "longer_steps": LONGER * subject.steps,
        "delta": subject.delta,
    }
    if drop < SETTLED:
        return CheckResult("pass", finding, numbers)
    # The registered advice applies to runs that need more steps.
    advice = (
        "Give the attack more restarts (--effort max): the attacked accuracy is too optimistic."
        if again >= longer
        else None
    )
    return CheckResult("warn" if drop <= UNSETTLED else "fail", finding, numbers, advice)


@check(
    "square",
    MetricSubject,
    title="Search without gradients finds no more",
    advice="Run the black-box attack longer, or attack a smooth version of the model: gradients "
    "are masked, and the remaining samples may not be robust either.",
    needs=(UNSMOOTHED, GRADIENTS, SQUARE_SEARCH, CORRECT_SAMPLES),
)
def square_not_better(subject: MetricSubject) -> CheckResult:
    """Check that a search without gradients breaks hardly any sample that other attacks did not.

    Source: Croce & Hein 2020, AutoAttack's flag ``check_square_sr``; Carlini et al. 2019 (try an
    attack without gradients).
    """
    rows = subject.samples.probe(PROBE_SIZE)
    left = rows[subject.remaining[rows]]
    found = broken(subject, left, square, queries=QUERIES)
    return compare_with_search(len(left), int(found.sum()), len(rows))


def compare_with_search(remaining: int, by_search: int, total: int) -> CheckResult:
    """Return the result for the number of samples that only a search without gradients breaks.

    Pass: up to `MASKED` of all samples; fail: more than `MISLED`.

    Args:
        remaining: number of samples that the attacks with gradients did not break at a budget.
        by_search: number of those that the search broke at this budget.
        total: number of samples that were attacked, at least one.
    """
    share = by_search / total
    finding = (
        f"A search without gradients breaks {by_search} of {remaining} samples that attacks with "
        f"gradients did not break ({share:.2%} of all)."
    )
    numbers = {
        "broken_without_gradients": by_search,
        "remaining": remaining,
        "samples": total,
        "share": share,
    }
    if share <= MASKED:
        return CheckResult("pass", finding, numbers)
    return CheckResult("warn" if share <= MISLED else "fail", finding, numbers)
