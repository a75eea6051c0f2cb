"""Several runs of an attack on each sample, until one succeeds.

A few runs share a batch: a model call has a least useful size, and below it further runs are free.
The first successful run in order counts, so the outcome does not depend on how many ran together.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from attackers.gradient import Logits
from attackers.losses import misclassified
from attackers.random_streams import SampleGenerator
from attackers.rows import over
from attackers.threat import Threat

RUNS_PER_BATCH = 4
"""Runs that share one batch. More use a model call better and waste the runs after a success."""

LEAST_BATCH = 16
"""Smallest number of samples whose runs share a batch; larger where the batch would shrink. A model
call on fewer costs nearly as much."""


def restarted(
    attack: Callable[..., Tensor],
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    generator: SampleGenerator,
    runs: int,
    targets: Tensor | None = None,
) -> Tensor:
    """Run an attack until it succeeds, at most ``runs`` times, each from its own random start.

    Args:
        attack: pointwise attack; it also takes ``targets`` ``(B,)`` where those are given.
        logits: classifier.
        x0: (B, ...) in the box.
        labels: (B,) int64.
        threat: pointwise threat; ``delta`` is the radius, or one per sample.
        generator: one stream per sample; every run folds its number into it.
        runs: largest number of runs.
        targets: (B, runs) int64, the class each run aims at, or None.

    Returns:
        (B, ...) the first success, or the outcome of the last run where there was none.
    """
    result = x0.clone()
    rows = torch.arange(len(x0), device=x0.device)
    size = max(LEAST_BATCH, -(-len(x0) // RUNS_PER_BATCH))
    for done in range(0, runs, RUNS_PER_BATCH):
        copies = min(RUNS_PER_BATCH, runs - done)
        left = []
        for part in rows.split(size):
            y = _tiled(labels[part], copies)
            aims = {} if targets is None else {"targets": targets[part, done : done + copies]}
            x = attack(
                logits,
                _tiled(x0[part], copies),
                y,
                _tiled_threat(threat, part, copies),
                generator=generator.take(part).folds([f"run {done + i}" for i in range(copies)]),
                **{name: chosen.T.ravel() for name, chosen in aims.items()},
            )
            with torch.no_grad():
                fooled = misclassified(logits(x), y).reshape(copies, -1)
            x = x.reshape(copies, len(part), *x.shape[1:])
            chosen = x[-1]
            for run in range(copies - 1, -1, -1):
                chosen = torch.where(over(fooled[run], chosen), x[run], chosen)
            result[part] = chosen
            left.append(part[~fooled.any(0)])
        rows = torch.cat(left)
        if not len(rows):
            break
    return result


def rivals(scores: Tensor, labels: Tensor, count: int) -> Tensor:
    """Return the ``count`` highest classes but the label, ``(B, min(count, K - 1))`` int64."""
    others = scores.scatter(1, labels[:, None], -torch.inf)
    return others.topk(min(count, scores.shape[1] - 1), dim=1).indices


def _tiled(x: Tensor, copies: int) -> Tensor:
    return x.repeat(copies, *[1] * (x.dim() - 1))


def _tiled_threat(threat: Threat, rows: Tensor, copies: int) -> Threat:
    if not isinstance(threat.delta, Tensor):
        return threat
    return replace(threat, delta=threat.delta[rows].repeat(copies))
