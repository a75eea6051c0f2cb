"""How long does it take to render a saved report, how much memory, and how large is each file?

Every renderer runs as `audit report` does, in a process of its own, start included.

    audit scan model.onnx --data test.npz --threat linf,l2,l1,wasserstein --order inf,2,1
    python -m bench.rendering audit-report/report.json --out bench/results/rendering.md
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from reports import RENDERERS
from reports.parsing import parse_report


def measure(words: list[str]) -> tuple[float, float]:
    """Seconds and peak memory in MiB of a command."""
    started = time.monotonic()
    process = os.posix_spawn(words[0], words, dict(os.environ))
    _, status, used = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{words} failed with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - started, used.ru_maxrss / 1024


def table(file: Path, repeats: int) -> list[str]:
    """A row per renderer: the fastest of a few runs, and the largest peak."""
    report = parse_report(file.read_text(encoding="utf-8"))
    points = sum(len(curve.points) for threat in report.threats for curve in threat.curves)
    lines = [
        f"{report.data.evaluated:,} samples, {len(report.threats)} metrics, {points} points of "
        f"curves, {len(report.artifacts.gallery)} entries of the gallery; one core.",
        "",
        "| format | seconds | peak, MiB | file, KiB |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in RENDERERS:
            out = Path(folder) / name
            words = [sys.executable, "-m", "audit", "report", str(file), "--format", name]
            runs = [measure([*words, "--out", str(out)]) for _ in range(repeats)]
            lines.append(
                f"| {name} | {min(seconds for seconds, _ in runs):.2f} | "
                f"{max(peak for _, peak in runs):.0f} | {out.stat().st_size / 1024:.0f} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    text = "\n".join(table(args.report, args.repeats)) + "\n"
    if args.out is None:
        print(text)
    else:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
