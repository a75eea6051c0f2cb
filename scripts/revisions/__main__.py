"""Compare whole scans between two revisions of the program.

Both run the same command lines on the same small models and data, which are made on the spot: what
they find may differ between types of processors, so no numbers are stored. The second revision is
the working tree with everything in it, unless ``--new`` names another.

    python -m scripts.revisions --base HEAD
    python -m scripts.revisions --base main --case norms --case harden-pgd

Prints a Markdown table and every difference; exits with 1 where there is one.
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.revisions.cases import CASES, Case
from scripts.revisions.difference import EXCLUDED, SENTENCES, Found, compare_folders
from scripts.revisions.inputs import write_inputs

ROOT = Path(__file__).resolve().parents[2]
SHOWN = 20
"""Differences of a case that are printed; the rest is counted."""

EXPLANATION = f"""
Compared: every value of the JSON files (floats to the last digit), `samples.csv` byte by byte,
arrays of `.npz`, `.safetensors` and the weights of `.onnx` bit by bit, exit codes.
Not compared, by name: {", ".join(EXCLUDED)}; pictures; pages.
Reworded counts sentences that differ ({", ".join(SENTENCES)}): they are no differences.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases with both revisions, print what differs, and return the exit code."""
    parser = argparse.ArgumentParser("python -m scripts.revisions", description=__doc__)
    parser.add_argument("--base", metavar="REV", required=True, help="revision to compare with")
    parser.add_argument("--new", metavar="REV", help="the other one (default: the working tree)")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="new folder that keeps the files")
    parser.add_argument("--reworded", action="store_true", help="print reworded sentences too")
    options = parser.parse_args(argv)
    chosen = [case for case in CASES if options.case is None or case.name in options.case]
    with tempfile.TemporaryDirectory(prefix="revisions-") as temporary:
        folder = Path(temporary) if options.keep is None else options.keep.resolve()
        if folder.exists() and any(folder.iterdir()):
            parser.error(f"--keep {folder} is not empty: name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        trees = {"old": export(options.base, folder / "tree-old")}
        trees["new"] = ROOT if options.new is None else export(options.new, folder / "tree-new")
        write_inputs(folder / "inputs")
        return compare(chosen, trees, folder, reworded=options.reworded)


def export(revision: str, target: Path) -> Path:
    """Write the files of a revision into a folder."""
    packed = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True)
    if packed.returncode:
        sys.exit(f"git archive {revision} failed: {packed.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(target, filter="data")
    return target


def compare(chosen: list[Case], trees: dict[str, Path], folder: Path, *, reworded: bool) -> int:
    """Run and compare case by case; print the table as it grows, then what differs."""
    for tree in trees.values():
        require_own_code(tree, folder)
    print("| case | values compared | differences | new | reworded | seconds (old, new) |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    found: dict[str, Found] = {}
    for case in chosen:
        codes, seconds = {}, {}
        for name, tree in trees.items():
            started = time.perf_counter()
            codes[name] = run(case, tree, folder / name / case.name)
            seconds[name] = time.perf_counter() - started
        result = compare_folders(*(folder / name / case.name for name in trees))
        result.differences[:0] = [
            f"`audit {step.line}` ended with {after} instead of {before}"
            for step, before, after in zip(case.steps, codes["old"], codes["new"], strict=True)
            if before != after
        ]
        result.values += len(codes["old"])
        found[case.name] = result
        print(
            f"| {case.name} | {result.values} | {len(result.differences)} | {len(result.new)} "
            f"| {len(result.reworded)} | {seconds['old']:.0f}, {seconds['new']:.0f} |",
            flush=True,
        )
    print(EXPLANATION)
    for name, result in found.items():
        show(name, "differs", result.differences)
        show(name, "new", result.new)
        if reworded:
            show(name, "reworded", result.reworded)
    return int(any(result.differences for result in found.values()))


def show(case: str, what: str, entries: list[str]) -> None:
    """Print the first entries of a list."""
    for entry in entries[:SHOWN]:
        print(f"- {case}, {what}: {entry}")
    if len(entries) > SHOWN:
        print(f"- {case}, {what}: {len(entries) - SHOWN} more")


def environment(tree: Path) -> dict[str, str]:
    """The environment of one revision: its own code, one thread, no settings of the caller's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AUDIT_", "GITHUB_"))}
    return {**kept, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}


def require_own_code(tree: Path, folder: Path) -> None:
    """Stop where the packages of another tree would be run."""
    packages = "attackers, audit, reports"
    code = f"import {packages}; print(*(package.__file__ for package in ({packages})))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(tree),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    foreign = [file for file in done.stdout.split() if not Path(file).is_relative_to(tree)]
    if foreign:
        sys.exit(f"{foreign[0]} would be run instead of the code in {tree}.")


def run(case: Case, tree: Path, folder: Path) -> list[int]:
    """Run the command lines of a case in a new folder and return their exit codes.

    The older revision has to end with the expected ones, or the case says nothing.
    """
    folder.mkdir(parents=True)
    codes = []
    for step in case.steps:
        done = subprocess.run(
            [sys.executable, *step.arguments], cwd=folder, env=environment(tree),
            capture_output=True, text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
        codes.append(done.returncode)
        if done.returncode != step.code:
            print(
                f"{case.name}: `audit {step.line}` ended with {done.returncode}, expected "
                f"{step.code}: {done.stderr.strip()[-500:]}",
                file=sys.stderr,
            )
            if folder.parent.name == "old":
                sys.exit(2)
    return codes


if __name__ == "__main__":
    sys.exit(main())
