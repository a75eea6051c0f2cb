"""Generator that is trained along with the model it attacks, every few epochs."""

import torch
from torch import Tensor

from attackers.gradient import Logits
from attackers.wagan.networks import Spec
from attackers.wagan.objective import VARIANTS
from attackers.wagan.training import Networks, State, step
from audit.generators.epochs import BATCH, keyed_stream
from audit.hardening.adversaries import Generated

REFRESH_STEPS = 200
"""Number of training steps of the generator each time it is refreshed.

More steps follow the model more closely and delay every refreshed epoch in proportion.
"""


class CoTrained:
    """Adversary that is a generator, a `audit.hardening.plan.TrainedAdversary`.

    Args:
        spec: architecture of the generator.
        logits: the model, with its current weights whenever the generator is refreshed.
        x: (N, C, H, W) samples to train on, on the CPU.
        labels: (N,) int64.
        radius: largest radius that the generator is trained for.
        every: number of epochs between two refreshes.
        seed: seed of weights, batches and noise.
        device: device of the model.
    """

    def __init__(
        self,
        spec: Spec,
        logits: Logits,
        x: Tensor,
        labels: Tensor,
        *,
        radius: float,
        every: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.networks = Networks.of(spec, seed)
        self.networks.generator.to(device)
        self.networks.discriminator.to(device)
        self.state = State.of(self.networks)
        self.logits, self.x, self.labels = logits, x, labels
        self.radius, self.every, self.seed, self.device = radius, every, seed, device

    def __call__(
        self, logits: Logits, x0: Tensor, labels: Tensor, random: torch.Generator
    ) -> Tensor:
        """See `audit.hardening.adversaries.Adversary`."""
        return Generated(self.networks.generator, self.radius)(logits, x0, labels, random)

    def refresh(self, epoch: int) -> None:
        """Train until the steps that are due before an epoch are done; idempotent."""
        while self.state.number < REFRESH_STEPS * (epoch // self.every + 1):
            # Batches are keyed by the step, so an interrupted refresh is resumed unchanged.
            random = keyed_stream(self.seed, self.state.number)
            rows = torch.randint(len(self.x), (min(BATCH, len(self.x)),), generator=random)
            self.state, _ = step(
                self.networks,
                self.state,
                self.logits,
                self.x[rows].to(self.device),
                self.labels[rows].to(self.device),
                VARIANTS["wagan"],
                radius=self.radius,
                seed=self.seed,
            )
        self._load_weights()

    def tensors(self) -> dict[str, Tensor]:
        """Return the training state by name."""
        return self.state.tensors()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Continue from a training state."""
        self.state = self.state.restored(tensors).to(self.device)
        self._load_weights()

    def _load_weights(self) -> None:
        self.networks.generator.load_state_dict(self.state.attacker)
