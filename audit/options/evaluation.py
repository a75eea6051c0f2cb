"""Options of the scans before and after hardening."""

from dataclasses import dataclass

from audit.options.hardening import HardenConfig
from audit.options.option import option
from audit.options.scanning import CertificateName, EffortName, ScanConfig
from audit.values import integer, numbers, word


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of the scans of the original and the hardened model.

    Attributes:
        samples: size of a random subset of the evaluation data.
        deltas: budgets, or None for 0, 0.5, 1 and 1.5 times the radius.
        effort: effort of the attacks.
        certify: method that computes certificates.
    """

    samples: int = option(
        "--eval-samples",
        default=1000,
        read=integer,
        metavar="N",
        help="Size of the random subset of EVAL that both models are scanned on.",
    )
    deltas: tuple[float, ...] | None = option(
        "--delta",
        "-d",
        default=None,
        read=numbers,
        several=True,
        metavar="D",
        fallback="0, 0.5, 1 and 1.5 times the radius",
        help="Budgets of the scans before and after, also as fractions such as 8/255.",
    )
    effort: str = option(
        "--effort",
        default="standard",
        read=word,
        choices=EffortName,
        metavar="LEVEL",
        help="Effort of the attacks in these scans.",
    )
    certify: str = option(
        "--certify",
        default="auto",
        read=word,
        choices=CertificateName,
        kind="certificate",
        metavar="METHOD",
        help="Method that computes certified accuracy in these scans; none saves time.",
    )

    def scans(self, config: HardenConfig) -> tuple[ScanConfig, ...]:
        """Return one scan per threat."""
        return tuple(
            ScanConfig(
                metrics=(metric,),
                deltas=self.deltas or (0.0, radius / 2, radius, float(f"{1.5 * radius:.12g}")),
                effort=self.effort,
                certify=self.certify,
                samples=self.samples,
                seed=config.seed,
                low=config.low,
                high=config.high,
            )
            for metric, radius in zip(config.metrics, config.radii, strict=True)
        )
