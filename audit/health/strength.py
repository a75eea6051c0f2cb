"""Checks of the attacks' strength: would a longer run or another attack have found more?

Each compares what the scan's attacks left standing with what something else breaks there. Sources:
Carlini et al. 2019, "On Evaluating Adversarial Robustness"; Tramer, Carlini, Brendel, Madry 2020,
"On Adaptive Attacks"; Croce & Hein 2020 (AutoAttack's flags); Pintor et al. 2022, "Indicators of
Attack Failure".
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from attackers.geometry import Metric, Wasserstein
from attackers.losses import outvoted
from attackers.rows import expand
from attackers.threat import Threat
from audit.evidence.judge import judge
from audit.evidence.samples import Samples
from audit.health.active import attacked
from audit.health.common import PROBE, entry
from audit.models.classifier import Classifier
from audit.runtime.storage import BLOCK
from audit.schema import Health, HealthStatus

LONGER = 4
"""How many times the steps the longer run of `convergence` takes."""

SETTLED, UNSETTLED = 0.01, 0.03
"""Share of the probe below which a longer run changes nothing, and above which nothing is settled.
"""

MASKED, MISLED = 0.002, 0.02
"""Share of all samples that another attack may break before a check warns (alpha of AutoAttack's
`check_square_sr`), and fails."""

REPRESENTABLE = 0.95
"""Share of the examples that `representable` wants to see survive the rounding."""

LEVELS = 255
"""Steps of an 8-bit image from one end of the box to the other."""


def convergence(
    classifier: Classifier,
    metric: Metric,
    samples: Samples,
    standing: Tensor,
    delta: float,
    attack: Callable[..., Tensor],
    *,
    steps: int,
    probe: int = 4 * PROBE,
) -> tuple[Health, float]:
    """A run of four times the steps breaks hardly any sample that the scan's attacks left standing.

    Pass: it breaks less than `SETTLED` of the probe; fail: more than `UNSETTLED`. A second run of
    the same length tells what new random starts do without more steps.

    Args:
        classifier: its differentiable copy is attacked, the served model decides.
        metric: of the ball.
        samples: up to ``probe`` correct ones are looked at.
        standing: (N,) bool, what the scan's attacks left standing at ``delta``.
        delta: radius of the ball.
        attack: ``attack(logits, x0, labels, threat, generator=…, steps=…)``.
        steps: how many the scan's attack takes.
        probe: how many correct samples to look at.

    Returns:
        The entry, and the share of the probe that the longer run breaks: while it is at least
        `SETTLED`, twice the steps are worth trying.

    Source: Carlini et al. 2019 (verify that attacks have converged); Tramer et al. 2020 (defences
    that fell to more steps); Pintor et al. 2022 (indicator of incomplete optimization).
    """
    check = f"convergence.{metric.name}"
    rows = samples.probe(probe)
    if not len(rows):
        return entry(check, "not_applicable", "No sample is classified correctly."), 0.0
    left = rows[standing[rows]]
    again, longer = (
        int(broken(classifier, metric, samples, left, delta, attack, steps=count).sum())
        for count in (steps, LONGER * steps)
    )
    drop = longer / len(rows)
    detail = (
        f"At {delta:.3g}, {len(left)} of {len(rows)} samples stand; {LONGER * steps} steps break "
        f"{longer} of them ({drop:.1%} of accuracy), another run of {steps} steps {again}"
    )
    if drop < SETTLED:
        return entry(check, "pass", f"{detail}."), drop
    status: HealthStatus = "warn" if drop <= UNSETTLED else "fail"
    advice = "more restarts" if again >= longer else "more steps"
    return (
        entry(
            check,
            status,
            f"{detail}. The attack has not converged, so the attacked accuracy is too optimistic: "
            f"give it {advice}.",
        ),
        drop,
    )


def square_not_better(metric: str, survivors: int, broken_by_square: int, total: int) -> Health:
    """A search without gradients breaks hardly anything that attacks with gradients left standing.

    Pass: up to `MASKED` of all samples; fail: more than `MISLED`.

    Args:
        metric: name of the metric.
        survivors: how many samples the white-box attacks left standing at a budget.
        broken_by_square: how many of those the black-box attack broke there.
        total: how many samples were audited.

    Source: Croce & Hein 2020, AutoAttack's flag ``check_square_sr``; Carlini et al. 2019 (try an
    attack without gradients).
    """
    check = f"square.{metric}"
    if not total:
        return entry(check, "not_applicable", "No sample was attacked.")
    share = broken_by_square / total
    detail = (
        f"Without gradients {broken_by_square} of {survivors} samples break that attacks with "
        f"gradients left standing ({share:.2%} of all)"
    )
    if share <= MASKED:
        return entry(check, "pass", f"{detail}.")
    return entry(
        check,
        "warn" if share <= MISLED else "fail",
        f"{detail}: gradients are masked, and the samples still standing may be no more robust. "
        "Run the black-box attack longer, or attack a smooth version of the model.",
    )


def iterative_not_worse(metric: str, delta: float, by_single: Tensor, by_many: Tensor) -> Health:
    """One gradient step breaks no sample that many steps leave standing.

    Warn: any; fail: more than `SETTLED` of the samples, as one or two are what chance leaves to a
    single random start.

    Args:
        metric: name of the metric.
        delta: radius of both attacks.
        by_single: (B,) bool, broken by FGSM.
        by_many: (B,) bool, broken by the iterative attacks.

    Source: Carlini et al. 2019 (iterative attacks must do better than single-step ones).
    """
    check = f"iterative.{metric}"
    if not len(by_single):
        return entry(check, "not_applicable", "No sample was attacked by both.")
    only = int((by_single & ~by_many).sum())
    detail = (
        f"At {delta:.3g}, one step breaks {int(by_single.sum())} and many steps break "
        f"{int(by_many.sum())} of {len(by_single)} samples"
    )
    if not only:
        return entry(check, "pass", f"{detail}, among them all that one step breaks.")
    return entry(
        check,
        "warn" if only / len(by_single) <= SETTLED else "fail",
        f"{detail}, but not {only} that one step breaks: the steps go astray (gradient masking, or "
        "a step size that does not suit the model). Try other step sizes, losses and starts.",
    )


def transfer(
    classifier: Classifier,
    metric: Metric,
    samples: Samples,
    candidates: Iterable[Tensor],
    standing: Tensor,
    delta: float,
) -> Health:
    """Examples made for something else break hardly anything that the attacks left standing.

    With a single file there are two sources of such examples: those found under the *other*
    metrics, and for a model whose gradients are not used (quantised, or unlike its copy) those of
    its float copy or of any surrogate that the user has. Each is tried as it is, projected onto the
    ball, and stretched to the surface of the ball the same way. Warn: more than `MASKED` break.

    Args:
        classifier: the served model decides.
        metric: of the ball.
        samples: all of them.
        candidates: any number of batches (N, ...), one row per sample; a sample itself where there
            is no example of it.
        standing: (N,) bool, what the scan's attacks left standing at ``delta``.
        delta: radius of the ball.

    Source: Carlini et al. 2019 (try a transfer attack); Pintor et al. 2022 (what transfers from a
    surrogate must not beat the attack on the model itself).
    """
    check = f"transfer.{metric.name}"
    found, tried = torch.zeros_like(standing), torch.zeros_like(standing)
    blocks = (standing & samples.correct).nonzero()[:, 0].split(BLOCK)
    for batch in candidates:
        for rows in filter(len, blocks):
            x0, x = samples.x[rows], batch[rows]
            tried[rows] |= (x != x0).flatten(1).any(1)
            stretched = metric.farthest(x0, x - x0, delta)
            for near in (metric.project(x0, x, delta), stretched):
                found[rows] |= _confirmed(classifier, metric, samples, rows, near, delta)
    if not bool(tried.any()):
        return entry(check, "not_applicable", "There are no examples of other attacks to try.")
    share = int(found.sum()) / len(samples)
    detail = (
        f"At {delta:.3g}, examples made for something else break {int(found.sum())} of "
        f"{int(tried.sum())} samples that the attacks left standing ({share:.2%} of all)"
    )
    if share <= MASKED:
        return entry(check, "pass", f"{detail}.")
    return entry(
        check,
        "warn",
        f"{detail}: the attacks miss what is there, and the attacked accuracy is too optimistic. "
        "Give them more steps and restarts, and look at the gradient checks.",
    )


def representable(
    classifier: Classifier,
    metric: Metric,
    samples: Samples,
    radius: Tensor,
    x: Tensor,
    delta: float,
) -> Health:
    """The examples still break the model as 8-bit images, which is what a file can hold.

    Each example is rounded to the nearest of 256 levels, and towards its original, which never
    leaves the ball. An example beside the decision boundary may fall back across it, though its
    ball has others: so it is also tried half the way and all the way to the surface of the ball.
    Pass: `REPRESENTABLE` of them survive, or all but one; it never fails.

    Args:
        classifier: the served model decides.
        metric: of the ball.
        samples: all of them.
        radius: (N,) float64, the distance of each confirmed example, ``inf`` where there is none.
        x: (N, ...) the examples.
        delta: the budget at which to look.

    Source: Carlini & Wagner 2017, "Towards Evaluating the Robustness of Neural Networks", on
    discretization: an example counts for an image only as integers.
    """
    check = f"representable.{metric.name}"
    spec = classifier.spec
    if isinstance(metric, Wasserstein):
        return entry(
            check, "not_applicable", "Rounding to 8 bits changes the mass, which must be conserved."
        )
    if spec.layout is None or not spec.dtype.is_floating_point:
        what = "images" if spec.layout is None else "values that need rounding"
        return entry(check, "not_applicable", f"The model's inputs are not {what}.")
    level = _levels(metric, samples.x[samples.probe(PROBE)])
    if bool(((level - level.round()).abs() > 1e-3).any()):
        return entry(check, "not_applicable", "The samples themselves are not 8-bit images.")
    rows = (samples.correct & (radius <= delta)).nonzero()[:, 0]
    if not len(rows):
        return entry(check, "not_applicable", f"No example was found at {delta:.3g}.")
    kept = sum(
        int(_survives_rounding(classifier, metric, samples, block, x[block], delta).sum())
        for block in rows.split(BLOCK)
    )
    correct, total = int(samples.correct.sum()), len(samples)
    detail = (
        f"{kept} of {len(rows)} examples within {delta:.3g} still break the model as 8-bit images: "
        f"attacked accuracy {(correct - kept) / total:.1%} with 8 bits, "
        f"{(correct - len(rows)) / total:.1%} as counted"
    )
    if kept / len(rows) >= REPRESENTABLE or kept == len(rows) - 1 > 0:
        return entry(check, "pass", f"{detail}.")
    return entry(
        check,
        "warn",
        f"{detail}. If your adversary must send an image file, the first number is nearer to the "
        "truth, though attacks that aim at 8-bit images may find more.",
    )


def broken(
    classifier: Classifier,
    metric: Metric,
    samples: Samples,
    rows: Tensor,
    delta: float,
    attack: Callable[..., Tensor],
    **options: object,
) -> Tensor:
    """Which of the rows an attack breaks within ``delta``, confirmed by the judge: (B,) bool."""
    found = [torch.zeros(0, dtype=torch.bool)]
    for chosen in filter(len, rows.split(PROBE)):
        x = attack(
            attacked(classifier),
            samples.x[chosen].to(classifier.device),
            samples.labels[chosen].to(classifier.device),
            Threat(metric, delta),
            generator=samples.generator.take(chosen).fold(f"strength {metric.name} {delta!r}"),
            **options,
        )
        found.append(_confirmed(classifier, metric, samples, chosen, x.detach().cpu(), delta))
    return torch.cat(found)


def _confirmed(
    classifier: Classifier,
    metric: Metric,
    samples: Samples,
    rows: Tensor,
    x: Tensor,
    delta: float,
) -> Tensor:
    verdict = judge(classifier, metric, samples.x[rows], x, samples.labels[rows], line_search=0)
    return verdict.distance <= delta


def _survives_rounding(
    classifier: Classifier,
    metric: Metric,
    samples: Samples,
    rows: Tensor,
    x: Tensor,
    delta: float,
) -> Tensor:
    x0, labels = samples.x[rows], samples.labels[rows]
    origin = _levels(metric, x0).round()
    room = delta / metric.distance(x0, x)
    survives = torch.zeros(len(rows), dtype=torch.bool)
    for share in (0.0, 0.5, 1.0):
        stretched = x0 + expand(1 + share * (room - 1), x0) * (x - x0)
        steps = _levels(metric, metric.project(x0, metric.clamp(stretched), delta)) - origin
        nearest = steps.round()
        # What rounding error alone has moved off a level stays on it.
        towards = torch.where((steps - nearest).abs() < 1e-3, nearest, steps.trunc())
        for chosen in (nearest, towards):
            image = _image(metric, (origin + chosen).clamp(0, LEVELS))
            inside = metric.distance(_image(metric, origin), image) <= delta * (1 + 1e-9)
            survives |= inside & outvoted(classifier.deployed(image.float()), labels)
    return survives


def _levels(metric: Metric, x: Tensor) -> Tensor:
    """The level of every value, float64: an integer from 0 to 255 where it is one of an image."""
    return (x.double() - metric.low) / (metric.high - metric.low) * LEVELS


def _image(metric: Metric, level: Tensor) -> Tensor:
    """What the levels of an image file are read as, float64."""
    return metric.low + (metric.high - metric.low) * (level / LEVELS)
