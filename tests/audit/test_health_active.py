"""The active attack test: its hidden examples exist, and only attacks that work find them."""

import re
from collections.abc import Callable

import pytest
import torch
from fakes import classifier, inputs, linear, metric_subject, samples_of
from torch import Tensor

from attackers.geometry import L2, NORMS, Linf, Metric
from attackers.gradient import Logits, value_and_grad
from attackers.losses import margin, misclassified, outvoted
from attackers.pgd import pgd
from attackers.random_streams import SampleGenerator
from attackers.threat import Threat
from audit.evidence.judge import admissible
from audit.evidence.samples import Samples
from audit.health import readout as readouts
from audit.health.active import find_hidden, in_turn
from audit.health.readout import MOST_GROUPS, Readout, disjoint, hide, isolate
from audit.health.registry import CheckResult
from audit.models.classifier import Classifier
from audit.models.execution import Counted

SHAPE = (1, 12, 12)
BUDGETS = {"linf": 0.05, "l2": 0.5, "l1": 3.0}


def network(classes: int = 6, seed: int = 1) -> Callable[[Tensor], Tensor]:
    """Two layers of random weights: smooth, and of as many features as classes."""
    random = torch.Generator().manual_seed(seed)
    first = torch.randn((144, 64), generator=random) / 12
    second = torch.randn((64, classes), generator=random) / 8
    return lambda x: torch.tanh(3 * (x.flatten(1) - 0.5) @ first) @ second * 10


def steps(x: Tensor) -> Tensor:
    """The network behind a rounding of its inputs: no gradient anywhere."""
    return network()((x * 16).round() / 16)


def modelled(run: Callable[[Tensor], Tensor], n: int = 64, classes: int = 6) -> tuple:
    model = classifier(run, sample=SHAPE, classes=classes)
    return model, samples_of(model, inputs(n, SHAPE))


MODEL, SAMPLES = modelled(network())


def tiny(
    logits: Logits, x0: Tensor, labels: Tensor, threat: Threat, *, generator: SampleGenerator
) -> Tensor:
    """Five steps of a hundredth of the radius."""
    x = x0
    for _ in range(5):
        _, _, grad = value_and_grad(logits, margin, x, labels)
        x = x + threat.metric.ascent(x0, x, grad, 0.01 * threat.delta)
    return threat.metric.project(x0, x, threat.delta)


def idle(logits: Logits, x0: Tensor, *_: object, **__: object) -> Tensor:
    """It never moves."""
    return x0


def farther(
    logits: Logits, x0: Tensor, labels: Tensor, threat: Threat, *, generator: SampleGenerator
) -> Tensor:
    """PGD in a larger ball than it was given."""
    return pgd(logits, x0, labels, Threat(threat.metric, 3 * threat.delta), generator=generator)


def oracle(logits: Logits, *_: object, **__: object) -> Tensor:
    """It knows what is hidden."""
    assert isinstance(logits, Readout)
    return logits.witness


def forgetful(share: int) -> Callable[..., Tensor]:
    """PGD that does not move every ``share``-th sample, chosen by its own stream."""

    def attack(logits: Logits, x0: Tensor, *rest: object, generator: SampleGenerator) -> Tensor:
        x = pgd(logits, x0, *rest, generator=generator)  # type: ignore[arg-type]
        lost = torch.tensor([key % share == 0 for key in generator.keys])
        return torch.where(lost[:, None, None, None], x0, x)

    return attack


def found(
    attack: Callable[..., Tensor],
    model: Classifier = MODEL,
    samples: Samples = SAMPLES,
    metric: Metric | None = None,
    **options: object,
) -> CheckResult:
    metric = metric or Linf()
    delta = BUDGETS[metric.name]
    options = {"probe": 32, "points": 32} | options
    subject = metric_subject(model, samples, metric, delta=delta)
    entry = find_hidden(subject, attack, **options)  # type: ignore[arg-type]
    assert entry.finding.endswith(".")
    return entry


@pytest.mark.parametrize("name", NORMS)
def test_the_hidden_example_is_one(name: str) -> None:
    metric, delta = NORMS[name](), BUDGETS[name]
    rows = SAMPLES.probe(32)
    readout, there = hide(MODEL, metric, SAMPLES, rows, delta, points=64)
    assert int(there.sum()) >= 24
    readout, kept = readout.take(there.nonzero()[:, 0]), rows[there]
    clean = torch.zeros(len(kept), dtype=torch.long)
    assert bool(outvoted(readout(readout.witness), clean).all())
    assert not bool(misclassified(readout(readout.x0), clean).any())
    assert bool((metric.distance(readout.x0, readout.witness) <= delta).all())
    assert bool(admissible(metric, readout.witness).all())
    # The points that it was told from are clean, and noise of another seed mostly is.
    streams = SAMPLES.generator.take(kept)
    fitted = streams.fold("hidden example")
    for x in readouts._clean_points(metric, readout.x0, delta, fitted, 64):
        assert not bool(misclassified(readout(x), clean).any())
    for draw in range(8):
        noise = metric.sample(readout.x0, delta, streams.fold(f"test {draw}"))
        corner = readout.x0 + metric.ascent(readout.x0, readout.x0, noise - readout.x0, delta)
        for x in (noise, corner):
            assert float(outvoted(readout(x), clean).double().mean()) < 0.1


@pytest.mark.parametrize("name", NORMS)
def test_clean_points_fill_the_ball_and_lie_on_its_surface(name: str) -> None:
    metric, delta = NORMS[name](), BUDGETS[name]
    x0, streams = SAMPLES.x[:8], SAMPLES.generator.take(torch.arange(8))
    distance = [
        metric.distance(x0, x) for x in readouts._clean_points(metric, x0, delta, streams, 4)
    ]
    for inside, surface in zip(distance[::2], distance[1::2], strict=True):
        assert bool((inside <= 0.95 * delta).all())
        torch.testing.assert_close(surface, torch.full_like(surface, delta), rtol=1e-3, atol=0)


def test_what_is_hardly_apart_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readouts, "APART", 1e3)
    assert not bool(hide(MODEL, Linf(), SAMPLES, SAMPLES.probe(32), 0.05, points=64)[1].any())


def test_the_readout_is_as_sure_as_the_model() -> None:
    rows = SAMPLES.probe(32)
    readout, there = hide(MODEL, Linf(), SAMPLES, rows, 0.05, points=64)
    own = margin(MODEL.deployed(SAMPLES.x[rows]), SAMPLES.labels[rows])
    clean = torch.zeros(len(rows), dtype=torch.long)
    torch.testing.assert_close(margin(readout(readout.x0), clean)[there], own[there])


def test_every_point_is_read_by_its_own_readout() -> None:
    rows = SAMPLES.probe(32)
    metric = L2()
    readout, _ = hide(MODEL, metric, SAMPLES, rows, 0.5, points=16)
    x = metric.sample(readout.x0, 0.5, SAMPLES.generator.take(rows))
    direct = (MODEL.differentiable(x).double() * readout.weight).sum(1) + readout.bias
    torch.testing.assert_close(readout(x)[:, 1], direct.float())
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))[:20]
    torch.testing.assert_close(readout(x[order])[:, 1], direct.float()[order])
    torch.testing.assert_close(readout.take(order)(x[order])[:, 1], direct.float()[order])


@pytest.mark.parametrize("name", NORMS)
def test_working_attacks_pass_and_crippled_ones_fail(name: str) -> None:
    metric = NORMS[name]()
    assert found(oracle, metric=metric).status == "pass"
    assert found(pgd, metric=metric).status == "pass"
    assert found(tiny, metric=metric).status == "fail"
    assert found(idle, metric=metric).status == "fail"


def test_between_pass_and_fail() -> None:
    assert found(forgetful(10**9)).status == "pass"
    assert found(forgetful(8)).status == "warn"
    assert found(forgetful(3)).status == "fail"


def test_attacks_in_turn_find_what_each_of_them_finds() -> None:
    asked: list[int] = []

    def counting(logits: Logits, x0: Tensor, *_: object, **__: object) -> Tensor:
        asked.append(len(x0))
        return x0

    assert found(in_turn(forgetful(2))).status == "fail"
    # In its second turn it has other streams, hence forgets others.
    assert found(in_turn(*[forgetful(2)] * 8)).status == "pass"
    assert found(in_turn(forgetful(2), counting, pgd, counting)).status == "pass"
    assert asked[0] > 0
    assert len(asked) == 1  # nothing was left for the last


def test_nothing_outside_the_ball_counts() -> None:
    assert found(farther).status == "fail"


def test_gradients_that_are_zero_fail() -> None:
    entry = found(pgd, *modelled(steps))
    assert entry.status == "fail"
    assert entry.numbers["found"] < 0.2 * entry.numbers["informative"]


def test_scores_without_gradients_can_be_tested_too() -> None:
    blind = classifier(network(), sample=SHAPE, classes=6, gradients=False)
    assert found(oracle, blind).status == "pass"
    assert found(pgd, blind).status == "fail"


def test_samples_that_tell_nothing_are_counted_apart() -> None:
    # Flat scores move nowhere, so nothing can be hidden.
    flat = modelled(lambda x: torch.eye(6)[0].expand(len(x), 6) + 0 * x.sum())
    entry = found(pgd, *flat)
    assert entry.status == "not_applicable"
    assert "32 of 32 samples allow no such example" in entry.finding
    # In four dimensions random points reach every corner of the ball.
    model = classifier(linear)
    subject = metric_subject(model, samples_of(model, inputs(64)), delta=0.05)
    assert find_hidden(subject, pgd).status == "not_applicable"
    assert found(pgd, MODEL, samples_of(MODEL, inputs(7, SHAPE))).status == "not_applicable"
    wrong = samples_of(MODEL, SAMPLES.x, (SAMPLES.labels + 1) % 6)
    assert found(pgd, MODEL, wrong).status == "not_applicable"


def test_random_points_that_find_it_make_a_sample_uninformative() -> None:
    def easy(**options: int) -> int:
        counted = re.search(r"(\d+) are uninformative", found(pgd, **options).finding)
        assert counted
        return int(counted[1])

    assert easy(points=64, draws=1) == 0
    assert easy(points=2, draws=400) > 16  # hardly anything is called clean


def test_order_of_the_samples_changes_nothing() -> None:
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    assert found(tiny, MODEL, samples_of(MODEL, SAMPLES.x[order])) == found(tiny)


@pytest.mark.parametrize(("delta", "groups"), [(0.01, 2), (0.19, None), (10.0, MOST_GROUPS)])
def test_balls_of_a_batch_do_not_meet(delta: float, groups: int | None) -> None:
    batches = disjoint(Linf(), SAMPLES, delta, 64)
    assert groups is None or len(batches) == groups
    for rows in batches:
        assert len(rows) <= 32
        for row in rows.tolist():
            others = SAMPLES.x[rows[rows != row]]
            distance = Linf().distance(SAMPLES.x[row].expand_as(others), others)
            assert bool((distance > 2 * delta).all())
    rows = torch.cat(batches)
    assert len(set(rows.tolist())) == len(rows)
    assert delta > 0.01 or len(rows) == 64


def ring(n: int = 40) -> Tensor:
    """Points of the unit circle about (5, 5), the first at their centre."""
    angle = torch.linspace(0, 6.28, n).double()
    return torch.cat([torch.zeros(1, 2).double(), torch.stack([angle.cos(), angle.sin()], 1)]) + 5


def test_isolate_tells_one_point_from_the_others() -> None:
    clean = ring()[None]
    surface = torch.tensor([[[5.5, 5.0], [8.0, 5.0], [5.0, 2.0]]]).double()
    for order, expected in (([0.9, 0.1, 0.5], 2), ([0.1, 0.8, 0.3], 1)):
        chosen, apart, weight, bias = isolate(
            clean, surface, torch.tensor([order]), torch.tensor([4.0]).double()
        )
        assert (int(chosen), bool(apart)) == (expected, True)  # never the one among them
        value = (torch.cat([clean, surface], 1)[0] @ weight[0]) + bias[0]
        assert float(value[0]) == pytest.approx(-4)
        assert bool((value[: len(clean[0])] < 0).all())
        assert 0 < float(value[len(clean[0]) + expected]) < 0.4  # the decision is close to it


def test_isolate_does_not_depend_on_the_scale_of_the_logits() -> None:
    clean, surface = ring()[None], torch.tensor([[[8.0, 5.0]]]).double()
    order, sure = torch.ones(1, 1), torch.ones(1).double()
    _, _, weight, bias = isolate(clean, surface, order, sure)
    _, apart, small, same = isolate(1e-6 * clean, 1e-6 * surface, order, sure)
    assert bool(apart)
    torch.testing.assert_close(1e-6 * small, weight)
    torch.testing.assert_close(same, bias)


def test_isolate_weighs_features_by_their_spread() -> None:
    ellipse = (ring() - 5) * torch.tensor([3.0, 1.0])
    surface = torch.tensor([[[2.9, 1.3]]]).double()  # straight ahead it is hardly apart
    order, sure = torch.ones(1, 1), torch.ones(1).double()
    assert bool(isolate(ellipse[None], surface, order, sure)[1])
    assert not bool(isolate(ellipse[None], surface, order, sure, ridge=1e3)[1])


def test_isolate_says_when_no_point_can_be_told_apart() -> None:
    order, sure = torch.ones(1, 1), torch.ones(1).double()
    for clean, surface in (
        (ring()[None], torch.tensor([[[5.2, 5.1]]]).double()),
        (torch.ones(1, 9, 2).double(), torch.ones(1, 1, 2).double()),
    ):
        _, apart, weight, bias = isolate(clean, surface, order, sure)
        assert not bool(apart)
        assert bool(weight.isfinite().all())
        assert bool(bias.isfinite().all())


def test_isolate_with_more_features_than_points() -> None:
    random = torch.Generator().manual_seed(0)
    clean = torch.randn((3, 20, 500), generator=random).double()
    surface = torch.randn((3, 4, 500), generator=random).double()
    order, sure = torch.rand((3, 4), generator=random), torch.ones(3).double()
    chosen, apart, weight, bias = isolate(clean, surface, order, sure)
    assert bool(apart.all())
    assert torch.equal(chosen, order.argmax(1))
    value = (clean * weight[:, None]).sum(2) + bias[:, None]
    assert bool((value < 0).all())


def test_fewer_samples_cost_less() -> None:
    model = Counted(network())
    found(idle, classifier(model, sample=SHAPE, classes=6, fixed_calls=False), probe=16)
    assert 0 < model.counter.forwards <= 16 * 300
