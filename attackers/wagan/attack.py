"""The attack by a trained generator: one forward pass, no gradient."""

import torch
from torch import Tensor

from attackers.gradient import Logits
from attackers.losses import misclassified
from attackers.random_streams import SampleGenerator
from attackers.rows import DIVISOR_FLOOR, expand, over
from attackers.threat import Threat
from attackers.wagan.networks import Generator

IMAGES_PER_CALL = 32
"""Images at once, always: results must not depend on how many there are, and what so few need stays
in the processor's cache."""


@torch.no_grad()
def wagan(
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    generator: SampleGenerator,
    network: Generator,
    draws: int = 1,
) -> Tensor:
    """Images of the generator, scaled back along the segment to ``x0`` where they left the ball.

    Args:
        logits: asked between draws only.
        x0: (B, C, H, W).
        labels: (B,) int64.
        threat: metric and radius.
        generator: of the noise.
        network: the trained generator.
        draws: of noise; the first that is misclassified is taken.

    Returns:
        (B, C, H, W). Where the distance is infinite, as for an image that changed its mass under
        the image-Wasserstein threat, nothing is scaled: the result is outside.
    """
    best = x0.clone()
    left = torch.arange(len(x0), device=x0.device)
    for draw in range(draws):
        streams = generator.take(left).fold(f"wagan {draw}")
        radius = threat.delta[left] if isinstance(threat.delta, Tensor) else threat.delta
        x = generated(network, x0[left], radius, streams)
        if threat.metric.name not in network.holds:
            x = scaled_into_ball(Threat(threat.metric, radius), x0[left], x)
        best[left] = x
        if draw + 1 < draws:
            left = left[~misclassified(logits(x), labels[left])]
        if not len(left):
            break
    return best


@torch.no_grad()
def generated(
    network: Generator, x0: Tensor, radius: Tensor | float, generator: SampleGenerator
) -> Tensor:
    """What the generator makes of the images, as it is, ``(B, C, H, W)``."""
    noise = generator.normal(x0[:, :1])
    radii = expand(radius, x0).flatten()
    made = []
    for rows in torch.arange(len(x0), device=x0.device).split(IMAGES_PER_CALL):
        # The last batch is filled up with its last image.
        full = rows[torch.arange(IMAGES_PER_CALL, device=rows.device).clamp_max(len(rows) - 1)]
        made.append(network(x0[full], noise[full], radii[full])[: len(rows)])
    return torch.cat(made) if made else x0.clone()


def scaled_into_ball(threat: Threat, x0: Tensor, x: Tensor) -> Tensor:
    """Walk back towards ``x0`` as far as the radius demands; metrics are linear on segments."""
    moved = threat.metric.distance(x0, x)
    share = expand(threat.delta, moved.double()).flatten() / moved.clamp_min(DIVISOR_FLOOR)
    outside = moved.isfinite() & (share < 1)
    nearer = threat.metric.project(x0, x0 + over(share, x0) * (x - x0), threat.delta)
    return torch.where(over(outside, x), nearer.to(x), x)
