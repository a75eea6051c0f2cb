"""What generator and discriminator play for: the terms of WAGAN's loss, and its named variants.

    min_G max_D  w·L_adv + alpha·L_gan + beta·L_norm + gamma·L_was + mu·L_mass,  z = G(x, n)

    L_adv  = E max(0, z_y - max_{k != y} z_k + kappa)   or, as published, -CE, capped where asked
    L_gan  = E (D(z) - 1)² for G, E (D(x) - 1)² + E D(z)² for D: least squares, D through a sigmoid
    L_norm = E max(0, ||z - x||_2 - c2);  for beta < 0  E max(0, c2 - ||z - x||_2), of weight |beta|
    L_was  = E max(0, d_W(x, z) - c)
    L_mass = E |mass(z) / mass(x) - 1|

The publication writes argmin_D max_G of the sum of all but L_mass with L_adv = -CE. Read literally
that has the generator help the classifier; read as its text describes, it is the problem above. Its
-CE has no lower end, and a negative beta rewards ||G|| without one: both have one here. d_W is
blind to brightness, which L_mass therefore prices. docs/wagan.md says what each change is worth.

Source: Goel, Shah, Suresh (WAGAN); Xiao et al. 2018 (AdvGAN); Mao et al. 2017 (least squares).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import relu

from attackers.losses import cross_entropy, margin
from attackers.rows import row_sum
from attackers.sinkhorn import sinkhorn_distance

NORM_FLOOR = 1e-12


@dataclass(frozen=True)
class Objective:
    """Weights and thresholds of all terms; one of weight 0 is not computed.

    Attributes:
        adversarial: w.
        gan: alpha.
        norm: beta; negative to reward a large norm up to ``norm_limit``.
        transport: gamma.
        mass: mu.
        loss: ``margin``, or ``ce`` as published.
        kappa: by how much the margin shall be negative.
        cap: largest cross-entropy that is rewarded.
        norm_limit: c2, in the unit of the images.
        transport_limit: c, in the unit of the ground cost; None for the radius that is trained for.
        ground, entropy, steps, value: of `attackers.sinkhorn.sinkhorn_distance`.
    """

    adversarial: float = 100.0
    gan: float = 10.0
    norm: float = 0.0
    transport: float = 300.0
    mass: float = 1000.0
    loss: str = "margin"
    kappa: float = 2.0
    cap: float = float("inf")
    norm_limit: float = 3.0
    transport_limit: float | None = None
    ground: str = "manhattan"
    entropy: float = 0.3
    steps: int = 15
    value: str = "bound"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.loss not in ADVERSARIAL:
            raise ValueError(f"unknown loss {self.loss!r}: choose from {', '.join(ADVERSARIAL)}")
        positive = (self.adversarial, self.gan, self.transport, self.mass, self.norm_limit)
        if min(positive) < 0 or self.kappa < 0 or self.cap <= 0:
            raise ValueError(f"only the weight of the norm may be negative: {self}")


def _margin(objective: Objective, logits: Tensor, labels: Tensor) -> Tensor:
    return relu(objective.kappa - margin(logits, labels))


def _ce(objective: Objective, logits: Tensor, labels: Tensor) -> Tensor:
    return -cross_entropy(logits, labels).clamp_max(objective.cap)


ADVERSARIAL: dict[str, Callable[[Objective, Tensor, Tensor], Tensor]] = {
    "margin": _margin,
    "ce": _ce,
}
"""L_adv per sample by name, ``(B,)``."""

VARIANTS: dict[str, Objective] = {
    "advgan": Objective(norm=1.0, norm_limit=0.1, transport=0.0, mass=0.0),
    "wagan": Objective(),
    "wagan-beta-minus": Objective(norm=-1.0),
    "wagan-beta-plus": Objective(norm=1.0, norm_limit=0.1),
}
"""The variants of the publication, with its alpha and beta."""


def as_published(variant: str) -> Objective:
    """The variant with the published constants, literally: -CE without a cap, gamma 1, no mass.

    What the publication leaves open is taken from the code that it follows: c2 of AdvGAN's, an
    entropy of 0.3 pixels² and 15 steps.
    """
    chosen = VARIANTS[variant]
    return replace(
        chosen,
        adversarial=1.0,
        transport=min(chosen.transport, 1.0),
        mass=0.0,
        loss="ce",
        norm_limit=0.1 if chosen.norm >= 0 else 3.0,
        transport_limit=0.3,
        ground="squared_euclidean",
        value="regularised",
    )


Terms = Mapping[str, Tensor]
"""Values of the terms by name, each a mean over the batch, unweighted."""


def generator_terms(
    objective: Objective,
    x: Tensor,
    z: Tensor,
    labels: Tensor,
    radius: Tensor,
    logits: Callable[[Tensor], Tensor],
    discriminator: Callable[[Tensor], Tensor],
    low: float = 0.0,
) -> Terms:
    """What the generator minimises, term by term.

    Args:
        objective: weights and thresholds.
        x: (B, C, H, W) originals.
        z: (B, C, H, W) generated, with a graph.
        labels: (B,) int64.
        radius: (B,) the limit of the transport where the objective has none of its own.
        logits: the classifier under attack.
        discriminator: of images, logits of patches.
        low: pixel of no mass.
    """
    terms = {"adversarial": ADVERSARIAL[objective.loss](objective, logits(z), labels).mean()}
    if objective.gan:
        terms["gan"] = (discriminator(z).sigmoid() - 1).square().mean()
    if objective.norm:
        length = (row_sum((z - x).square()) + NORM_FLOOR).sqrt()
        excess = length - objective.norm_limit
        terms["norm"] = relu(excess if objective.norm > 0 else -excess).mean()
    held, left = x - low, z - low
    if objective.transport:
        cost = sinkhorn_distance(
            held,
            left,
            ground=objective.ground,
            entropy=objective.entropy,
            steps=objective.steps,
            value=objective.value,
        )
        limit = objective.transport_limit
        terms["transport"] = relu(cost - (radius.to(cost) if limit is None else limit)).mean()
    if objective.mass:
        terms["mass"] = (row_sum(left) / row_sum(held).clamp_min(NORM_FLOOR) - 1).abs().mean()
    return terms


def generator_loss(objective: Objective, terms: Terms) -> Tensor:
    """The weighted sum of the generator's terms."""
    weights = {
        "adversarial": objective.adversarial,
        "gan": objective.gan,
        "norm": abs(objective.norm),
        "transport": objective.transport,
        "mass": objective.mass,
    }
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()


def discriminator_loss(x: Tensor, z: Tensor, discriminator: Callable[[Tensor], Tensor]) -> Tensor:
    """E (D(x) - 1)² + E D(z)²: the real are 1, the generated 0."""
    real, fake = discriminator(x).sigmoid(), discriminator(z).sigmoid()
    return (real - 1).square().mean() + fake.square().mean()
