"""Training loop of a generator against a served model.

`attackers.wagan.training` defines a step; this module repeats it over epochs, validates after each
one and writes checkpoints. A resumed run ends with the same generator, bit for bit on a CPU.
"""

from pathlib import Path

from attackers.wagan.training import Networks, step
from audit.generators.config import objective_of
from audit.generators.epochs import remaining_batches
from audit.generators.plan import TrainingPlan
from audit.generators.training_state import TrainingState, write_checkpoint
from audit.generators.validation import held_out_accuracy
from audit.runtime.progress import Progress, silent

LEARNING_RATE, LATE_LEARNING_RATE = 1e-3, 1e-4
"""Learning rates of Adam, before and after `LATE_EPOCHS`; the first is Adam's default."""

LATE_EPOCHS = 5 / 6
"""Share of the epochs after which the learning rate falls: 50 of 60, as published."""


def train_generator(
    plan: TrainingPlan,
    state: TrainingState,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> None:
    """Train from the given state to the last epoch.

    Args:
        plan: model, samples and options.
        state: changed in place, also when training is interrupted.
        checkpoint: file that is written after every epoch and on an interrupt; None for no file.
        progress: shows the number of images seen.
    """
    config, device = plan.config, plan.classifier.device
    networks = Networks.of(plan.spec, config.seed)
    networks.generator.to(device)
    networks.discriminator.to(device)
    state.networks = state.networks.to(device)
    total = config.epochs * plan.steps_per_epoch
    try:
        with progress(f"training {config.variant}", total * config.batch) as tick:
            tick(state.networks.number * config.batch)
            while len(state.history) < config.epochs:
                epoch = len(state.history)
                for rows in remaining_batches(
                    len(plan.x),
                    config.batch,
                    seed=config.seed,
                    epoch=epoch,
                    done=state.networks.number - epoch * plan.steps_per_epoch,
                ):
                    state.networks, terms = step(
                        networks,
                        state.networks,
                        plan.classifier.differentiable,
                        plan.x[rows].to(device),
                        plan.labels[rows].to(device),
                        objective_of(config),
                        radius=config.radius,
                        seed=config.seed,
                        rate=_learning_rate(epoch, config.epochs),
                        decay=config.average or 0.0,
                    )
                    for name, value in terms.items():
                        state.sums[name] = state.sums.get(name, 0.0) + float(value)
                    tick(config.batch)
                _end_epoch(plan, state, networks, epoch)
                if checkpoint is not None:
                    write_checkpoint(plan, state, checkpoint)
    except KeyboardInterrupt:
        if checkpoint is not None:
            write_checkpoint(plan, state, checkpoint)
        raise


def _learning_rate(epoch: int, epochs: int) -> float:
    return LEARNING_RATE if epoch < LATE_EPOCHS * epochs else LATE_LEARNING_RATE


def _end_epoch(plan: TrainingPlan, state: TrainingState, networks: Networks, epoch: int) -> None:
    """Validate on the held-out set, and keep the weights if no earlier epoch did better."""
    weights = state.networks.attacker
    validated = held_out_accuracy(plan, networks.generator, weights)
    means = {name: total / plan.steps_per_epoch for name, total in state.sums.items()}
    state.history.append({"epoch": epoch + 1, **validated, "terms": means})
    state.sums = {}
    # A head whose images may leave the ball is compared by them as generated: the judge discards
    # those outside, so judged accuracy does not measure its progress.
    key = "judged" if networks.generator.holds else "generated"
    if validated[key] <= min(entry[key] for entry in state.history):
        state.best = {name: value.detach().clone() for name, value in weights.items()}
