"""The options of the command line: names, help, and what is made of their values."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from audit.data import Dataset
    from audit.gates.policy import Policy
    from audit.hardening.config import HardenConfig
    from audit.models import LoadOptions
    from audit.scanning.config import ScanConfig
    from audit.schema import Gate, Report

Threats = Annotated[
    list[str] | None,
    typer.Option("--threat", "-t", metavar="METRIC", help="linf, l2, l1. [default: linf,l2]"),
]
Orders = Annotated[
    list[str] | None,
    typer.Option(
        "--order",
        metavar="P",
        help="How the budget is shared between samples: inf (each its own), 2, 1, any p >= 1. "
        "[default: inf,2,1]",
    ),
]
Deltas = Annotated[
    list[str] | None,
    typer.Option(
        "--delta", "-d", metavar="D", help="Budgets, also as 8/255. [default: a grid per metric]"
    ),
]
Attacks = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        metavar="NAME",
        help="fgsm, pgd, apgd, minimal, transport, w-pgd, wagan; without gradients square, random, "
        "hopskipjump. [default: the strongest that apply]",
    ),
]
GeneratorFile = Annotated[
    Path | None,
    typer.Option(
        "--generator",
        metavar="FILE",
        help="A generator of `audit train-attacker`, also of another model, for --attack wagan.",
    ),
]
TrainData = Annotated[
    Path | None,
    typer.Option(
        "--train-data",
        metavar="TRAIN",
        help="Train a generator on this data first, within the effort, for --attack wagan.",
    ),
]
EffortName = Annotated[
    str,
    typer.Option(
        "--effort",
        metavar="LEVEL",
        help="How hard the attacks try: quick, standard or max; the report states the budgets.",
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", metavar="N", help="Of the subset and of all random numbers.")
]
Smooth = Annotated[
    str | None,
    typer.Option(
        "--smooth",
        metavar="SIGMA",
        help="Audit the model smoothed by noise of this standard deviation: Gaussian, or for "
        "wasserstein flows of mass. [default: the model itself]",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the report.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the verdict line.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="All details, and tracebacks of internal errors.")
]


Trust = Annotated[
    bool,
    typer.Option(
        "--trust-model",
        help="Open a TorchScript or torch.export archive, which can run code of its own.",
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu or cuda.")]
Layout = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="AXES",
        help="The model's axis order: chw, hwc, ... [default: detected]",
    ),
]
Mean = Annotated[
    list[str] | None,
    typer.Option(
        "--mean",
        metavar="V",
        help="Subtracted before the model, one value or one per channel: .49,.48,.45.",
    ),
]
Std = Annotated[
    list[str] | None,
    typer.Option(
        "--std",
        metavar="V",
        help="Divided by after --mean, one value or one per channel; 1/255 for a model that "
        "takes 0 to 255.",
    ),
]
Low = Annotated[
    str, typer.Option("--low", metavar="V", help="Smallest input value; budgets use this unit.")
]
High = Annotated[
    str, typer.Option("--high", metavar="V", help="Largest input value; 255 of a byte is this.")
]
Resize = Annotated[
    str | None,
    typer.Option("--resize", metavar="HxW", help="Resize and centre-crop image files."),
]
ClassMap = Annotated[
    Path | None,
    typer.Option(
        "--class-map",
        metavar="FILE",
        help="Class names to indices: JSON, CSV, or one name per line. [default: names sorted]",
    ),
]
AllowDomain = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-domain",
        metavar="NAME",
        help="Accept operators of another domain than ONNX's own, e.g. com.microsoft.",
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Doubtful evidence is inconclusive (exit 4).")
]
ExitZero = Annotated[
    bool, typer.Option("--exit-zero", help="Exit 0 whatever the gates say; the report says it.")
]
Regression = Annotated[
    str | None,
    typer.Option(
        "--max-regression",
        metavar="X",
        help="Fail (exit 1) where attacked accuracy fell by more, beyond its interval.",
    ),
]
HtmlFile = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Also write the page there.")
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the report there.")
]
JunitFile = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Write gates as JUnit XML.")
]
SarifFile = Annotated[
    Path | None, typer.Option("--sarif", metavar="FILE", help="Write gates as SARIF 2.1.0.")
]
MarkdownFile = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Write a summary as Markdown.")
]
REPORT_HELP = "A report.json written by a scan."
POLICY_HELP = "Gates: a TOML file with [gates], or a pyproject.toml with [tool.audit.gates]."
MODEL_HELP = "ONNX file, TorchScript or torch.export archive, as it is served."
DATA_HELP = (
    "Labelled samples: .npz (x, y), IDX (.gz), class folders, a CSV of files and labels, "
    "CIFAR .bin, parquet, Hugging Face folders."
)


@dataclass(frozen=True)
class Reading:
    """How the data is read, as the user wrote it."""

    resize: str | None = None
    class_map: Path | None = None

    def open(self, path: Path, low: float, high: float) -> "Dataset":
        """Open labelled data, in ``[low, high]``."""
        from audit import values
        from audit.data import open_data

        size = values.size(self.resize, "--resize")
        return open_data(path, low=low, high=high, resize=size, class_map=self.class_map)


@dataclass(frozen=True)
class Outputs:
    """Files that were asked for beside the folder of the report."""

    html: Path | None = None
    json: Path | None = None
    junit: Path | None = None
    sarif: Path | None = None
    markdown: Path | None = None

    @property
    def asked(self) -> "list[tuple[str, Path]]":
        """Names of renderers with the files to write."""
        return [(name, path) for name, path in vars(self).items() if path is not None]


@dataclass(frozen=True)
class Gates:
    """What a report has to meet: a floor of every attacked accuracy, and the gates of a file.

    ``policy`` are the gates of the file ``file`` as they were when it was read.
    """

    minimum: float | None = None
    file: Path | None = None
    policy: "Policy | None" = None
    strict: bool = False

    @classmethod
    def read(cls, minimum: float | None, file: Path | None, *, strict: bool) -> "Gates":
        """Read the gates of a file, if one is named, once and for all; raises `UsageError`."""
        from audit.gates.policy import read_policy

        return cls(minimum, file, None if file is None else read_policy(file), strict)

    def judged(self, report: "Report") -> "list[Gate]":
        """Every gate, on a report."""
        from datetime import date

        from audit.gates.policy import judge
        from audit.gates.verdict import fail_under

        found = []
        if self.minimum is not None:
            found += fail_under(report, self.minimum, strict=self.strict)
        if self.policy is not None:
            found += judge(report, self.policy, date.today(), strict=self.strict)
        return found


@dataclass(frozen=True)
class Taught:
    """Where the generator of the attack ``wagan`` comes from: a file, or data to train it on."""

    file: Path | None = None
    data: Path | None = None

    def check(self, config: "ScanConfig") -> None:
        """Raise `UsageError` where the options contradict each other."""
        from audit.errors import UsageError

        if self.file is not None and self.data is not None:
            raise UsageError("--generator and --train-data were both given: leave one of them out.")
        given = self.file is not None or self.data is not None
        asked = config.attacks is not None and "wagan" in config.attacks
        if asked and not given:
            raise UsageError(
                "--attack wagan needs a trained generator: give one with --generator FILE, or data "
                "to train it on with --train-data TRAIN."
            )
        if given and config.attacks is not None and not asked:
            raise UsageError(
                "A generator was given, but --attack does not name wagan: add it, or leave "
                "--attack out."
            )


@dataclass(frozen=True)
class Judged:
    """How a hardened model and the original are scanned."""

    samples: int
    deltas: tuple[float, ...] | None
    effort: str
    certify: str

    def scans(self, config: "HardenConfig") -> "tuple[ScanConfig, ...]":
        """A scan per threat, at half, one and one and a half radii where no budgets are given."""
        from audit.scanning.config import ScanConfig

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


def regression_of(text: str | None) -> float | None:
    """The limit of ``--max-regression``; raises `UsageError`."""
    from audit import values
    from audit.errors import UsageError

    limit = None if text is None else values.number(text, "--max-regression")
    if limit is not None and not 0 <= limit <= 1:
        raise UsageError(f"--max-regression is a share from 0 to 1, found {limit:g}.")
    return limit


def loading_of(
    trust_model: bool,
    device: str,
    layout: str | None,
    mean: list[str] | None,
    std: list[str] | None,
    low: str,
    high: str,
    allow_domain: list[str] | None,
) -> "LoadOptions":
    """What the options say about the model and its input; raises `UsageError`."""
    from audit import values
    from audit.models import LoadOptions

    return LoadOptions(
        trust_model=trust_model,
        device=device,
        layout=layout,
        low=values.number(low, "--low"),
        high=values.number(high, "--high"),
        mean=values.numbers(mean, "--mean"),
        std=values.numbers(std, "--std"),
        allow_domains=frozenset(values.split(allow_domain)),
    )


def config_of(
    threat: list[str] | None,
    order: list[str] | None,
    delta: list[str] | None,
    attack: list[str] | None,
    effort: str,
    certify: str,
    smooth: str | None,
    samples: int | None,
    seed: int,
    confidence: float,
    batch_size: str,
    low: str,
    high: str,
) -> "ScanConfig":
    """The scan that the options describe; raises `UsageError`."""
    from audit import values
    from audit.scanning.config import ScanConfig

    orders = values.numbers(order, "--order")
    chosen: dict[str, Any] = {
        "metrics": values.names(threat, "--threat"),
        "orders": None if orders is None else tuple(dict.fromkeys(orders)),
        "deltas": values.numbers(delta, "--delta"),
        "attacks": values.names(attack, "--attack"),
    }
    return ScanConfig(
        **{name: value for name, value in chosen.items() if value is not None},
        effort=effort,
        certify=certify,
        smooth=None if smooth is None else values.number(smooth, "--smooth"),
        samples=samples,
        seed=seed,
        confidence=confidence,
        batch_size=values.count(batch_size, "--batch-size"),
        low=values.number(low, "--low"),
        high=values.number(high, "--high"),
    )
