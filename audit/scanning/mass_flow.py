"""Drawing of the flow of mass between an image and its adversarial example, as arrows."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from attackers.earth_mover import Transport

SIDE = 224
"""Approximate length of the drawing's longer side in pixels; image pixels become squares."""

ARROWS = 400
"""Largest number of flows that are drawn."""

FAINTEST = 0.02
"""Share of the largest flow below which flows are left out, since they would hide the others."""

INKS = {1: ((214, 40, 40),), 3: ((214, 40, 40), (24, 138, 60), (32, 88, 214))}
"""Colours of the arrows, one per channel, by the number of channels."""

PALE = 0.35
"""Contrast of the original below the arrows."""


def draw(image: Tensor, plans: Sequence[Transport]) -> Image.Image:
    """Draw the flow of mass.

    Args:
        image: (C, H, W) the original, values in [0, 1], C in {1, 3}.
        plans: the optimal transport plan of each channel.

    Returns:
        The original, enlarged and pale, with an arrow for each of the largest flows; its width
        shows the amount of mass, and its colour the channel.
    """
    height, width = image.shape[-2:]
    scale = max(1, round(SIDE / max(height, width)))
    pale = 1 - PALE * (1 - image.mean(0).clamp(0, 1).double().numpy())
    grey = np.kron((255 * pale).round().astype(np.uint8), np.ones((scale, scale), dtype=np.uint8))
    picture = Image.fromarray(grey).convert("RGB")
    canvas = ImageDraw.Draw(picture)
    flows = sorted(
        (
            (float(amount), channel, start, end)
            for channel, plan in enumerate(plans)
            for start, end, amount in zip(plan.source, plan.target, plan.amount, strict=True)
        ),
        key=lambda flow: -flow[0],
    )[:ARROWS]
    # The largest flows are drawn last, on top of the others.
    for amount, channel, start, end in reversed(flows):
        share = amount / flows[0][0]
        if share >= FAINTEST:
            ink = INKS[image.shape[0]][channel]
            _arrow(canvas, scale * (start + 0.5), scale * (end + 0.5), share, scale, ink)
    return picture


def sentence(mass: float, plans: Sequence[Transport]) -> str:
    """Return a sentence on how much mass moves, and how far on average."""
    moved = sum(float(plan.amount.sum()) for plan in plans)
    if not moved or not mass:
        return "No mass moves."
    length = sum(plan.cost for plan in plans) / moved
    return f"{100 * moved / mass:.3g} % of the mass moves, {length:.2f} pixels on average."


def _arrow(
    canvas: ImageDraw.ImageDraw,
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    share: float,
    scale: int,
    ink: tuple[int, int, int],
) -> None:
    (y0, x0), (y1, x1) = start, end
    width = max(1, round(scale * 0.45 * share))
    canvas.line([(x0, y0), (x1, y1)], fill=ink, width=width)
    angle, head = math.atan2(y1 - y0, x1 - x0), max(2.0, scale * (0.25 + 0.3 * share))
    wings = [
        (x1 - head * math.cos(angle + turn), y1 - head * math.sin(angle + turn))
        for turn in (0.5, -0.5)
    ]
    canvas.polygon([(x1, y1), *wings], fill=ink)
