"""Run `audit` inside the test process, because a new process costs seconds of imports."""

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import jsonschema

from audit import cli

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


def audit(*words: object) -> Outcome:
    """Run ``audit`` with the given words; neither stream is a terminal."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["audit", *map(str, words)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Outcome(code, out.getvalue(), err.getvalue())


def scan(model: Path, data: Path, *options: object, out: Path, code: int = 0) -> dict[str, Any]:
    """Scan, check the exit code and that nothing went to stderr, and return the report.

    Certificates are the quick ones unless the options choose others.
    """
    quick = () if {"--certify", "--smooth"} & set(options) else ("--certify", "crown-ibp")
    outcome = audit("scan", model, "--data", data, "--out", out, *options, *quick)
    assert outcome.code == code, outcome.err
    assert outcome.err == ""
    return read_report(out)


def read_report(out: Path) -> dict[str, Any]:
    """Return the report of a folder, validated against the published schema."""
    document = json.loads((out / "report.json").read_text(encoding="utf-8"))
    schema = json.loads((ROOT / "audit/schema/report.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, schema)
    return document
