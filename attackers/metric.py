"""Interface of a metric: the methods over which attacks and certificates are written.

A metric measures how far an input has moved inside the box ``[low, high]``. Each offers the same
few methods, for batches ``(B, ...)`` of floating dtype with ``x0`` inside the box, and radii that
are a number or one number per sample ``(B,)``:

    distance(x0, x)              d(x0, x), float64 (B,)
    project(x0, x, radius)       the nearest point to x in ball ∩ box
    ascent(x0, x, grad, step)    argmax <grad, d> over d(x, x + d) <= step, x + d in the box
    direction(x0, grad)          h with <h, grad> = ||grad||_*, d(x0, x0 + h) = 1 (no box)
    dual_norm(x0, grad)          ||grad||_* = sup <grad, h> over unit h, float64 (B,)
    sample(x0, radius, generator) a random point of ball ∩ box
    diameter(x0)                 the largest distance from x0 inside the box, (B,)
    farthest(x0, grad, radius)   x0 + ascent, rounded inwards
    heading(x0, x, grad, longest) what first-order attacks follow; `direction` by default
    corners(x0, radius)          displacements whose convex hull holds ball ∩ box, or None: too many
    ball(x0, radius)             projection and steepest steps, cheaper for loops

`project` rounds inwards: the float64 distance of its result never exceeds the radius.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from attackers.random_streams import SampleGenerator
from attackers.rows import expand_down

Radius = Tensor | float

INWARD = 1 - 2.0**-17
"""Share of a radius that is used, so that lengths rounded to float32 stay inside the ball."""


@dataclass(frozen=True)
class Ball:
    """Ball ∩ box around each sample, by the metric's own exact methods.

    Attributes:
        metric: the geometry.
        x0: (B, ...) centres, in the box.
        radius: (B, 1, ...) in the dtype of ``x0``.
    """

    metric: "Metric"
    x0: Tensor
    radius: Tensor

    @classmethod
    def of(cls, metric: "Metric", x0: Tensor, radius: Tensor | float) -> Self:
        """Prepare the balls of one radius, or one per sample ``(B,)``."""
        return cls(metric, x0, expand_down(radius, x0))

    def resized(self, radius: Tensor) -> Self:
        """The balls around the same centres with other radii ``(B,)``."""
        return replace(self, radius=expand_down(radius, self.x0))

    def take(self, rows: Tensor) -> Self:
        """The balls of some samples; ``rows``: mask or indices."""
        return replace(self, x0=self.x0[rows], radius=self.radius[rows])

    def step(self, x: Tensor, grad: Tensor, length: Tensor) -> Tensor:
        """The displacement of the given length ``(B,)`` that gains most; it may leave the ball."""
        return self.metric.ascent(self.x0, x, grad, length)

    def project(self, x: Tensor) -> Tensor:
        """Bring ``x`` back into ball and box."""
        return self.metric.project(self.x0, x, self.radius.flatten())

    def clamp(self, x: Tensor) -> Tensor:
        """Clip to the box."""
        return x.clamp(self.metric.low, self.metric.high)

    def room(self, x: Tensor, sign: Tensor) -> Tensor:
        """Return how far each coordinate may move the way of ``sign`` before it leaves the box."""
        return room(x, sign, self.metric.low, self.metric.high)


@dataclass(frozen=True)
class Metric(ABC):
    """Interface of a metric over the box ``[low, high]``; see the module's docstring."""

    low: float = 0.0
    high: float = 1.0

    name: ClassVar[str]
    unit: ClassVar[str]
    prepared: ClassVar[type[Ball]] = Ball

    @abstractmethod
    def distance(self, x0: Tensor, x: Tensor) -> Tensor:
        """Return d(x0, x) per sample, float64 ``(B,)``."""

    @abstractmethod
    def project(self, x0: Tensor, x: Tensor, radius: Radius) -> Tensor:
        """Return the Euclidean projection of ``x`` onto the ball around ``x0`` and the box."""

    @abstractmethod
    def ascent(self, x0: Tensor, x: Tensor, grad: Tensor, step: Radius) -> Tensor:
        """Return the displacement of length at most ``step`` that gains most and keeps the box."""

    @abstractmethod
    def direction(self, x0: Tensor, grad: Tensor) -> Tensor:
        """Return the unit displacement that gains most to first order, ignoring the box."""

    @abstractmethod
    def dual_norm(self, x0: Tensor, grad: Tensor) -> Tensor:
        """Return ||grad||_* per sample, float64 ``(B,)``."""

    def farthest(self, x0: Tensor, grad: Tensor, radius: Radius) -> Tensor:
        """Return the point of ball ∩ box that lies farthest along ``grad``."""
        return self.project(x0, x0 + self.ascent(x0, x0, grad, radius), radius)

    def heading(self, x0: Tensor, x: Tensor, grad: Tensor, longest: Radius) -> Tensor:
        """Return a displacement per unit of length that first-order attacks follow from ``x``.

        Args:
            x0: (B, ...) originals.
            x: (B, ...) where the step begins.
            grad: (B, ...) what to climb.
            longest: the longest step that will be taken along it.

        Returns:
            (B, ...), `direction` where the box is left to clipping.
        """
        del x, longest
        return self.direction(x0, grad)

    @abstractmethod
    def sample(self, x0: Tensor, radius: Radius, generator: SampleGenerator) -> Tensor:
        """Return a random point of the ball around ``x0``, inside the box."""

    @abstractmethod
    def diameter(self, x0: Tensor) -> Tensor:
        """Return the largest distance from ``x0`` to a point of the box, ``(B,)``."""

    def corners(self, x0: Tensor, radius: float) -> Tensor | None:
        """Return few displacements whose convex hull, with 0, holds ball ∩ box around one sample.

        They grow in proportion to the radius.

        Args:
            x0: (1, ...) the sample.
            radius: of the ball.

        Returns:
            (V, ...), or None where only too many would do.
        """
        del x0, radius
        return None

    def corner_count(self, x0: Tensor) -> Tensor | None:
        """Return at most how many corners each sample's ball has, int64 ``(B,)``."""
        del x0
        return None

    def extent(self, x0: Tensor) -> Tensor:
        """Return the divisor of a norm of the change that gives the distance, ``(B,)`` float64."""
        return torch.ones(len(x0), dtype=torch.float64, device=x0.device)

    def clamp(self, x: Tensor) -> Tensor:
        """Clip to the box."""
        return x.clamp(self.low, self.high)

    def room(self, x: Tensor, sign: Tensor) -> Tensor:
        """Return how far each coordinate may move the way of ``sign`` before it leaves the box."""
        return room(x, sign, self.low, self.high)

    def ball(self, x0: Tensor, radius: Radius) -> Ball:
        """Prepare ball ∩ box for the many steps of a loop; `attackers.balls` has cheaper ones."""
        return self.prepared.of(self, x0, radius)


def room(x: Tensor, sign: Tensor, low: float, high: float) -> Tensor:
    """Return how far each coordinate may move the way of ``sign`` (-1, 0, 1), at least 0."""
    up = sign.clamp_min(0)
    return (up * (high - x) + (1 - up) * (x - low)).clamp_min(0)
