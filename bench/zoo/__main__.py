"""`python -m bench.zoo FOLDER`: make the zoo's files and say which could not be made."""

import argparse
import sys
from pathlib import Path

from bench.zoo import build


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a zoo of served classifiers.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="files whose name contains this")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    failures = build(options.folder, only=options.only, jobs=options.jobs)
    for name, reason in failures.items():
        if reason:
            print(f"{name}: {reason}", file=sys.stderr)
    made = sum(not reason for reason in failures.values())
    print(f"{made} of {len(failures)} files in {options.folder}")


if __name__ == "__main__":
    main()
