"""Options for the trained generator that the attack ``wagan`` uses."""

from dataclasses import dataclass
from pathlib import Path

from audit.errors import UsageError
from audit.options.option import option
from audit.values import path_of


@dataclass(frozen=True)
class GeneratorFileOptions:
    """Generator that the hardening method ``wagan`` uses.

    Attributes:
        file: a trained generator, or None to train one along with the model.
    """

    file: Path | None = option(
        "--generator",
        default=None,
        read=path_of,
        metavar="FILE",
        fallback="a generator trained on TRAIN",
        help="Trained generator to start from (--with wagan only).",
    )


@dataclass(frozen=True)
class GeneratorOptions:
    """Source of the generator of the attack ``wagan``.

    Attributes:
        file: a trained generator, or None.
        data: data to train one on, or None.
    """

    file: Path | None = option(
        "--generator",
        default=None,
        read=path_of,
        metavar="FILE",
        help="Trained generator for --attack wagan, written by `audit train-attacker`. It may have "
        "been trained against another model.",
    )
    data: Path | None = option(
        "--train-data",
        default=None,
        read=path_of,
        metavar="TRAIN",
        help="Data to train a generator on before the scan, within the effort, for --attack wagan.",
    )

    @property
    def given(self) -> bool:
        """Indicator that there is a generator, or data to train one on."""
        return self.file is not None or self.data is not None

    def __post_init__(self) -> None:
        """Raise `UsageError` if both sources of the generator are given."""
        if self.file is not None and self.data is not None:
            raise UsageError("--generator and --train-data were both given: leave one of them out.")
