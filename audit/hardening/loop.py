"""Training loop of a hardening: steps of Adam, epochs, and the best weights.

Everything that a step changes is in `HardeningState`, and its random numbers are keyed by its
number. A resumed run therefore ends with the same weights, bit for bit on a CPU.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from attackers.adam import adam_step
from audit.errors import ModelError
from audit.generators.epochs import keyed_stream, remaining_batches
from audit.hardening.hardening_state import HardeningState, save_state
from audit.hardening.plan import EpochRecord, HardeningPlan
from audit.hardening.schedules import SCHEDULES

CHECKPOINT_INTERVAL = 30.0
"""Seconds between two checkpoints within an epoch.

A killed run repeats at most this much work; a shorter interval spends more time on writing.
"""


def train_model(
    plan: HardeningPlan,
    state: HardeningState,
    checkpoint: Path,
    tick: Callable[[int], None],
    on_epoch: Callable[[EpochRecord], None],
) -> None:
    """Train until the last epoch or the time limit.

    Args:
        plan: model, samples and options.
        state: changed in place, also when training is interrupted.
        checkpoint: file that is written regularly and on an interrupt.
        tick: receives the number of steps done since the last call.
        on_epoch: receives the entry of every finished epoch.
    """
    limits = plan.hyperparameters
    plan.model.load(state.weights)
    tick(state.number)
    started = saved = time.monotonic()
    spent_before = state.spent
    try:
        while len(state.history) < limits.epochs and not (state.history and _late(plan, state)):
            epoch = len(state.history)
            if plan.adversary is not None:
                plan.adversary.refresh(epoch)
            for rows in remaining_batches(
                len(plan.x),
                limits.batch,
                seed=limits.seed,
                epoch=epoch,
                done=state.number - epoch * plan.steps_per_epoch,
            ):
                _step(plan, state, rows)
                state.spent = spent_before + time.monotonic() - started
                tick(1)
                if _late(plan, state):
                    break
                if time.monotonic() - saved > CHECKPOINT_INTERVAL:
                    save_state(plan, state, checkpoint)
                    saved = time.monotonic()
            on_epoch(_validate_epoch(plan, state, epoch))
            save_state(plan, state, checkpoint)
            saved = time.monotonic()
    except KeyboardInterrupt:
        save_state(plan, state, checkpoint)
        raise


def _late(plan: HardeningPlan, state: HardeningState) -> bool:
    limit = plan.hyperparameters.seconds
    return limit is not None and state.spent >= limit


def _step(plan: HardeningPlan, state: HardeningState, rows: Tensor) -> None:
    """Take one step of Adam on a batch; all changes are in the state and in the model."""
    model, limits = plan.model, plan.hyperparameters
    loss = plan.loss(
        model.logits,
        plan.x[rows].to(model.device),
        plan.labels[rows].to(model.device),
        keyed_stream(limits.seed, state.number),
    )
    if not bool(loss.isfinite()):
        raise ModelError(
            f"The loss is not finite after {state.number} steps: lower --rate, or freeze layers."
        )
    names = list(model.weights)
    grads = torch.autograd.grad(loss, [model.weights[name] for name in names], allow_unused=True)
    current = ([part[n] for n in names] for part in (state.weights, state.first, state.second))
    weights, first, second = current
    filled = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, grads, strict=True)]
    rate = limits.rate * SCHEDULES[limits.schedule]((state.number + 1) / plan.steps)
    weights, first, second = adam_step(
        weights, filled, first, second, number=state.number, rate=rate
    )
    with torch.no_grad():
        # A smaller decay in the first steps lets the mean forget the weights of the file.
        decay = min(limits.average, (1 + state.number) / (10 + state.number))
        average = [
            state.average[name].lerp(w, 1 - decay) for name, w in zip(names, weights, strict=True)
        ]
    found = {"weights": weights, "first": first, "second": second, "average": average}
    changed = {part: dict(zip(names, values, strict=True)) for part, values in found.items()}
    # A single call, so that an interrupt cannot leave the state with half of a step.
    vars(state).update(changed, number=state.number + 1, losses=state.losses + float(loss.detach()))
    model.load(state.weights)


def _validate_epoch(plan: HardeningPlan, state: HardeningState, epoch: int) -> EpochRecord:
    """Validate the averaged weights after an epoch, and keep them if no accepted one is better."""
    plan.model.load(state.average)
    found = plan.validate()
    plan.model.load(state.weights)
    steps = state.number - epoch * plan.steps_per_epoch
    loss = state.losses / max(1, steps)
    entry = {"epoch": epoch + 1, "steps": state.number, "loss": loss, **found}
    state.losses = 0.0
    best = max((e["attacked"] for e in state.history if e["accepted"]), default=-1.0)
    if found["accepted"] and found["attacked"] >= best:
        state.best, state.best_epoch = dict(state.average), epoch + 1
    state.history.append(entry)
    return entry
