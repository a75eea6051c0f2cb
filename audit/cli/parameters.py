"""Parameters that several commands share: models, data, reports and output files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = "Model as it is served: an ONNX file, or a TorchScript or torch.export archive."
DATA_HELP = (
    "Labelled samples: .npz (x, y), IDX (.gz), class folders, a CSV of files and labels, "
    "CIFAR .bin, parquet, or a Hugging Face folder."
)

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
DataFile = Annotated[Path, typer.Option("--data", metavar="DATA", help=DATA_HELP)]
OptionalData = Annotated[Path | None, typer.Option("--data", metavar="DATA", help=DATA_HELP)]
TrainData = Annotated[
    Path, typer.Option("--data", metavar="TRAIN", help=f"Training data. {DATA_HELP}")
]
ReportFile = Annotated[
    Path, typer.Argument(metavar="REPORT", help="A report.json that a scan wrote.")
]
OutFolder = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Folder that the report is written to.")
]
OutFile = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="File to write. [default: stdout]"),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only one line, and no progress.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Resume an interrupted run with the same options.")
]
ExitZero = Annotated[
    bool,
    typer.Option("--exit-zero", help="Exit with 0 even if a gate fails; the report states it."),
]
Regression = Annotated[
    str | None,
    typer.Option(
        "--max-regression",
        metavar="X",
        help="Fail (exit 1) if attacked accuracy fell by more than X at both ends of its interval.",
    ),
]
HtmlFile = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write the HTML page to this file.")
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the report to this file.")
]
JunitFile = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Write the gates as JUnit XML.")
]
SarifFile = Annotated[
    Path | None, typer.Option("--sarif", metavar="FILE", help="Write the gates as SARIF 2.1.0.")
]
MarkdownFile = Annotated[
    Path | None,
    typer.Option("--markdown", metavar="FILE", help="Write a summary as Markdown."),
]


@dataclass(frozen=True)
class Outputs:
    """Output files in addition to the folder of the report."""

    html: Path | None = None
    json: Path | None = None
    junit: Path | None = None
    sarif: Path | None = None
    markdown: Path | None = None

    @property
    def asked(self) -> list[tuple[str, Path]]:
        """Names of renderers, with the files to write."""
        return [(name, path) for name, path in vars(self).items() if path is not None]
