"""One step of training, a pure function: weights and a batch in, new weights out.

Whoever calls it decides what a batch is and what to keep, so that a run that was stopped goes on as
if it had not been: all that changes is in `State`, tensors under names, and the random numbers of a
step are keyed by its number.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from attackers.adam import adam_step
from attackers.gradient import Logits
from attackers.wagan.networks import Discriminator, Generator, Spec, untrained
from attackers.wagan.objective import (
    Objective,
    Terms,
    discriminator_loss,
    generator_loss,
    generator_terms,
)

NamedTensors = Mapping[str, Tensor]

PARTS = ("weights", "buffers", "first", "second")
"""Of a `Learner`."""

LEAST_RADIUS_SHARE = 0.2
"""Of the radius, that a batch asks for; half of its images ask for all of it."""

FULL_RADIUS_SHARE = 0.5
"""Share of a batch that asks for the whole radius."""


def under(prefix: str, tensors: NamedTensors) -> dict[str, Tensor]:
    """The tensors of a part, without its name."""
    start = f"{prefix}/"
    return {
        name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)
    }


def like(expected: NamedTensors, found: NamedTensors) -> dict[str, Tensor]:
    """What was found, on the device and of the type of what is expected.

    Raises:
        ValueError: names or shapes differ.
    """
    shapes, wanted = ({n: v.shape for n, v in one.items()} for one in (found, expected))
    if shapes != wanted:
        raise ValueError("what was stored belongs to another network")
    return {name: found[name].to(value) for name, value in expected.items()}


@dataclass(frozen=True)
class Learner:
    """A network's weights, and what Adam remembers of their gradients.

    Attributes:
        weights: parameters by name.
        buffers: running statistics by name.
        first, second: moments of the gradients, by name.
    """

    weights: NamedTensors
    buffers: NamedTensors
    first: NamedTensors
    second: NamedTensors

    @classmethod
    def of(cls, network: nn.Module) -> Self:
        """A network as it is, nothing learnt yet."""
        weights = {name: value.detach().clone() for name, value in network.named_parameters()}
        first, second = (
            {name: torch.zeros_like(value) for name, value in weights.items()} for _ in range(2)
        )
        buffers = {name: value.detach().clone() for name, value in network.named_buffers()}
        return cls(weights, buffers, first, second)

    def tracked(self) -> "Tracked":
        """Weights that collect gradients, and buffers that may be written to."""
        weights = {name: value.detach().requires_grad_() for name, value in self.weights.items()}
        return Tracked(weights, {name: value.clone() for name, value in self.buffers.items()})

    def stepped(self, loss: Tensor, tracked: "Tracked", number: int, rate: float) -> "Learner":
        """One step of Adam, the ``number``-th from 1, down the gradient of the loss."""
        names = list(self.weights)
        grads = torch.autograd.grad(loss, [tracked.weights[name] for name in names])
        kept = ([part[name] for name in names] for part in (self.weights, self.first, self.second))
        weights, first, second = kept
        found = adam_step(weights, grads, first, second, number=number - 1, rate=rate)
        weights_, first_, second_ = (dict(zip(names, values, strict=True)) for values in found)
        return Learner(weights_, tracked.buffers, first_, second_)

    def tensors(self) -> dict[str, Tensor]:
        """All of it under names, to be stored."""
        return {
            f"{part}/{name}": value for part in PARTS for name, value in getattr(self, part).items()
        }

    def restored(self, tensors: NamedTensors) -> "Learner":
        """A learner of the same shapes from what `tensors` gave."""
        return Learner(*(like(getattr(self, part), under(part, tensors)) for part in PARTS))

    def to(self, device: torch.device) -> "Learner":
        """The same on another device."""
        return Learner(
            *(
                {name: value.to(device) for name, value in kept.items()}
                for kept in (self.weights, self.buffers, self.first, self.second)
            )
        )


@dataclass(frozen=True)
class Tracked:
    """What a step differentiates: weights with a graph, buffers of its own."""

    weights: dict[str, Tensor]
    buffers: dict[str, Tensor]

    def bound(self, network: nn.Module) -> Callable[..., Tensor]:
        """The network as a function of its inputs, at these weights."""

        def call(*inputs: Tensor) -> Tensor:
            value: Tensor = functional_call(network, (self.weights, self.buffers), inputs)
            return value

        return call


@dataclass(frozen=True)
class Networks:
    """The shapes of both players; their weights are in `State`."""

    generator: Generator
    discriminator: Discriminator

    @classmethod
    def of(cls, spec: Spec, seed: int) -> Self:
        """Untrained networks; torch's global random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(untrained(spec).train(), Discriminator(spec.channels).train())


@dataclass(frozen=True)
class State:
    """All that a step changes.

    Attributes:
        generator, discriminator: of the players.
        average: running mean of the generator's weights, empty where none is kept.
        number: steps taken.
    """

    generator: Learner
    discriminator: Learner
    average: NamedTensors
    number: int = 0

    @classmethod
    def of(cls, networks: Networks, *, averaged: bool = False) -> Self:
        """The start."""
        generator = Learner.of(networks.generator)
        average = generator.weights if averaged else {}
        return cls(generator, Learner.of(networks.discriminator), average)

    @property
    def attacker(self) -> dict[str, Tensor]:
        """Weights and buffers of the generator to use: the averaged ones where they are kept."""
        return {**(self.average or self.generator.weights), **self.generator.buffers}

    def tensors(self) -> dict[str, Tensor]:
        """All of it but the number under names, to be stored."""
        return {
            **{f"generator/{name}": value for name, value in self.generator.tensors().items()},
            **{
                f"discriminator/{name}": value
                for name, value in self.discriminator.tensors().items()
            },
            **{f"average/{name}": value for name, value in self.average.items()},
            "number": torch.tensor(self.number),
        }

    def restored(self, tensors: NamedTensors) -> "State":
        """A state of the same shapes from what `tensors` gave.

        Raises:
            ValueError: names or shapes are not those of this state.
        """
        return State(
            self.generator.restored(under("generator", tensors)),
            self.discriminator.restored(under("discriminator", tensors)),
            like(self.average, under("average", tensors)),
            int(tensors["number"]),
        )

    def to(self, device: torch.device) -> "State":
        """The same on another device."""
        average = {name: value.to(device) for name, value in self.average.items()}
        return State(self.generator.to(device), self.discriminator.to(device), average, self.number)


def step(
    networks: Networks,
    state: State,
    logits: Logits,
    x: Tensor,
    labels: Tensor,
    objective: Objective,
    *,
    radius: float,
    seed: int,
    rate: float = 1e-3,
    decay: float = 0.999,
) -> tuple[State, Terms]:
    """Let the discriminator, then the generator, take one step on a batch.

    Args:
        networks: both players.
        state: where they are; it stays as it is.
        logits: the classifier under attack, whose parameters collect nothing.
        x: (B, C, H, W) originals.
        labels: (B,) int64.
        objective: what is played for.
        radius: the largest that the generator is asked for.
        seed: of noise and radii, together with the number of the step.
        rate: of Adam, for both.
        decay: of the average of the generator's weights, where it is kept.

    Returns:
        The new state, and the generator's terms, detached, with those of the discriminator.
    """
    random = torch.Generator().manual_seed(seed * 1_000_003 + state.number)
    noise = torch.randn(x[:, :1].shape, generator=random).to(x)
    radii = _drawn_radii(len(x), radius, random).to(x)
    objective = suited(objective, networks.generator)
    generator, discriminator = state.generator.tracked(), state.discriminator.tracked()
    z = generator.bound(networks.generator)(x, noise, radii)
    number, low = state.number + 1, networks.generator.spec.low
    opponent, fooled = state.discriminator, torch.zeros((), device=x.device)
    if objective.gan:
        fooled = discriminator_loss(x, z.detach(), discriminator.bound(networks.discriminator))
        opponent = opponent.stepped(fooled, discriminator, number, rate)
    terms = generator_terms(
        objective,
        x,
        z,
        labels,
        radii,
        logits,
        opponent.tracked().bound(networks.discriminator),
        low,
    )
    loss = generator_loss(objective, terms)
    player = state.generator.stepped(loss, generator, number, rate)
    average = {
        name: value.lerp(player.weights[name], 1 - decay) for name, value in state.average.items()
    }
    reported = {name: value.detach() for name, value in terms.items()}
    return State(player, opponent, average, number), {**reported, "discriminator": fooled.detach()}


def suited(objective: Objective, generator: Generator) -> Objective:
    """The objective without the terms that a generator's results cannot violate."""
    if "wasserstein" in generator.holds:
        return replace(objective, transport=0.0, mass=0.0)
    return objective


def _drawn_radii(count: int, radius: float, random: torch.Generator) -> Tensor:
    """Budgets to ask for, ``(count,)``."""
    share = LEAST_RADIUS_SHARE + (1 - LEAST_RADIUS_SHARE) * torch.rand(count, generator=random)
    full = torch.rand(count, generator=random) < FULL_RADIUS_SHARE
    return radius * torch.where(full, 1.0, share)
