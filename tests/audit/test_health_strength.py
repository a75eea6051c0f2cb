"""Checks of attack strength, driven to each status by attacks of known strength."""

from collections.abc import Callable

import pytest
import torch
from fakes import (
    WEIGHT,
    classifier,
    inputs,
    key,
    linear,
    metric_subject,
    radius_of,
    samples_of,
    two_sided,
)
from torch import Tensor

from attackers.geometry import L1, L2, NORMS, Linf, Metric
from attackers.gradient import Logits
from attackers.pgd import pgd
from attackers.threat import Threat
from audit.evidence.samples import Samples
from audit.health import CHECKS
from audit.health.common import broken
from audit.health.strength import compare_steps, compare_with_search
from audit.models.classifier import Classifier
from audit.models.preprocess import InputSpec
from audit.schema import Health

N = 100
MODEL = classifier(linear)
X = inputs(N)
SAMPLES = samples_of(MODEL, X)
ALL = torch.ones(N, dtype=torch.bool)
RADIUS = linear(X)[:, 1].abs() / WEIGHT.abs().sum()
"""The exact linf radius of every sample, when the box is far."""


def across(x0: Tensor, length: Tensor | float) -> Tensor:
    """Move each sample by a linf length straight towards the decision boundary."""
    length = torch.as_tensor(length).expand(len(x0))[:, None]
    return x0 - linear(x0)[:, 1:].sign() * WEIGHT.sign() * length


def in_need(table: dict[int, int]) -> Callable[..., Tensor]:
    """An attack that breaks ``table[steps]`` samples of the lowest first values, and no other."""
    ranks = X[:, 0].argsort().argsort()

    def attack(
        logits: Logits, x0: Tensor, labels: Tensor, threat: Threat, *, generator: object, steps: int
    ) -> Tensor:
        own = torch.tensor([int((row == X).all(1).nonzero()) for row in x0], dtype=torch.long)
        lucky = ranks[own] < table[steps]
        return torch.where(lucky[:, None], across(x0, 0.5).clamp(0, 1), x0)

    return attack


def status(entry: Health, check: str) -> str:
    assert key(entry) == check
    assert entry.finding.endswith(".")
    return entry.status


def converged(
    attack: Callable[..., Tensor],
    remaining: Tensor = ALL,
    delta: float = 0.6,
    samples: Samples = SAMPLES,
    steps: int = 10,
) -> tuple[Health, float]:
    """What `convergence` finds, and how much accuracy the longer run takes."""
    radius = radius_of(remaining)
    subject = metric_subject(MODEL, samples, delta=delta, radius=radius, attack=attack, steps=steps)
    entry = CHECKS["convergence"](subject)
    return entry, entry.numbers.get("accuracy_drop", 0.0)


@pytest.mark.parametrize(
    ("more", "expected"), [(0, "pass"), (1, "warn"), (3, "warn"), (4, "fail"), (50, "fail")]
)
def test_convergence(more: int, expected: str) -> None:
    entry, drop = converged(in_need({10: 0, 40: more}))
    assert status(entry, "convergence.linf") == expected
    assert drop == pytest.approx(more / 100)
    assert (expected == "pass") or "more steps" in entry.advice


def test_convergence_looks_at_what_stands() -> None:
    attack = in_need({10: 20, 40: 20})
    entry, drop = converged(attack)
    assert (entry.status, drop) == ("fail", 0.2)
    assert "more restarts" in entry.advice  # another run of the same length did as well
    rank = X[:, 0].argsort().argsort()
    for fallen, drop in ((20, 0), (5, 0.15)):
        entry = converged(attack, rank >= fallen)
        assert entry[1] == pytest.approx(drop)
    entry, drop = converged(attack, ~ALL)
    assert (entry.status, drop) == ("pass", 0.0)


def test_convergence_counts_the_probe_only() -> None:
    attack = in_need({10: 0, 40: 100})
    subject = metric_subject(MODEL, SAMPLES, delta=0.6, attack=attack, steps=10)
    entry = CHECKS["convergence"].run(subject, probe=10)
    assert entry.numbers["accuracy_drop"] == 1
    assert "10 of 10 samples remain" in entry.finding


def test_convergence_without_correct_samples() -> None:
    wrong = samples_of(MODEL, X, 1 - SAMPLES.labels)
    entry, drop = converged(in_need({}), samples=wrong)
    assert (entry.status, drop) == ("not_applicable", 0.0)


def test_convergence_of_a_real_attack() -> None:
    delta = float(RADIUS.median())
    standing = RADIUS.gt(delta)
    entry, drop = converged(pgd, standing, delta, steps=20)
    assert (entry.status, drop) == ("pass", 0.0)
    # A scan that had attacked nothing would be told so.
    entry, drop = converged(pgd, ALL, delta, steps=20)
    assert entry.status == "fail"
    assert drop == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", NORMS)
def test_broken_wants_the_ball_and_the_served_model(name: str) -> None:
    metric = NORMS[name]()
    rows = torch.arange(N)
    delta = {"linf": 0.05, "l2": 0.1, "l1": 0.1}[name]
    by_pgd = broken(metric_subject(MODEL, SAMPLES, metric, delta=delta), rows, pgd)
    assert 0 < int(by_pgd.sum()) < N
    half = broken(metric_subject(MODEL, SAMPLES, metric, delta=delta), rows[::2], pgd)
    assert torch.equal(half, by_pgd[::2])

    def farther(logits: Logits, x0: Tensor, *rest: object, **options: object) -> Tensor:
        return across(x0, 0.6).clamp(0, 1)

    assert not bool(
        broken(metric_subject(MODEL, SAMPLES, metric, delta=delta), rows, farther).any()
    )
    steady = classifier(linear, serve=lambda x: linear(X[:1]).expand(len(x), 2))
    labels = steady.predict(X)
    assert not bool(
        broken(
            metric_subject(steady, samples_of(steady, X, labels), metric, delta=delta), rows, pgd
        ).any()
    )
    assert len(broken(metric_subject(MODEL, SAMPLES, metric, delta=delta), rows[:0], pgd)) == 0


@pytest.mark.parametrize(
    ("found", "total", "expected"),
    [
        (0, 1000, "pass"),
        (2, 1000, "pass"),
        (3, 1000, "warn"),
        (20, 1000, "warn"),
        (21, 1000, "fail"),
        (1, 100, "warn"),
    ],
)
def test_square_not_better(found: int, total: int, expected: str) -> None:
    entry = compare_with_search(total // 2, found, total)
    assert entry.status == expected
    assert f"{found} of {total // 2}" in entry.finding


@pytest.mark.parametrize(
    ("only", "expected"), [(0, "pass"), (1, "warn"), (2, "warn"), (3, "fail"), (50, "fail")]
)
def test_iterative_not_worse(only: int, expected: str) -> None:
    many = torch.arange(200) < 120
    single = (torch.arange(200) >= 60) & (torch.arange(200) < 120 + only)
    assert compare_steps(0.3, single, many).status == expected


def transferred(
    model: Classifier,
    samples: Samples,
    examples: tuple[Tensor, ...],
    remaining: Tensor,
    delta: float,
    metric: Metric | None = None,
) -> Health:
    return CHECKS["transfer"](
        metric_subject(
            model,
            samples,
            metric,
            delta=delta,
            radius=radius_of(remaining),
            other_examples=examples,
        )
    )


def test_transfer() -> None:
    delta = 0.1
    inside, beyond = RADIUS.lt(0.9 * delta), RADIUS.gt(1.1 * delta)
    assert int(inside.sum()) > 2
    assert int(beyond.sum()) > 2

    def found(candidates: Tensor, standing: Tensor, metric: Metric | None = None) -> str:
        metric = metric or Linf()
        entry = transferred(MODEL, SAMPLES, (X, candidates), standing, delta, metric)
        return status(entry, f"transfer.{metric.name}")

    # Far examples are projected onto the ball, and count only where that breaks a sample.
    assert found(across(X, 0.25), beyond) == "pass"
    assert found(across(X, 0.25), ALL) == "warn"
    assert found(across(X, delta), inside) == "warn"
    assert found(across(X, 0.25), ~inside & ~beyond & ~ALL) == "not_applicable"
    # Short ones show the way: it is followed to the surface of the ball.
    assert found(across(X, 1e-3), inside & RADIUS.gt(0.01)) == "warn"
    assert found(across(X, 1e-3), beyond) == "pass"
    # The wrong way leads nowhere, and a sample is no example of itself.
    assert found(across(X, -0.25).clamp(0, 1), ALL) == "pass"
    assert found(X, ALL) == "not_applicable"
    # In l1 the same distance is a much smaller ball.
    assert found(across(X, 0.25), inside & RADIUS.gt(0.06), L1()) == "pass"


def test_transfer_tries_the_example_itself_too() -> None:
    away = torch.tensor([0.0, 0.0, 0.0, 0.05])

    def shell(x: Tensor) -> Tensor:
        moved = (x - X[:1])[:, 3].abs()
        return two_sided(torch.where((moved > 0.04) & (moved < 0.06), 1.0, -1.0))

    x = X[:1]
    model = classifier(shell)
    samples = samples_of(model, x)
    one = torch.ones(1, dtype=torch.bool)
    assert transferred(model, samples, (x + away,), one, 0.3).status == "warn"


def test_transfer_allows_two_in_a_thousand() -> None:
    x = inputs(1000)
    samples = samples_of(MODEL, x)
    radius = linear(x)[:, 1].abs() / WEIGHT.abs().sum()
    nearest = radius.argsort()
    for count, expected in ((2, "pass"), (3, "warn")):
        standing = torch.zeros(1000, dtype=torch.bool)
        standing[nearest[:count]] = True
        entry = transferred(MODEL, samples, (across(x, 0.25),), standing, 0.1)
        assert entry.status == expected


UNIT = 1 / 255
IMAGES = ((inputs(60, (1, 2, 2)) * 255).round() / 255).clamp(0, 1)


def kept_as_image(
    model: Classifier, samples: Samples, x: Tensor, delta: float, metric: Metric
) -> Health:
    """The check on examples ``x``, at the distances that they have."""
    radius = metric.distance(samples.x, x)
    return CHECKS["representable"](
        metric_subject(model, samples, metric, delta=delta, radius=radius, x=x)
    )


def shifted(
    least: float, most: Tensor | float = 1e9, x0: Tensor = IMAGES
) -> Callable[[Tensor], Tensor]:
    """Class 1 where the first pixel of a sample has moved by more and less than so many levels."""

    def run(x: Tensor) -> Tensor:
        own = (x[:, None] - x0[None]).flatten(2)[:, :, 1:].abs().sum(2).argmin(1)
        levels = (x[:, 0, 0, 0] - x0[own][:, 0, 0, 0]).abs() / UNIT
        limit = torch.as_tensor(most).expand(len(x0))[own]
        return two_sided(torch.where((levels > least) & (levels < limit), 1.0, -1.0))

    return run


def rounded(
    run: Callable[[Tensor], Tensor],
    levels: float,
    delta: float,
    *,
    metric: Metric | None = None,
    x0: Tensor = IMAGES,
    spec: InputSpec | None = None,
) -> Health:
    """The check on examples whose first pixel has moved by so many levels."""
    spec = spec or InputSpec((1, 2, 2), (), torch.float32, "chw")
    model = classifier(run, sample=(1, 2, 2), spec=spec)
    samples = samples_of(model, x0)
    x = x0.clone()
    x[:, 0, 0, 0] += levels * UNIT
    metric = metric or Linf()
    return kept_as_image(model, samples, x, delta * UNIT, metric)


@pytest.mark.parametrize("metric", [Linf(), L2(), L1()], ids=lambda metric: metric.name)
def test_representable(metric: Metric) -> None:
    def found(run: Callable[[Tensor], Tensor], levels: float, delta: float, expected: str) -> str:
        entry = rounded(run, levels, delta, metric=metric)
        assert status(entry, f"representable.{metric.name}") == expected
        return entry.finding

    detail = found(shifted(2.1), 3, 4, "pass")
    assert "60 of 60" in detail
    assert "attacked accuracy 0.0% with 8 bits, 0.0% as counted" in detail
    # Rounding falls back across the boundary, but farther out in the ball there is one.
    found(shifted(2.1), 2.2, 4, "pass")
    # Between two levels there is nothing, whatever the rounding.
    detail = found(shifted(2.1, 2.9), 2.5, 4, "warn")
    assert "attacked accuracy 100.0% with 8 bits, 0.0% as counted" in detail
    # The next level would leave the ball.
    found(shifted(2.1), 2.6, 2.8, "warn")
    # Towards the sample it would not.
    found(shifted(1.9), 2.6, 2.8, "pass")
    # The nearest level may be the only one.
    found(shifted(3.5, 4.5), 2.6, 5, "pass")
    # On the lattice the ball is closed, though floats are rounded.
    found(shifted(2.9), 3 - 1e-4, 3, "pass")
    # Nothing found within the budget.
    found(shifted(2.1), 3, 2, "not_applicable")


def test_representable_wants_95_of_100_or_all_but_one() -> None:
    x0 = ((inputs(100, (1, 2, 2)) * 255).round() / 255).clamp(0, 1)
    for lost, expected in ((0, "pass"), (5, "pass"), (6, "warn")):
        most = torch.where(torch.arange(100) < lost, 2.9, 1e9)
        entry = rounded(shifted(2.1, most, x0), 2.5, 4, x0=x0)
        assert entry.status == expected
        assert f"{100 - lost} of 100" in entry.finding
    for n, lost, expected in ((4, 1, "pass"), (4, 2, "warn"), (1, 1, "warn")):
        most = torch.where(torch.arange(n) < lost, 2.9, 1e9)
        assert rounded(shifted(2.1, most, x0[:n]), 2.5, 4, x0=x0[:n]).status == expected


def test_representable_needs_8_bit_images_and_room_to_round() -> None:
    assert rounded(shifted(2.1), 3, 4, x0=IMAGES + 0.4 * UNIT).status == "not_applicable"
    flat = InputSpec((1, 2, 2), (), torch.float32, None)
    assert rounded(shifted(2.1), 3, 4, spec=flat).status == "not_applicable"
    integers = InputSpec((1, 2, 2), (), torch.uint8, "chw", std=(UNIT,))
    assert rounded(lambda x: shifted(2.1)(x * UNIT), 3, 4, spec=integers).status == "not_applicable"


def test_representable_leaves_out_what_was_wrong_from_the_start() -> None:
    model = classifier(
        shifted(2.1), sample=(1, 2, 2), spec=InputSpec((1, 2, 2), (), torch.float32, "chw")
    )
    labels = torch.zeros(60, dtype=torch.long)
    labels[:10] = 1
    x = IMAGES.clone()
    x[10:, 0, 0, 0] += 3 * UNIT
    samples = samples_of(model, IMAGES, labels)
    found = kept_as_image(model, samples, x, 4 * UNIT, Linf())
    assert found.status == "pass"
    assert "50 of 50" in found.finding


def test_representable_respects_the_box() -> None:
    metric = Linf(low=-1.0, high=1.0)
    x0 = 2 * IMAGES - 1
    spec = InputSpec((1, 2, 2), (), torch.float32, "chw", low=-1.0, high=1.0)
    model = classifier(lambda x: shifted(2.1, 4.5)((x + 1) / 2), sample=(1, 2, 2), spec=spec)
    x = x0.clone()
    x[:, 0, 0, 0] += 3 * 2 * UNIT
    found = kept_as_image(model, samples_of(model, x0), x, 4 * 2 * UNIT, metric)
    assert found.status == "pass"
