"""The generators, one per head, and the discriminator.

Both generators take the image, noise n ~ N(0, I) of its size as one more channel, and give an image
of the same shape. The head ``image`` adds a perturbation, with the network of AdvGAN's public code;
the head ``flow`` moves mass (`attackers.wagan.flow`), and takes the radius as an input at run time.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, pixel_shuffle

from attackers.rows import expand
from attackers.wagan.flow import moved_mass

Padding = Literal["zeros", "reflect"]

SMALLEST_IMAGE = 28
"""Rows and columns that an image needs at least: three convolutions without padding shrink it."""

RESIDUAL_BLOCKS = {"image": 4, "flow": 2}
"""Residual blocks of each head."""

INITIAL_SHARPNESS = 4.0
"""By what the potential of an untrained flow head is multiplied."""


@dataclass(frozen=True)
class Spec:
    """What a generator is built from; with its weights it is the generator.

    Attributes:
        head: a name of `HEADS`.
        channels, height, width: of the images.
        low, high: the box.
        clip: largest perturbation of the head ``image``, as a share of the box.
        reach: rows and columns that the head ``flow`` moves mass on each side.
        width_factor: channels of the network over the usual ones.
    """

    head: str
    channels: int
    height: int
    width: int
    low: float = 0.0
    high: float = 1.0
    clip: float = 0.3
    reach: int = 2
    width_factor: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.head not in HEADS:
            raise ValueError(f"unknown head {self.head!r}: choose from {', '.join(HEADS)}")
        if min(self.height, self.width) < SMALLEST_IMAGE or self.channels < 1:
            raise ValueError(
                f"images of {SMALLEST_IMAGE}×{SMALLEST_IMAGE} pixels at least, not {self.shape}"
            )
        if not self.low < self.high or self.reach < 1 or self.width_factor < 1 or self.clip <= 0:
            raise ValueError(f"a box, a reach, a width and a clip are positive: {asdict(self)}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image."""
        return self.channels, self.height, self.width


class Generator(nn.Module, ABC):
    """Images ``(B, C, H, W)`` to attacked images, in one pass.

    Attributes:
        holds: names of the metrics in which no result is farther than the radius, whatever the
            weights are.
    """

    holds: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec

    @abstractmethod
    def forward(self, x: Tensor, noise: Tensor, radius: Tensor) -> Tensor:
        """Attacked images.

        Args:
            x: (B, C, H, W) in the box.
            noise: (B, 1, H, W) standard normal.
            radius: (B,) in pixels × fraction of mass; the head ``image`` does not look at it.
        """

    def scaled(self, x: Tensor) -> Tensor:
        """Images of the box in [0, 1], float32."""
        return (x.float() - self.spec.low) / (self.spec.high - self.spec.low)


class ImageGenerator(Generator):
    """clamp(x + clip(…)): the perturbation of the published network, through tanh.

    Source: Xiao et al. 2018 (AdvGAN), in the layers of its most used public code.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        a, b, c = (spec.width_factor * width for width in (8, 16, 32))
        self.encoder = nn.Sequential(
            *_normed(nn.Conv2d(spec.channels + 1, a, 3)),
            *_normed(nn.Conv2d(a, b, 3, stride=2)),
            *_normed(nn.Conv2d(b, c, 3, stride=2)),
        )
        blocks = (Residual(c, nn.BatchNorm2d, "reflect") for _ in range(RESIDUAL_BLOCKS["image"]))
        self.blocks = nn.Sequential(*blocks)
        self.decoder = nn.Sequential(
            *_normed(nn.ConvTranspose2d(c, b, 3, stride=2)),
            *_normed(nn.ConvTranspose2d(b, a, 3, stride=2)),
            nn.ConvTranspose2d(a, spec.channels, 6),
            nn.Tanh(),
        )
        self.apply(_published)

    def forward(self, x: Tensor, noise: Tensor, radius: Tensor) -> Tensor:
        """See `Generator`."""
        del radius
        spec = self.spec
        wide = self.decoder(self.blocks(self.encoder(torch.cat([self.scaled(x), noise], 1))))
        # 4·floor((s - 5) / 4) + 8 >= s rows come back from s; of the surplus the middle is taken.
        top, left = ((a - b) // 2 for a, b in zip(wide.shape[2:], x.shape[2:], strict=True))
        change = wide[..., top : top + spec.height, left : left + spec.width]
        change = change.clamp(-spec.clip, spec.clip) * (spec.high - spec.low)
        attacked: Tensor = (x + change.to(x)).clamp(spec.low, spec.high)
        return attacked


class FlowGenerator(Generator):
    """Mass moved up a potential that comes from a network with skip connections.

    The best plans climb a potential, by duality; the network makes one per channel, at half the
    resolution until its last layer. What single pixels hold decides where mass should go, which a
    decoder alone has lost: unlike the published network this one keeps the encoder's maps.
    """

    holds = frozenset({"wasserstein"})

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        a, b = (spec.width_factor * width for width in (24, 48))
        self.first = nn.Sequential(*_normed(nn.Conv2d(spec.channels + 2, a, 4, 2, 1), affine=True))
        self.down = nn.Sequential(*_normed(nn.Conv2d(a, b, 3, 2, 1), affine=True))
        blocks = (Residual(b, nn.InstanceNorm2d, "zeros") for _ in range(RESIDUAL_BLOCKS["flow"]))
        self.blocks = nn.Sequential(*blocks)
        self.up = nn.Sequential(*_normed(nn.Conv2d(b + a, a, 3, padding=1), affine=True))
        self.last = nn.Conv2d(a, 4 * spec.channels, 3, padding=1)
        self.sharpness = nn.Parameter(torch.tensor(INITIAL_SHARPNESS))

    def forward(self, x: Tensor, noise: Tensor, radius: Tensor) -> Tensor:
        """See `Generator`; within the radius for any weights."""
        spec, potential = self.spec, self.potential(x, noise, radius)
        return moved_mass(x, potential, radius, reach=spec.reach, low=spec.low, high=spec.high)

    def potential(self, x: Tensor, noise: Tensor, radius: Tensor) -> Tensor:
        """Worth of mass at every pixel, ``(B, C, H, W)``."""
        height, width = x.shape[2:]
        budget = expand(radius, noise).expand_as(noise)
        given = pad(torch.cat([self.scaled(x), noise, budget], 1), (0, width % 2, 0, height % 2))
        fine = self.first(given)
        coarse = self.blocks(self.down(fine))
        coarse = interpolate(coarse, scale_factor=2.0)[..., : fine.shape[2], : fine.shape[3]]
        fine = self.up(torch.cat([coarse, fine], 1))
        return self.sharpness * pixel_shuffle(self.last(fine), 2)[..., :height, :width]


class Discriminator(nn.Module):
    """How real each patch of an image looks, ``(B, 1, h, w)`` logits.

    Source: as `ImageGenerator`; without the last sigmoid, which the losses bring along.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 8, 4, stride=2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8, 16, 4, stride=2),
            nn.BatchNorm2d(16),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, 32, 4, stride=2),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 1, 1),
        )
        self.apply(_published)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the patches."""
        patches: Tensor = self.layers(x)
        return patches


class Residual(nn.Module):
    """x + conv(relu(conv(x))), each convolution normed."""

    def __init__(self, channels: int, norm: type[nn.Module], padding: Padding) -> None:
        super().__init__()
        self.change = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode=padding, bias=False),
            norm(channels, affine=True),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode=padding, bias=False),
            norm(channels, affine=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        total: Tensor = x + self.change(x)
        return total


HEADS: dict[str, type[Generator]] = {"image": ImageGenerator, "flow": FlowGenerator}
"""How a generator attacks, by name."""


def untrained(spec: Spec) -> Generator:
    """An untrained generator; its weights come from torch's global random state."""
    return HEADS[spec.head](spec)


def _normed(
    layer: nn.Conv2d | nn.ConvTranspose2d, *, affine: bool = False
) -> tuple[nn.Module, ...]:
    return layer, nn.InstanceNorm2d(layer.out_channels, affine=affine), nn.ReLU()


def _published(layer: nn.Module) -> None:
    """Weights of N(0, 0.02), scales of N(1, 0.02), as the public code draws them."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    if isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
        nn.init.zeros_(layer.bias)
