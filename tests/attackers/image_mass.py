"""Small images, and the linear programs that bound what moving their mass can achieve."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog
from scipy.spatial.distance import cdist
from torch import Tensor

from attackers.wasserstein import Wasserstein

Floats = NDArray[np.float64]


def images(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Return images in which about a third of the pixels is empty and a third is full."""
    random = torch.Generator().manual_seed(seed)
    x, face = torch.rand(shape, generator=random), torch.rand(shape, generator=random)
    return torch.where(face < 0.3, 0.0, torch.where(face > 0.7, 1.0, x))


def noise(like: Tensor, seed: int = 0) -> Tensor:
    """Return normal random numbers with the shape and dtype of ``like``."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)).to(like)


def shuffled(x: Tensor, seed: int = 0) -> Tensor:
    """Return the pixels of every channel in another order: equal mass at other places."""
    random = torch.Generator().manual_seed(seed)
    flat = x.flatten(2)
    order = torch.rand(flat.shape, generator=random).argsort(2)
    return flat.gather(2, order).reshape(x.shape)


def pixels(height: int, width: int) -> NDArray[np.int64]:
    """Return row and column of every pixel, ``(H·W, 2)``."""
    return np.stack(np.divmod(np.arange(height * width), width), 1)


def inside(metric: Wasserstein, x0: Tensor, x: Tensor, radius: Tensor | float) -> None:
    """Assert that x is in the ball (by an exact plan) and in the box, with unchanged mass."""
    assert x.shape == x0.shape
    assert x.dtype == x0.dtype
    assert bool((x >= metric.low).all())
    assert bool((x <= metric.high).all())
    change = (x.double() - x0.double()).flatten(2).sum(2).abs()
    assert bool((change <= 1e-6 * metric.mass(x0)[:, None]).all())
    distance = metric.distance(x0, x)
    assert bool((distance <= torch.as_tensor(radius, dtype=torch.float64)).all()), distance


def cheapest(change: Floats) -> float:
    """Return min Σ C_ij pi_ij over all plans from the losses of a channel to its gains."""
    flat, where = change.ravel(), pixels(*change.shape)
    losing, gaining = np.flatnonzero(flat < 0), np.flatnonzero(flat > 0)
    costs = cdist(where[losing], where[gaining])
    leaves = np.kron(np.eye(len(losing)), np.ones(len(gaining)))
    arrives = np.kron(np.ones(len(losing)), np.eye(len(gaining)))
    # The last equation follows from the others.
    return float(
        linprog(
            costs.ravel(),
            A_eq=np.vstack([leaves, arrives])[:-1],
            b_eq=np.r_[-flat[losing], flat[gaining]][:-1],
            method="highs",
        ).fun
    )


def _plans(
    x0: Floats, grad: Floats, room: Floats
) -> tuple[Floats, Floats, sparse.csr_array, Floats]:
    """Return gains and costs of all moves in a channel, and their supply and room constraints."""
    channels, height, width = x0.shape
    where = pixels(height, width)
    distance = cdist(where, where)
    i, j = np.nonzero(distance)
    moves, size = np.arange(len(i)), (height * width, len(i))
    leaves = sparse.coo_array((np.ones(len(i)), (i, moves)), shape=size)
    arrives = sparse.coo_array((np.ones(len(i)), (j, moves)), shape=size)
    every = sparse.block_diag([leaves] * channels), sparse.block_diag([arrives - leaves] * channels)
    flat = grad.reshape(channels, -1)
    return (
        (flat[:, j] - flat[:, i]).ravel(),
        np.tile(distance[i, j], channels),
        sparse.csr_array(sparse.vstack(every)),
        np.r_[x0.ravel(), room.ravel()],
    )


def best_gain(metric: Wasserstein, x0: Tensor, grad: Tensor, radius: float) -> float:
    """Return max <grad, z - x0> over ball and box for one image, with moves between all pixels."""
    held, room = (x0.double() - metric.low).numpy(), (metric.high - x0.double()).numpy()
    gains, costs, constraints, limits = _plans(held, grad.double().numpy(), room)
    rows = sparse.vstack([constraints, costs[None]])
    limits = np.r_[limits, radius * held.sum()]
    return -float(linprog(-gains, A_ub=rows, b_ub=limits, method="highs").fun)


def least_radius(metric: Wasserstein, x0: Tensor, grad: Tensor, gain: float) -> float:
    """Return min d(x0, z) over z in the box with <grad, z - x0> >= gain, for one image."""
    held, room = (x0.double() - metric.low).numpy(), (metric.high - x0.double()).numpy()
    gains, costs, constraints, limits = _plans(held, grad.double().numpy(), room)
    rows = sparse.vstack([constraints, -gains[None]])
    found = linprog(costs, A_ub=rows, b_ub=np.r_[limits, -gain], method="highs")
    assert found.success, "no plan reaches this gain"
    return float(found.fun) / float(held.sum())
