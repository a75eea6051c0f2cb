"""Every attack on linear classifiers, whose minimal radii are known: from both sides."""

from functools import partial

import pytest
import torch
from linear_models import (
    EVERY_ATTACK,
    SHAPES,
    Linear,
    broken_at,
    linear_problem,
    minimal_at,
    streams,
)
from scipy.optimize import brentq, linprog
from torch import Tensor

from attackers import ATTACKS, PointwiseAttack
from attackers.apgd import apgd
from attackers.boundary import nearest_on_segment
from attackers.geometry import L1, L2, METRICS, NORMS, Linf, Metric
from attackers.gradient import value_and_grad
from attackers.losses import LOSSES, cross_entropy, margin, misclassified
from attackers.minimal import minimal_radius
from attackers.pgd import pgd
from attackers.threat import Threat

GRADIENT_BASED = sorted(name for name in EVERY_ATTACK if "gradients" in ATTACKS[name].needs)
# How far above the true radius a found one may lie: the brackets' width of 2 %, and for l1, where
# the optimum moves few coordinates, a little more (measured: at most 1.6, 1.6 and 1.9 %).
CLOSE = {"linf": 1.02, "l2": 1.02, "l1": 1.03}
every_metric = pytest.mark.parametrize("metric", [NORMS[n]() for n in NORMS], ids=NORMS)
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def breaks_just_outside(attack: PointwiseAttack, metric: Metric, shape: tuple[int, ...]) -> bool:
    model, x0, labels = linear_problem(shape)
    radius = 1.05 * model.radius(x0, metric)
    return bool(broken_at(attack, model, x0, labels, metric, radius).all())


@pytest.mark.parametrize("name", GRADIENT_BASED)
@every_metric
@every_shape
def test_breaks_just_outside_the_radius(name: str, metric: Metric, shape: tuple[int, ...]) -> None:
    assert breaks_just_outside(EVERY_ATTACK[name], metric, shape)


@pytest.mark.parametrize("name", EVERY_ATTACK)
@every_metric
@every_shape
def test_never_breaks_just_inside(name: str, metric: Metric, shape: tuple[int, ...]) -> None:
    model, x0, labels = linear_problem(shape)
    radius = 0.95 * model.radius(x0, metric)
    assert not broken_at(EVERY_ATTACK[name], model, x0, labels, metric, radius).any()


@every_metric
def test_an_attack_that_does_nothing_would_be_noticed(metric: Metric) -> None:
    def nothing(logits: object, x0: Tensor, *_: object, **__: object) -> Tensor:
        return x0

    assert not breaks_just_outside(nothing, metric, SHAPES["vector"])
    assert not breaks_just_outside(partial(pgd, steps=0), metric, SHAPES["vector"])


@every_metric
def test_random_search_finds_what_is_easy(metric: Metric) -> None:
    model, x0, labels = linear_problem((2,))
    radius = (6 * model.radius(x0, metric)).clamp_max(0.4)
    assert broken_at(ATTACKS["random"], model, x0, labels, metric, radius).all()


@pytest.mark.parametrize("loss", LOSSES)
@every_metric
def test_pgd_breaks_with_every_loss(loss: str, metric: Metric) -> None:
    attack = partial(pgd, loss=LOSSES[loss])
    assert breaks_just_outside(attack, metric, SHAPES["image"])


@every_metric
@every_shape
def test_minimal_radii_are_those_of_the_closed_form(metric: Metric, shape: tuple[int, ...]) -> None:
    model, x0, labels = linear_problem(shape)
    x = minimal_radius(model, x0, labels, metric, generator=streams(x0))
    assert misclassified(model(x), labels).all()
    exact = model.radius(x0, metric)
    ratio = metric.distance(x0, x) / exact
    assert (ratio >= 1 - 1e-5).all()
    assert (ratio <= CLOSE[metric.name]).all(), ratio


@pytest.mark.parametrize(
    ("metric", "order"), [(Linf(), 1), (L2(), 2), (L1(), torch.inf)], ids=["linf", "l2", "l1"]
)
def test_the_second_best_class_is_not_always_the_nearest(metric: Metric, order: float) -> None:
    """Ten linear scores, one of them with a much larger slope than the rest."""
    random = torch.Generator().manual_seed(3)
    weight = torch.randn((36, 10), generator=random) / 4
    weight[:, 0] += 1
    x0 = 0.5 + 0.1 * torch.randn((40, 36), generator=random).clamp(-2, 2)

    def model(x: Tensor) -> Tensor:
        return torch.stack([((row - 0.5)[:, None] * weight).sum(0) for row in x])

    scores = model(x0)
    labels = scores.argmax(1)
    gaps = scores.gather(1, labels[:, None]) - scores
    slopes = torch.linalg.vector_norm(weight[:, :, None] - weight[:, None], ord=order, dim=0)
    ratios = (gaps / slopes[labels]).scatter(1, labels[:, None], torch.inf)
    second = scores.scatter(1, labels[:, None], -torch.inf).argmax(1)
    assert (ratios.argmin(1) != second).any()
    x = minimal_radius(model, x0, labels, metric, generator=streams(x0))
    assert (metric.distance(x0, x) <= 1.05 * ratios.amin(1)).all()


def crowded_problem(samples: int = 6) -> tuple[Linear, Tensor, Tensor, Tensor]:
    """Samples beside the faces of the box, with a boundary that only a bent path reaches.

    Returns the model, the samples, their labels, and the direction (B, D) that lowers each score.
    """
    random = torch.Generator().manual_seed(4)
    weight = torch.randn(8, generator=random)
    towards_face = (weight > 0).float()
    x0 = 0.35 + 0.3 * torch.rand((samples, 8), generator=random)
    # The strongest coordinates stand close to the face they would have to cross.
    strong = weight.abs() >= weight.abs().sort().values[4]
    x0 = torch.where(strong, 0.97 * towards_face + 0.03 * x0, x0)
    model = Linear(weight, float(-((x0 - 0.5) * weight).sum(1).max() - 0.6))
    labels = model(x0).argmax(1)
    assert (labels == 0).all()
    return model, x0, labels, weight.expand_as(x0).double()


def exact_radius_in_the_box(metric: Metric, x0: Tensor, g: Tensor, needed: float) -> float:
    """min d(x0, x0 + d) with <g, d> >= needed and x0 + d in [0, 1]; one row."""
    low, high, gain = (-x0).double().numpy(), (1 - x0).double().numpy(), g.numpy()
    n = len(gain)
    if metric.name == "l2":
        # The optimum is clip(t g): the KKT conditions with one multiplier t.
        def missing(t: float) -> float:
            return float(gain @ (t * gain).clip(low, high)) - needed

        t = brentq(missing, 0, 1e4, xtol=1e-12)
        return float(((t * gain).clip(low, high) ** 2).sum() ** 0.5)
    if metric.name == "linf":
        # Variables d, r with |d_i| <= r.
        rows = [[*(s * (i == j) for j in range(n)), -1.0] for i in range(n) for s in (1, -1)]
        return float(
            linprog(
                [0.0] * n + [1.0],
                A_ub=[*rows, [*(-gain), 0.0]],
                b_ub=[0.0] * (2 * n) + [-needed],
                bounds=[*zip(low, high, strict=True), (0, None)],
            ).fun
        )
    # Variables u, v >= 0 with d = u - v.
    return float(
        linprog(
            [1.0] * (2 * n),
            A_ub=[[*(-gain), *gain]],
            b_ub=[-needed],
            bounds=[*((0, h) for h in high), *((0, -m) for m in low)],
        ).fun
    )


@every_metric
def test_minimal_radii_where_the_box_binds(metric: Metric) -> None:
    model, x0, labels, gain = crowded_problem()
    x = minimal_radius(model, x0, labels, metric, generator=streams(x0))
    assert misclassified(model(x), labels).all()
    needed = -model(x0)[:, 1].double()
    exact = torch.tensor(
        [
            exact_radius_in_the_box(metric, *row)
            for row in zip(x0, gain, needed.tolist(), strict=True)
        ]
    )
    # The box does bind: without it the radius would be much smaller.
    assert (exact > 1.2 * model.radius(x0, metric)).all()
    ratio = metric.distance(x0, x) / exact
    assert (ratio >= 1 - 1e-5).all()
    assert (ratio <= CLOSE[metric.name]).all(), ratio


@pytest.mark.parametrize("name", sorted(GRADIENT_BASED))
@pytest.mark.parametrize("metric", [Linf(), L2()], ids=["linf", "l2"])
def test_attacks_break_and_hold_where_the_box_binds(name: str, metric: Metric) -> None:
    model, x0, labels, gain = crowded_problem()
    needed = (-model(x0)[:, 1].double()).tolist()
    exact = torch.tensor(
        [exact_radius_in_the_box(metric, *row) for row in zip(x0, gain, needed, strict=True)]
    )
    attack = EVERY_ATTACK[name]
    assert broken_at(attack, model, x0, labels, metric, 1.05 * exact).all()
    assert not broken_at(attack, model, x0, labels, metric, 0.95 * exact).any()


@pytest.mark.parametrize("name", EVERY_ATTACK)
@every_metric
def test_inputs_and_parameters_stay_as_they_were(name: str, metric: Metric) -> None:
    model, x0, labels = linear_problem((2, 3))
    model.weight.requires_grad_()
    before, y = x0.clone(), labels.clone()
    x = EVERY_ATTACK[name](model, x0, labels, Threat(metric, 0.1), generator=streams(x0))
    assert torch.equal(x0, before)
    assert torch.equal(labels, y)
    assert model.weight.grad is None
    assert not x.requires_grad
    assert not x0.requires_grad


@pytest.mark.parametrize("name", EVERY_ATTACK)
@every_metric
def test_bits_do_not_depend_on_batch_order_or_run(name: str, metric: Metric) -> None:
    model, x0, labels = linear_problem((3, 4, 4), samples=6)
    radius = 1.02 * model.radius(x0, metric)

    def attack(rows: Tensor) -> Tensor:
        x, y, r = x0[rows], labels[rows], radius[rows]
        return EVERY_ATTACK[name](model, x, y, Threat(metric, r), generator=streams(x))

    everyone = torch.arange(6)
    together = attack(everyone)
    assert torch.equal(attack(everyone), together)
    for size in (1, 4):
        assert torch.equal(torch.cat([attack(rows) for rows in everyone.split(size)]), together)
    shuffled = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(attack(shuffled), together[shuffled])


@pytest.mark.parametrize("name", EVERY_ATTACK)
def test_samples_without_a_gradient_stay_inside(name: str) -> None:
    def constant(x: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0]).expand(len(x), 2)

    def not_a_number(x: Tensor) -> Tensor:
        z = (x.flatten(1).sum(1) * 0).sqrt() + 1  # the gradient at 0 is 0 · inf
        return torch.stack([torch.zeros_like(z), z], dim=1)

    _, x0, _ = linear_problem((5,))
    labels = torch.ones(len(x0), dtype=torch.long)
    for model in (constant, not_a_number):
        for metric in (Linf(), L2(), L1()):
            assert not broken_at(
                EVERY_ATTACK[name], model, x0, labels, metric, torch.full((len(x0),), 0.1)
            ).any()


def test_wrong_samples_and_no_radius() -> None:
    model, x0, labels = linear_problem((12,))
    metric = Linf()
    for name, attack in EVERY_ATTACK.items():
        none = attack(model, x0, labels, Threat(metric, 0.0), generator=streams(x0))
        assert torch.equal(none, x0), name
        broken = broken_at(attack, model, x0, 1 - labels, metric, torch.full((len(x0),), 1e-6))
        assert broken.all(), name


def test_minimal_radius_returns_the_sample_where_nothing_breaks() -> None:
    def sure(x: Tensor) -> Tensor:
        z = x.flatten(1).sum(1)
        return torch.stack([z, z + 1], dim=1)

    _, x0, _ = linear_problem((5,))
    labels = torch.ones(len(x0), dtype=torch.long)
    assert torch.equal(minimal_radius(sure, x0, labels, L2(), generator=streams(x0)), x0)


def test_a_warm_start_is_used_and_projected() -> None:
    model, x0, labels = linear_problem((12,))
    metric = L2()
    away = x0 - 10 * (labels * 2 - 1)[:, None] * model.weight
    threat = Threat(metric, 1.01 * model.radius(x0, metric))
    x = pgd(model, x0, labels, threat, generator=streams(x0), steps=0, start=away)
    assert misclassified(model(x), labels).all()
    assert (metric.distance(x0, x) <= threat.delta).all()


def test_apgd_keeps_the_iterate_of_largest_loss() -> None:
    # A ring around the sample: the loss is largest half-way out, and nothing is misclassified.
    def ring(x: Tensor) -> Tensor:
        away = (x - 0.5).flatten(1).square().sum(1).sqrt()
        z = 1 + 50 * (away - 0.05).square()
        return torch.stack([torch.zeros_like(z), z], dim=1)

    x0 = torch.full((4, 6), 0.5) + torch.arange(4)[:, None] * 1e-4
    labels = torch.ones(4, dtype=torch.long)
    seen: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        scores = ring(x)
        seen.append(margin(scores.detach(), labels))
        return scores

    threat = Threat(L2(), 0.1)
    x = apgd(watched, x0, labels, threat, generator=streams(x0), steps=12)
    assert torch.equal(margin(ring(x), labels), torch.stack(seen).max(0).values)


def test_gradients_come_in_slices_with_the_same_bits() -> None:
    model, x0, labels = linear_problem((3, 4), samples=7)
    whole = value_and_grad(model, cross_entropy, x0, labels)
    sliced = value_and_grad(model, cross_entropy, x0, labels, rows=3)
    for a, b in zip(whole, sliced, strict=True):
        assert torch.equal(a, b)
        assert not a.requires_grad


@every_metric
def test_the_walk_back_ends_on_the_misclassified_side_and_nearer(metric: Metric) -> None:
    model, x0, labels = linear_problem((12,))
    far = x0 - 0.4 * (labels * 2 - 1)[:, None] * model.weight.sign()
    assert misclassified(model(far), labels).all()
    near = nearest_on_segment(model, x0, far, labels, steps=10)
    assert misclassified(model(near), labels).all()
    # On the segment: every coordinate lies between its ends.
    assert (near >= torch.minimum(x0, far)).all()
    assert (near <= torch.maximum(x0, far)).all()
    crossing = model(x0)[:, 1] / (model(x0)[:, 1] - model(far)[:, 1])
    share = metric.distance(x0, near) / metric.distance(x0, far)
    assert (share >= crossing - 1e-5).all()
    assert (share <= crossing + 2**-10 + 1e-5).all()


def test_minimal_at_is_what_the_oracle_table_runs() -> None:
    assert EVERY_ATTACK["minimal"] is minimal_at
    everywhere = {e.name for e in ATTACKS.values() if e.metrics == METRICS.keys()}
    assert everywhere - {"wagan", "w-pgd"} < EVERY_ATTACK.keys()
