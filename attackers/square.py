"""Square Attack: random search over windows of the input (Andriushchenko et al. 2020).

It needs scores only. A trial changes one window and is kept unless the loss fell; windows shrink as
the search goes on. The paper's windows are squares of an image; a signal has intervals instead.
"""

from bisect import bisect_left
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from attackers.geometry import INWARD, L2, Linf, Metric
from attackers.gradient import Logits
from attackers.losses import Loss, margin, misclassified
from attackers.random_streams import SampleGenerator
from attackers.rows import expand, over, row_sum
from attackers.threat import Threat

WINDOW_SCHEDULE = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Trials, of 10000, after which the share of the input in a window is halved (section 5)."""

TRIALS_PER_DRAW = 100
"""Trials whose numbers are drawn at once: a random stream costs more than the numbers from it."""


@torch.no_grad()
def square(
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    generator: SampleGenerator,
    queries: int = 5000,
    p_init: float = 0.8,
    loss: Loss = margin,
    start: Tensor | None = None,
) -> Tensor:
    """Maximise the loss over the ball of radius ``threat.delta`` and the box, by scores alone.

    Args:
        logits: classifier; need not be differentiable.
        x0: (B, ...) in the box. Windows are rectangles of the last two axes of (B, C, H, W), and
            intervals of the last axis of (B, C, L) and (B, D); axes after the third count as one.
        labels: (B,) int64.
        threat: pointwise threat in one of `SQUARE_METRICS`; ``delta`` is the radius, or one per
            sample.
        generator: source of the windows and signs.
        queries: number of model evaluations per sample, at most.
        p_init: share of the input in the first windows.
        loss: what to increase, per sample.
        start: (B, ...) first trial, projected onto the ball; the paper's pattern by default.

    Returns:
        (B, ...) inside ball and box: the first misclassified trial of each sample, or the one of
        largest loss where none was.

    Raises:
        ValueError: if the metric is not one of `SQUARE_METRICS`.

    Source: Andriushchenko, Croce, Flammarion, Hein 2020, algorithm 1.
    """
    metric = threat.metric
    if type(metric) not in PROPOSALS:
        known = " and ".join(sorted(SQUARE_METRICS))
        raise ValueError(f"square is defined for {known}, not for {metric.name}: drop this attack")
    pattern, propose = PROPOSALS[type(metric)]
    centre, y = _as_images(x0), labels
    radius = expand(threat.delta, centre.double()).flatten()
    if start is None:
        trial = pattern(metric, centre, radius, generator)
    else:
        trial = metric.project(centre, _as_images(start), radius)
    best, x, top = trial, trial, x0.new_full((len(x0),), -torch.inf)
    rows = torch.arange(len(x0), device=x0.device)
    uniform = centre.new_empty((len(x0), 0, 0))

    for step in range(queries):
        scores = logits(trial.reshape(-1, *x0.shape[1:]))
        value, fooled = loss(scores, y), misclassified(scores, y)
        # Unlike the authors', a trial that ties is kept: on a plateau the search would stand still.
        better = fooled | (value >= top)
        x, top = torch.where(over(better, x), trial, x), torch.where(better, value, top)
        if bool(fooled.any()):
            best[rows[fooled]] = x[fooled]
            keep = ~fooled
            rows, centre, x, y, radius = rows[keep], centre[keep], x[keep], y[keep], radius[keep]
            top, uniform = top[keep], uniform[keep]
        if not len(rows):
            break
        if step % TRIALS_PER_DRAW == 0:
            numbers = centre.new_empty((len(rows), TRIALS_PER_DRAW, 6 + centre.shape[1]))
            uniform = generator.take(rows).fold(f"square {step}").uniform(numbers)
        share = p_init / 2 ** bisect_left(WINDOW_SCHEDULE, 10000 * (step + 1) / queries)
        trial = propose(metric, centre, x, radius, share, uniform[:, step % TRIALS_PER_DRAW])
    best[rows] = x
    return best.reshape(x0.shape)


def _as_images(x: Tensor) -> Tensor:
    """View ``(B, D)``, ``(B, C, L)`` or ``(B, C, H, ...)`` as ``(B, C, H, W)``."""
    if x.dim() == 2:
        return x[:, None, None]
    return x[:, :, None] if x.dim() == 3 else x.flatten(3)


def _stripes(metric: Metric, centre: Tensor, radius: Tensor, generator: SampleGenerator) -> Tensor:
    """Vertical stripes of ±radius, one sign per channel and column (section 4.1)."""
    signs = _signs(generator.fold("square stripes").uniform(centre[:, :, :1]))
    return metric.project(centre, centre + expand(radius, centre) * signs, radius)


def _recolour(
    metric: Metric, centre: Tensor, x: Tensor, radius: Tensor, share: float, uniform: Tensor
) -> Tensor:
    """Set a window to ±radius, one sign per channel (algorithm 2).

    Args:
        metric: for its ball and box.
        centre: (B, C, H, W) samples.
        x: (B, C, H, W) best points so far.
        radius: (B,) float64.
        share: of the input that the window covers.
        uniform: (B, 6 + C) random numbers in [0, 1), not all of which every search needs.

    Returns:
        (B, C, H, W) in the ball and the box.
    """
    window = _window(_sides(share, x, smallest=1), uniform[:, 0], uniform[:, 1], x)
    middle, old = _read(centre, window), _read(x, window)
    shift = expand(radius, middle) * _signs(uniform[:, 6:, None])
    # The ball of linf is a product of intervals, so projecting the window projects the whole.
    new, mirrored = (metric.project(middle, middle + s, radius) for s in (shift, -shift))
    # A trial that changes nothing would waste a query: the authors draw again, we flip the signs.
    idle = (new == old).flatten(1).all(1)
    return _write(x, window, torch.where(over(idle, new), mirrored, new))


def _tiles(metric: Metric, centre: Tensor, radius: Tensor, generator: SampleGenerator) -> Tensor:
    """A grid of at least five by five bumps with random signs (section 4.2)."""
    batch, channels, height, width = centre.shape
    tall, wide = max(height // 5, 1), max(width // 5, 1)
    down, across = height // tall, width // wide
    uniform = generator.fold("square tiles").uniform(
        centre.new_empty((batch, 2, channels, down, 1, across, 1))
    )
    stacked, beside = _bumps(tall, wide, centre)
    bump = torch.where(uniform[:, 1] < 0.5, stacked[:, None], beside[:, None])
    grid = (_signs(uniform[:, 0]) * bump).reshape(batch, channels, down * tall, across * wide)
    top, left = (height - down * tall) // 2, (width - across * wide) // 2
    shift = torch.zeros_like(centre)
    shift[:, :, top : top + down * tall, left : left + across * wide] = grid
    shift = metric.direction(centre, shift) * expand(radius, centre)
    return metric.project(centre, metric.clamp(centre + shift), radius)


def _move_mass(
    metric: Metric, centre: Tensor, x: Tensor, radius: Tensor, share: float, uniform: Tensor
) -> Tensor:
    """Empty two windows; spend their length, and what the radius leaves, in one (algorithm 3).

    Every second trial moves a part only, where the paper always moves all: measured stronger, by
    2 points on a small network and far more where features are few.

    Arguments and result are those of `_recolour`.
    """
    sides = _sides(share, x, smallest=3)
    into = _window(sides, uniform[:, 0], uniform[:, 1], x)
    source = _window(sides, uniform[:, 2], uniform[:, 3], x)
    part = (2 * uniform[:, 5, None, None]).clamp_max(1)
    shift = x - centre
    drained = _write(shift, source, (1 - part).sqrt() * _read(shift, source))
    kept = _write(drained, into, 0.0)
    spent, untouched = _squares(shift.flatten(2)), _squares(kept.flatten(2))
    whole = expand(radius * INWARD, spent).square()
    left = (whole - spent.sum(1, keepdim=True)).clamp_min(0) / x.shape[1]
    length = (left + (spent - untouched).clamp_min(0)).sqrt()
    stacked, beside = _bumps(*sides, x)
    bump = torch.where(uniform[:, 4, None, None] < 0.5, stacked.flatten(), beside.flatten())
    bump = _unit(_unit(_read(shift, into)) + part * _signs(uniform[:, 6:, None]) * bump)
    new = metric.clamp(centre + _write(kept, into, length * bump))
    # The lengths add up to the radius: only where rounding exceeds it is there work left.
    outside = (metric.distance(centre, new) > radius).nonzero()[:, 0]
    if len(outside):
        new[outside] = metric.project(centre[outside], new[outside], radius[outside])
    return new


def _signs(uniform: Tensor) -> Tensor:
    return torch.where(uniform < 0.5, -1.0, 1.0).to(uniform)


def _sides(share: float, x: Tensor, *, smallest: int) -> tuple[int, int]:
    """Height and width of the squarest window with this share of an image ``(B, C, H, W)``.

    For l2 the sides are odd and at least three, as in the paper, so that a bump has a centre.
    """
    height, width = x.shape[2:]
    area = share * height * width
    side = max(round(area**0.5), smallest)
    side += (1 - side % 2) * (smallest > 1)
    return min(height, max(side, round(area / width))), min(width, max(side, round(area / height)))


def _window(sides: tuple[int, int], down: Tensor, across: Tensor, x: Tensor) -> Tensor:
    """Flat positions of one window per row, ``(B, C, h·w)``.

    Args:
        sides: its height and width.
        down: (B,) in [0, 1), its place along the height.
        across: (B,) in [0, 1), its place along the width.
        x: (B, C, H, W) images.
    """
    (tall, wide), (height, width) = sides, x.shape[2:]
    top, left = (down * (height - tall + 1)).long(), (across * (width - wide + 1)).long()
    rows = torch.arange(tall, device=x.device)[:, None]
    inside = (rows * width + torch.arange(wide, device=x.device)).flatten()
    window = (top * width + left)[:, None] + inside
    return window[:, None].expand(-1, x.shape[1], -1)


def _read(x: Tensor, window: Tensor) -> Tensor:
    return x.flatten(2).gather(2, window)


def _write(x: Tensor, window: Tensor, values: Tensor | float) -> Tensor:
    return x.flatten(2).scatter(2, window, values).reshape(x.shape)


def _squares(x: Tensor) -> Tensor:
    """Sum of squares of each channel: ``(B, C, N) -> (B, C, 1)``."""
    return row_sum(x.flatten(0, 1).square()).reshape(*x.shape[:2], 1)


def _unit(x: Tensor) -> Tensor:
    return x / (_squares(x).sqrt() + 1e-12)


def _bumps(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The bump ``(H, W)`` with its halves one above the other, and side by side."""
    return _bump(height, width).to(like), _bump(width, height).T.to(like)


@cache
def _bump(height: int, width: int) -> Tensor:
    """Two pyramids of opposite signs, one above the other, of unit norm, ``(H, W)`` (section 4.2).

    One of them is missing where the height is one.
    """
    upper, lower = _pyramid(height // 2, width), _pyramid(height - height // 2, width)
    both = torch.cat([upper, -lower])
    return both / both.square().sum().sqrt()


def _pyramid(height: int, width: int) -> Tensor:
    """Sum of 1/(k + 1)² over the rings k from a point's own outwards, at unit norm, ``(H, W)``."""
    ring = torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64)
    level = ring.square().reciprocal().flip(0).cumsum(0).flip(0)
    down = (torch.arange(height) - height // 2).abs()[:, None]
    across = (torch.arange(width) - width // 2).abs()
    level_at = torch.take(level, torch.maximum(down, across))
    return level_at / level_at.square().sum().sqrt()


Pattern = Callable[[Metric, Tensor, Tensor, SampleGenerator], Tensor]
Propose = Callable[[Metric, Tensor, Tensor, Tensor, float, Tensor], Tensor]

PROPOSALS: dict[type[Metric], tuple[Pattern, Propose]] = {
    Linf: (_stripes, _recolour),
    L2: (_tiles, _move_mass),
}
"""The first trial of the search, and the later ones, by metric."""

SQUARE_METRICS = frozenset(kind.name for kind in PROPOSALS)
"""Names of the metrics in which the attack is defined."""
