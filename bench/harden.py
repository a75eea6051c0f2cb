"""How much robustness does hardening add, at what cost, and can it be killed and resumed?

Each row is one run of `audit harden`; attacked accuracies are those of whole scans of the hardened
file on test images. `--kills` kills runs at random moments and compares their final weights with
those of an uninterrupted run.

    python -m bench.harden --out bench/results/harden.md
    python -m bench.harden --rows linf-pgd --epochs 20 --device cuda
    python -m bench.harden --rows none --kills 20 --out bench/results/harden_kills.md
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from audit.demo import data_path, model_path
from bench.subjects import MNIST, SUBJECTS
from bench.table import Table, bench_parser, publish, torch_setup

TRAIN = "mnist/train-images-idx3-ubyte.gz"


@dataclass(frozen=True)
class Row:
    """One run: method, threat, radius, epochs, options, and whether it is of the demo's model."""

    method: str
    threat: str
    radius: str
    epochs: int
    options: tuple[str, ...] = ()
    fashion: bool = False


ROWS = {
    "linf-pgd": Row("pgd", "linf", "0.1", 12),
    "linf-trades": Row("trades", "linf", "0.1", 16),
    "wasserstein-pgd": Row(
        "pgd", "wasserstein", "0.13", 9, ("--steps", "6", "--delta", "0.05,0.1,0.15")
    ),
    "wasserstein-wagan": Row("wagan", "wasserstein", "0.1", 5, ("--clean", "0.5")),
    "fashion-pgd": Row("pgd", "l2", "0.5", 8, (), True),
    "fashion-wdro": Row("wdro", "l2", "0.5", 6, ("--order", "2"), True),
}
"""By name."""


def command(row: Row, args: argparse.Namespace, out: Path) -> list[str]:
    """The run of a row."""
    epochs = args.epochs or row.epochs
    if row.fashion:
        places = (model_path(), "--data", args.fashion, "--eval", data_path())
    else:
        model = args.shared / SUBJECTS["sinkhorn_vanilla"].model
        places = (model, "--data", args.shared / TRAIN, "--eval", args.shared / MNIST)
    samples = ("--samples", args.samples) if args.samples else ()
    words = (
        sys.executable, "-W", "ignore", "-m", "audit", "harden", *places, "--with", row.method,
        "--threat", row.threat, "--radius", row.radius, "--epochs", epochs, *row.options,
        *samples, "--eval-samples", args.eval_samples, "--certify", args.certify, "--effort",
        args.effort, "--device", args.device, "--out", out,
    )  # fmt: skip
    return [str(word) for word in words]


def measure(table: Table, name: str, row: Row, args: argparse.Namespace) -> None:
    """Run `audit harden` for a row and add a line per threat and budget."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        subprocess.run(command(row, args, out), check=True, stdout=subprocess.DEVNULL)
        found = json.loads((out / "harden.json").read_text(encoding="utf-8"))
    for threat in found["threats"]:
        inf = threat["paired"]
        two = {
            when: {p["delta"]: p for c in threat[when]["curves"] if c["order"] == "2"
                   for p in c["points"]}
            for when in ("before", "after")
        }  # fmt: skip
        for point in inf:
            delta = point["delta"]
            table.add(
                name,
                threat["before"]["metric"],
                f"{delta:g}",
                change(found["clean"]),
                change(point["attacked"]),
                certified(point["certified"]),
                change({when: two[when][delta]["attacked"]["value"] for when in two}),
                f"{found['seconds'] / 60:.1f}",
                f"{found['parity']:.1e}",
            )


def certified(found: dict[str, Any] | None) -> str:
    """Return the certified accuracy after hardening in %, empty where no certificate ran."""
    return "" if found is None else f"{100 * found['after']:.1f}"


def change(found: dict[str, Any]) -> str:
    """Return the values before and after in %."""
    return f"{100 * found['before']:.1f} → **{100 * found['after']:.1f}**"


def kill_and_resume(args: argparse.Namespace) -> str:
    """Kill runs at random moments, resume them, and compare final weights."""
    row = Row("pgd", "linf", "0.1", 2)
    small = argparse.Namespace(**vars(args))
    small.samples, small.eval_samples, small.certify, small.effort = 3000, 20, "none", "quick"
    small.epochs = None
    chance = random.Random(0)
    same = corrupt = kills = 0
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "alone"
        started = time.monotonic()
        subprocess.run(command(row, small, alone), check=True, stdout=subprocess.DEVNULL)
        length = time.monotonic() - started
        wanted = (alone / "sinkhorn_vanilla.onnx").read_bytes()
        for number in range(args.kills):
            out = Path(folder) / f"run{number}"
            moment = chance.uniform(0.05, 0.95) * length
            process = subprocess.Popen(command(row, small, out), stdout=subprocess.DEVNULL)
            try:
                process.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
            resume = ["--resume"] if (out / "checkpoint.safetensors").exists() else []
            again = subprocess.run(
                [*command(row, small, out), *resume], check=False, stdout=subprocess.DEVNULL
            )
            corrupt += again.returncode != 0
            same += (out / "sinkhorn_vanilla.onnx").read_bytes() == wanted
            print(number, f"{moment:.1f} s", bool(resume), same, file=sys.stderr, flush=True)
    return (
        f"{args.kills} runs of {length:.0f} s, {kills} of them killed (SIGKILL) at a random "
        "moment and started again, with `--resume` where a checkpoint had been written: "
        f"{same} ended with bitwise the weights of the uninterrupted run; {corrupt} could not be "
        "resumed."
    )


COLUMNS = (
    "run", "metric", "delta", "clean", "attacked, order inf", "certified, order inf",
    "attacked, order 2", "minutes", "parity",
)  # fmt: skip


def main() -> None:
    """Print the table, and write it if a file is named."""
    parser = bench_parser(__doc__)
    parser.add_argument("--fashion", type=Path, help="Fashion-MNIST training images, IDX")
    parser.add_argument("--rows", nargs="*", choices=[*ROWS, "none"])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--samples", type=int)
    parser.add_argument("--eval-samples", type=int, default=1000)
    parser.add_argument("--certify", default="none")
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--kills", type=int, default=0, help="runs that are killed and resumed")
    args = parser.parse_args()
    device = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    table = Table(
        COLUMNS,
        f"{device}, {torch_setup()}, effort {args.effort}, {args.eval_samples} test images. "
        "Accuracies in %; minutes of training.",
    )
    for name in args.rows or ROWS:
        if name in ROWS:
            measure(table, name, ROWS[name], args)
    publish(args.out, table, kill_and_resume(args) if args.kills else "")


if __name__ == "__main__":
    main()
