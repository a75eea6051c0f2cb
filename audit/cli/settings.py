"""Settings from ``audit.toml``, or ``[tool.audit]`` of ``pyproject.toml``, in the current folder.

    effort = "standard"            # at the top: options of `audit scan`
    threat = ["linf", "l2"]
    [harden]                       # options of another command
    epochs = 20
    [gates]                        # see `audit.gates.policy`
    error = ["attacked.linf@8/255 >= 0.8"]

The command line has priority, then the environment (``AUDIT_SCAN_EFFORT``), then these settings. A
key that is not an option is an error.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit.errors import UsageError

FILE, PROJECT = "audit.toml", "pyproject.toml"
NOT_OPTIONS = frozenset({"gates", "waivers"})


@dataclass(frozen=True)
class Setting:
    """Internal name of an option, and whether it takes a list."""

    name: str
    several: bool


Known = Mapping[str, Mapping[str, Setting]]
"""Options of each command, by the names that a user writes."""


@dataclass(frozen=True)
class Settings:
    """Settings of a folder.

    Attributes:
        path: path of the file, or None if there is none.
        options: values of each command, by the names of the options.
    """

    path: Path | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def find(folder: Path, known: Known) -> Settings:
    """Read the settings of a folder.

    Args:
        folder: folder of the file.
        known: the options of every command.

    Raises:
        UsageError: the file cannot be read, or has a key that is not an option.
    """
    path, document = folder / FILE, None
    if path.is_file():
        document = _parsed(path)
    elif (folder / PROJECT).is_file():
        path = folder / PROJECT
        document = _parsed(path).get("tool", {}).get("audit")
    if document is None:
        return Settings()
    options: dict[str, dict[str, Any]] = {"scan": {}}
    for key, value in document.items():
        if key in NOT_OPTIONS:
            continue
        if isinstance(value, dict):
            _require_known(path, key, known, "command")
            for name, inner in value.items():
                _require_known(path, name, known[key], f"option of {key}")
                _set(options.setdefault(key, {}), known[key][_option(name)], inner)
        else:
            _require_known(path, key, known["scan"], "option of scan")
            _set(options["scan"], known["scan"][_option(key)], value)
    if "gates" in document:
        options["scan"].setdefault("policy", str(path))
    return Settings(path, options)


def _set(options: dict[str, Any], option: Setting, value: Any) -> None:
    single = option.several and not isinstance(value, list)
    found = [value] if single else value
    options[option.name] = [str(v) for v in found] if option.several else found


def _option(key: str) -> str:
    return key.replace("_", "-")


def _require_known(path: Path, key: str, known: Mapping[str, Any], kind: str) -> None:
    if _option(key) not in known:
        near = difflib.get_close_matches(_option(key), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(sorted(known))}."
        raise UsageError(f"{path}: {key!r} is not a known {kind}: {hint}")


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path} cannot be read as TOML ({reason}): fix or remove it.") from error
