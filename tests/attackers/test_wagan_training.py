"""Generators of any size, the terms of their loss, and a step that changes nothing else."""

from dataclasses import replace

import pytest
import torch
from image_mass import images, inside, noise
from linear_models import Linear, streams
from torch import Tensor

from attackers.geometry import L2, Linf, Wasserstein
from attackers.losses import margin
from attackers.threat import Threat
from attackers.wagan.attack import generated, wagan
from attackers.wagan.networks import HEADS, Discriminator, FlowGenerator, Spec, untrained
from attackers.wagan.objective import (
    VARIANTS,
    Objective,
    as_published,
    discriminator_loss,
    generator_loss,
    generator_terms,
)
from attackers.wagan.training import Networks, State, step

METRIC = Wasserstein()
SIZES = [(1, 28, 28), (1, 32, 32), (3, 32, 32), (3, 29, 41), (2, 64, 30)]


def trained_like(spec: Spec, seed: int = 0) -> torch.nn.Module:
    """Weights as after training: none is near its start."""
    network = untrained(spec)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.3 * torch.randn(value.shape, generator=random))
    return network.eval()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("shape", SIZES)
def test_images_of_any_size(head: str, shape: tuple[int, int, int]) -> None:
    network = trained_like(Spec(head, *shape))
    x = images((3, *shape))
    radius = torch.tensor([0.02, 0.2, 1.0])
    with torch.no_grad():
        z = network(x, noise(x[:, :1]), radius)
    assert z.shape == x.shape
    assert bool((z >= 0).all() and (z <= 1).all())
    assert not torch.equal(z, x)
    if head == "flow":
        inside(METRIC, x, z, radius)
    else:
        assert float((z - x).abs().max()) <= 0.3 + 1e-6


@pytest.mark.parametrize("head", HEADS)
def test_an_image_never_sees_its_neighbours(head: str) -> None:
    network = trained_like(Spec(head, 1, 28, 28))
    x = images((5, 1, 28, 28))
    together = generated(network, x, 0.2, streams(x))
    alone = torch.cat([generated(network, row[None], 0.2, streams(row[None])) for row in x])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("head", HEADS)
def test_noise_and_radius_matter(head: str) -> None:
    network = trained_like(Spec(head, 1, 28, 28))
    x = images((2, 1, 28, 28))
    one, other = (network(x, noise(x, seed), torch.full((2,), 0.2)) for seed in (0, 1))
    assert not torch.equal(one, other)
    if head == "flow":
        near = network(x, noise(x, 0), torch.full((2,), 0.02))
        assert bool((METRIC.distance(x, near.detach()) <= 0.02).all())


def test_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match="28×28 pixels at least"):
        Spec("flow", 1, 27, 28)
    with pytest.raises(ValueError, match="unknown head 'tail'"):
        Spec("tail", 1, 28, 28)


# The attack ---------------------------------------------------------------------------------------


def linear(seed: int = 0) -> Linear:
    return Linear(torch.randn((1, 28, 28), generator=torch.Generator().manual_seed(seed)))


def test_the_image_head_is_scaled_back_into_the_ball() -> None:
    network = trained_like(Spec("image", 1, 28, 28))
    x = images((4, 1, 28, 28)) * 0.5 + 0.25
    labels = torch.zeros(4, dtype=torch.int64)
    for metric, radius in ((Linf(), 0.01), (L2(), 0.5)):
        z = wagan(
            linear(), x, labels, Threat(metric, radius), generator=streams(x), network=network
        )
        assert bool((metric.distance(x, z) <= radius).all())
        assert bool((metric.distance(x, z) >= 0.99 * radius).all())
    z = wagan(linear(), x, labels, Threat(METRIC, 0.1), generator=streams(x), network=network)
    assert bool(METRIC.distance(x, z).isinf().all()), "its mass changed: no distance at all"


def test_the_first_draw_that_breaks_is_taken() -> None:
    network = trained_like(Spec("flow", 1, 28, 28))
    model, x = linear(3), images((8, 1, 28, 28))
    labels = model(x).argmax(1)
    threat = Threat(METRIC, 0.3)

    def broken(draws: int) -> int:
        z = wagan(model, x, labels, threat, generator=streams(x), network=network, draws=draws)
        inside(METRIC, x, z, 0.3)
        return int((model(z).argmax(1) != labels).sum())

    assert broken(6) >= broken(1)


# The objective ------------------------------------------------------------------------------------


def terms_of(objective: Objective, x: Tensor, z: Tensor, **options: Tensor) -> dict[str, float]:
    labels = torch.zeros(len(x), dtype=torch.int64)
    found = generator_terms(
        objective,
        x,
        z,
        labels,
        torch.full((len(x),), 0.1),
        lambda image: options.get("logits", torch.tensor([[5.0, 2.0, 1.0]])).expand(len(x), -1),
        lambda image: torch.zeros(len(image), 1, 2, 2),
    )
    return {name: float(value) for name, value in found.items()}


def test_terms_by_hand() -> None:
    x = torch.zeros(1, 1, 28, 28)
    x[0, 0, 4, 4] = 1.0
    z = torch.zeros_like(x)
    z[0, 0, 4, 7] = 0.5  # half the light, three pixels away
    objective = Objective(norm=1.0, norm_limit=1.0, kappa=0.5, entropy=0.05, steps=50)
    found = terms_of(objective, x, z)
    assert found["adversarial"] == pytest.approx(3.5)
    assert found["gan"] == pytest.approx(0.25)
    assert found["norm"] == pytest.approx(1.25**0.5 - 1.0, rel=1e-5)
    assert found["transport"] == pytest.approx(3.0 - 0.1, rel=1e-3)
    assert found["mass"] == pytest.approx(0.5)
    rewarded = terms_of(replace(objective, norm=-1.0, norm_limit=3.0), x, z)
    assert rewarded["norm"] == pytest.approx(3.0 - 1.25**0.5, rel=1e-5)
    fooled = terms_of(objective, x, z, logits=torch.tensor([[1.0, 2.0, 0.0]]))
    assert fooled["adversarial"] == 0
    published = terms_of(as_published("wagan"), x, z, logits=torch.tensor([[0.0, 0.0, 0.0]]))
    assert published["adversarial"] == pytest.approx(-torch.tensor(3.0).log().item(), rel=1e-5)


def test_a_large_norm_is_rewarded_only_up_to_its_limit() -> None:
    x = torch.zeros(1, 1, 28, 28)
    near, far = x + 0.1, x + 0.5
    objective = Objective(norm=-1.0, norm_limit=4.0, transport=0.0, mass=0.0)
    assert terms_of(objective, x, near)["norm"] > 0
    assert terms_of(objective, x, far)["norm"] == 0


def test_only_the_mass_term_sees_brightness() -> None:
    x = images((2, 1, 28, 28))
    objective = Objective(entropy=0.05, steps=50, transport_limit=0.05)
    found = terms_of(objective, x, 0.6 * x)
    assert found["transport"] == pytest.approx(0.0, abs=1e-3)
    assert found["mass"] == pytest.approx(0.4, rel=1e-4)


def test_variants_have_the_published_weights() -> None:
    assert {name: (v.gan, v.norm, v.transport > 0) for name, v in VARIANTS.items()} == {
        "advgan": (10.0, 1.0, False),
        "wagan": (10.0, 0.0, True),
        "wagan-beta-minus": (10.0, -1.0, True),
        "wagan-beta-plus": (10.0, 1.0, True),
    }
    for name in VARIANTS:
        published = as_published(name)
        assert (published.adversarial, published.loss, published.mass) == (1.0, "ce", 0.0)
        assert published.transport == (0.0 if name == "advgan" else 1.0)


@pytest.mark.parametrize("wrong", [{"loss": "hinge"}, {"gan": -1.0}, {"kappa": -1.0}, {"cap": 0.0}])
def test_an_objective_that_cannot_be_meant(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"unknown loss|may be negative"):
        Objective(**wrong)


# The step -----------------------------------------------------------------------------------------


def batch(size: int = 6) -> tuple[Linear, Tensor, Tensor]:
    model, x = linear(1), images((size, 1, 28, 28))
    return model, x, model(x).argmax(1)


def same(one: State, other: State) -> bool:
    return all(
        torch.equal(value, getattr(getattr(other, player), part)[name])
        for player in ("generator", "discriminator")
        for part in ("weights", "buffers", "first", "second")
        for name, value in getattr(getattr(one, player), part).items()
    )


@pytest.mark.parametrize("head", HEADS)
def test_a_step_is_pure(head: str) -> None:
    model, x, labels = batch()
    networks = Networks.of(Spec(head, 1, 28, 28), 0)
    before, untouched = (State.of(Networks.of(Spec(head, 1, 28, 28), 0)) for _ in range(2))
    torch.manual_seed(1)
    one, _ = step(networks, before, model, x, labels, Objective(), radius=0.3, seed=0)
    torch.manual_seed(2)
    other, _ = step(networks, before, model, x, labels, Objective(), radius=0.3, seed=0)
    assert same(before, untouched)
    assert same(one, other)
    assert not same(one, before)
    assert one.number == 1
    another, _ = step(networks, before, model, x, labels, Objective(), radius=0.3, seed=1)
    assert not same(one, another)


def test_adam_is_torchs_adam() -> None:
    model, x, labels = batch()
    spec = Spec("flow", 1, 28, 28)
    objective = Objective(gan=0.0)
    networks = Networks.of(spec, 0)
    state = State.of(networks)
    reference = Networks.of(spec, 0).generator
    optimiser = torch.optim.Adam(reference.parameters(), 1e-3)
    for number in range(3):
        random = torch.Generator().manual_seed(number)
        drawn = torch.randn(x[:, :1].shape, generator=random)
        share = 0.2 + 0.8 * torch.rand(len(x), generator=random)
        full = torch.rand(len(x), generator=random) < 0.5
        z = reference(x, drawn, 0.3 * torch.where(full, 1.0, share))
        loss = 100 * (2 - margin(model(z), labels)).clamp_min(0).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        state, _ = step(networks, state, model, x, labels, objective, radius=0.3, seed=0)
    for name, value in reference.named_parameters():
        torch.testing.assert_close(state.generator.weights[name], value.detach())


def test_each_player_improves_its_own_loss() -> None:
    model, x, labels = batch(16)
    networks = Networks.of(Spec("image", 1, 28, 28), 0)
    state = State.of(networks)
    first: dict[str, Tensor] = {}
    for _ in range(60):
        state, terms = step(networks, state, model, x, labels, Objective(), radius=0.3, seed=0)
        first = first or dict(terms)
    assert terms["adversarial"] < 0.7 * first["adversarial"]
    assert terms["discriminator"] < 0.9 * first["discriminator"]


def test_real_images_are_one_and_generated_ones_zero() -> None:
    x, z = torch.ones(2, 1, 28, 28), torch.zeros(2, 1, 28, 28)

    def sure(image: Tensor) -> Tensor:
        return 40 * (image.mean((1, 2, 3)) - 0.5)

    assert float(discriminator_loss(x, z, sure)) == pytest.approx(0.0, abs=1e-6)
    assert float(discriminator_loss(z, x, sure)) == pytest.approx(2.0, abs=1e-6)


def test_the_average_follows_the_weights() -> None:
    model, x, labels = batch()
    networks = Networks.of(Spec("flow", 1, 28, 28), 0)
    state = State.of(networks, averaged=True)
    before = state.average["sharpness"].clone()
    state, _ = step(networks, state, model, x, labels, Objective(), radius=0.3, seed=0, decay=0.75)
    expected = 0.75 * before + 0.25 * state.generator.weights["sharpness"]
    torch.testing.assert_close(state.attacker["sharpness"], expected)


def test_the_loss_is_the_weighted_sum() -> None:
    terms = {"adversarial": torch.tensor(2.0), "gan": torch.tensor(3.0), "norm": torch.tensor(5.0)}
    value = generator_loss(Objective(adversarial=7.0, gan=11.0, norm=-13.0), terms)
    assert float(value) == 7 * 2 + 11 * 3 + 13 * 5


def test_the_flow_head_leaves_out_what_it_cannot_violate() -> None:
    model, x, labels = batch()
    networks = Networks.of(Spec("flow", 1, 28, 28), 0)
    assert isinstance(networks.generator, FlowGenerator)
    _, terms = step(networks, State.of(networks), model, x, labels, Objective(), radius=0.3, seed=0)
    assert set(terms) == {"adversarial", "gan", "discriminator"}


def test_the_discriminator_judges_patches() -> None:
    for size in (28, 32, 64):
        patches = Discriminator(3)(images((2, 3, size, size)))
        assert patches.shape[:2] == (2, 1)
        assert patches.shape[2] == patches.shape[3] >= 1
