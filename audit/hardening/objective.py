"""Training loss of every hardening method, with the adversary that it needs."""

from dataclasses import dataclass

from torch import Tensor

from attackers.threat import Threat
from attackers.wagan.networks import SMALLEST_IMAGE, Spec
from audit.errors import UsageError
from audit.generators.generator_files import Trained
from audit.hardening.adversaries import (
    Adversary,
    Generated,
    Mixed,
    Pgd,
    TrainingLoss,
    Wdro,
    adversarial_loss,
    divergence,
    trades_loss,
)
from audit.hardening.co_training import CoTrained
from audit.hardening.config import threats_of
from audit.hardening.plan import TrainedAdversary
from audit.hardening.trainable import Trainable
from audit.options import HardenConfig


@dataclass(frozen=True)
class HardeningObjective:
    """Minimised loss, and its adversary if that is trained along with the model."""

    loss: TrainingLoss
    trained_adversary: TrainedAdversary | None = None

    @classmethod
    def of(
        cls,
        config: HardenConfig,
        model: Trainable,
        x: Tensor,
        labels: Tensor,
        generator: Trained | None,
    ) -> "HardeningObjective":
        """Return the objective for the options.

        Args:
            config: options.
            model: model that is trained.
            x: (N, ...) training samples.
            labels: (N,) int64.
            generator: fixed generator for ``wagan``, or None to train one along with the model.
        """
        (metric, radius), *_ = threats_of(config)
        if config.method == "trades":
            attack = Pgd(metric, radius, config.steps, divergence)
            return cls(lambda *batch: trades_loss(batch[0], attack, *batch[1:], beta=config.beta))
        if config.method == "wagan" and generator is None:
            trained = CoTrained(
                Spec("flow", *_image_shape(x), config.low, config.high),
                model.logits,
                x,
                labels,
                radius=radius,
                every=config.refresh,
                seed=config.seed,
                device=model.device,
            )
            return cls(_against(trained, config.clean), trained)
        return cls(_against(_fixed_adversary(config, generator), config.clean))


def _fixed_adversary(config: HardenConfig, generator: Trained | None) -> Adversary:
    """Return an adversary that is not trained itself."""
    (metric, radius), *_ = threats_of(config)
    if generator is not None and config.method == "wagan":
        return Generated(generator.network, radius)
    if config.method == "wdro":
        return Wdro(Threat(metric, radius, config.order), config.steps)
    if config.method == "mixed":
        return Mixed(tuple(Pgd(m, r, config.steps) for m, r in threats_of(config)))
    return Pgd(metric, radius, config.steps)


def _against(adversary: Adversary, clean: float) -> TrainingLoss:
    return lambda logits, x0, labels, random: adversarial_loss(
        logits, adversary, x0, labels, random, clean=clean
    )


def _image_shape(x: Tensor) -> tuple[int, int, int]:
    shape = tuple(x.shape[1:])
    if len(shape) != 3 or min(shape[1:]) < SMALLEST_IMAGE:
        raise UsageError(
            f"A generator needs images of {SMALLEST_IMAGE}×{SMALLEST_IMAGE} pixels or more, found "
            f"samples of shape {shape}."
        )
    channels, height, width = shape
    return channels, height, width
