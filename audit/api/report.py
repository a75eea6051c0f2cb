"""Report of a scan in the public API: the measurements, and the methods that use them."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from audit import schema
from audit.errors import GateFailed, UsageError
from audit.gates.policy import evaluate_policy, policy_of
from audit.gates.verdict import exit_code
from audit.runtime.atomic_files import check_writable, write_text
from audit.schema.files import HTML_FILE, REPORT_FILE, SAMPLES_FILE
from reports import RENDERERS

__all__ = ["GateFailed", "Report"]

Files = Callable[[Path], None]
"""Function that writes the files with single samples (`samples.csv`, `adversarial.npz`) into a
folder."""

EXIT_INTERRUPTED = 130
"""Exit status of a scan that was interrupted."""


@dataclass(frozen=True)
class Report:
    """Result of a scan.

    Attributes:
        record: everything that was measured, as plain data; see `audit.schema.ScanReport`.
        samples_csv: returns the table of samples with their radii, as text.
        write_samples: writes the files with single samples into a folder.
        folder: folder that the report was written to or read from, or None.
    """

    record: schema.ScanReport
    samples_csv: Callable[[], str] = field(repr=False)
    write_samples: Files = field(repr=False)
    folder: Path | None = None

    @classmethod
    def read(cls, path: str | Path) -> "Report":
        """Read a saved report.

        Args:
            path: a ``report.json``, or the folder that contains it.

        Raises:
            UsageError: the report cannot be read.
        """
        file = Path(path)
        if file.is_dir():
            file = file / REPORT_FILE
        record = read_record(file)
        table = file.parent / (record.artifacts.samples or SAMPLES_FILE)

        def copy(folder: Path) -> None:
            for name in (record.artifacts.samples, record.artifacts.adversarial):
                source = file.parent / name if name else None
                if source is not None and source.exists() and source.parent != folder:
                    shutil.copyfile(source, folder / source.name)

        return cls(record, lambda: read_table(table), copy, file.parent)

    def loaded(self) -> "Report":
        """Return the report with its table of samples in memory, so that its files may change."""
        table = self.samples_csv()
        return replace(self, samples_csv=lambda: table)

    def save(self, folder: str | Path) -> Path:
        """Write `report.html`, `report.json`, `samples.csv` and `adversarial.npz`.

        Each file is written atomically, the JSON last.

        Args:
            folder: folder to write to; it is created if it does not exist.

        Returns:
            The path of the ``report.json``.

        Raises:
            UsageError: the folder cannot be written.
        """
        out = Path(folder)
        check_writable(out)
        out.mkdir(parents=True, exist_ok=True)
        self.write_samples(out)
        write_text(out / HTML_FILE, self.html())
        write_text(out / REPORT_FILE, self.json())
        return out / REPORT_FILE

    def html(self) -> str:
        """Return the report as one HTML page that needs no other file."""
        return RENDERERS["html"](self.record)

    def json(self) -> str:
        """Return the report as JSON."""
        return RENDERERS["json"](self.record)

    def text(self) -> str:
        """Return the report as plain text."""
        return RENDERERS["text"](self.record)

    def markdown(self) -> str:
        """Return a summary of the report as Markdown."""
        return RENDERERS["markdown"](self.record)

    def render(self, format: str) -> str:
        """Return the report in one of the formats of ``audit report --format``.

        Raises:
            UsageError: the format is unknown.
        """
        if format not in RENDERERS:
            raise UsageError(f"Unknown format {format!r}: choose from {', '.join(RENDERERS)}.")
        return RENDERERS[format](self.record)

    @property
    def reliability(self) -> str:
        """GREEN, AMBER or RED, which states whether the evidence can be relied on."""
        return schema.reliability(self.record)

    @property
    def verdict(self) -> str:
        """Outcome of the gates: pass, fail, inconclusive, or none."""
        return self.record.verdict

    def exit_code(self, *, strict: bool = False) -> int:
        """Return the exit status of the command line for this report."""
        if self.record.status == "interrupted":
            return EXIT_INTERRUPTED
        return exit_code(self.record, strict=strict)

    def require(self, *conditions: str) -> "Report":
        """Raise `GateFailed` unless every condition holds at the lower end of its interval.

        One line in a test suite: ``report.require("attacked.linf@8/255 >= 0.8")``.

        Args:
            conditions: as in the gates of a policy, for example ``clean >= 0.97``,
                ``certified.l2@0.25 >= 0.5`` or ``reliability = green``.

        Returns:
            The report itself.

        Raises:
            GateFailed: a condition does not hold, the evidence cannot be relied on (RED), or the
                scan did not complete and its remainder may change the outcome.
            UsageError: a condition cannot be read.
        """
        gates = evaluate_policy(self.record, policy_of(conditions), date.today())
        lost = [_reason(gate) for gate in gates if gate.status != "pass"]
        if not lost and self.reliability == "RED":
            problems = [
                entry.id if entry.metric is None else f"{entry.id} ({entry.metric})"
                for entry in self.record.health
                if entry.status in ("fail", "error")
            ]
            lost.append(
                f"the conditions hold, but the evidence cannot be relied on ({'; '.join(problems)})"
            )
        if lost:
            raise GateFailed("; ".join(lost) + ".")
        return self

    def _repr_html_(self) -> str:
        """Show a summary in a notebook."""
        from reports.notebook import render

        return render(self.record)


def _reason(gate: schema.Gate) -> str:
    measured = "not measured" if gate.value is None else f"measured {gate.value:.4g}"
    return f"{gate.expression} does not hold: {measured}. {gate.detail or ''}".strip().rstrip(".")


def read_record(file: Path) -> schema.ScanReport:
    """Read a saved report.

    Raises:
        UsageError: the file cannot be read as a report.
    """
    from reports.parsing import parse_report

    try:
        return parse_report(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(
            f"{file} cannot be read as a report ({reason}): name a report.json."
        ) from error


def read_table(file: Path) -> str:
    """Read a table of samples.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(
            f"{file} cannot be read ({reason}): a comparison pairs samples, so it needs the "
            "samples.csv that the scan wrote next to its report."
        ) from error
