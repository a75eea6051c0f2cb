"""How long does it take to render a saved report, how much memory, and how large is each file?

Each renderer is started as `audit report` in a new process, and the start counts.

    audit scan model.onnx --data test.npz --threat linf,l2,l1,wasserstein --order inf,2,1
    python -m bench.rendering audit-report/report.json --out bench/results/rendering.md
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from bench.table import Table, bench_parser, publish
from reports import RENDERERS
from reports.parsing import parse_report


def measure(words: list[str]) -> tuple[float, float]:
    """Return the seconds and the peak memory in MiB of a command."""
    started = time.monotonic()
    process = os.posix_spawn(words[0], words, dict(os.environ))
    _, status, used = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{words} failed with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - started, used.ru_maxrss / 1024


def render_costs(table: Table, file: Path, repeats: int) -> None:
    """Add a row per renderer: the fastest of the runs, and the largest peak."""
    with tempfile.TemporaryDirectory() as folder:
        for name in RENDERERS:
            out = Path(folder) / name
            words = [sys.executable, "-m", "audit", "report", str(file), "--format", name]
            runs = [measure([*words, "--out", str(out)]) for _ in range(repeats)]
            table.add(
                name,
                f"{min(seconds for seconds, _ in runs):.2f}",
                f"{max(peak for _, peak in runs):.0f}",
                f"{out.stat().st_size / 1024:.0f}",
            )


def main() -> None:
    """Print the table, and write it if a file is named."""
    parser = bench_parser(__doc__, shared=False)
    parser.add_argument("report", type=Path, help="report.json of a scan")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    report = parse_report(options.report.read_text(encoding="utf-8"))
    points = sum(len(curve.points) for threat in report.threats for curve in threat.curves)
    table = Table(
        ("format", "seconds", "peak, MiB", "file, KiB"),
        f"{report.data.evaluated:,} samples, {len(report.threats)} metrics, {points} points of "
        f"curves, {len(report.artifacts.gallery)} entries of the gallery; one core.",
    )
    render_costs(table, options.report, options.repeats)
    publish(options.out, table)


if __name__ == "__main__":
    main()
