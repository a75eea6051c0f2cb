"""Settings from files: ``audit.toml``, or ``[tool.audit]`` of ``pyproject.toml``, of the folder.

    effort = "standard"            # at the top: options of `audit scan`
    threat = ["linf", "l2"]
    [harden]                       # options of another command
    epochs = 20
    [gates]                        # see `audit.gates.policy`
    error = ["attacked.linf@8/255 >= 0.8"]

The command line comes first, then the environment (``AUDIT_SCAN_EFFORT``), then these. A key that
no option has is an error.
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
    """What an option is called inside, and whether it takes a list."""

    name: str
    several: bool


Known = Mapping[str, Mapping[str, Setting]]
"""Per command, its options by the names that a user writes."""


@dataclass(frozen=True)
class Settings:
    """Settings of a folder.

    Attributes:
        path: of the file, or None where there is none.
        options: per command, values by the name of their option.
    """

    path: Path | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def find(folder: Path, known: Known) -> Settings:
    """Read the settings of a folder.

    Args:
        folder: where to look.
        known: the options of every command.

    Raises:
        UsageError: the file cannot be read, or has a key that no option has.
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
            _check(path, key, known, "command")
            for name, inner in value.items():
                _check(path, name, known[key], f"option of {key}")
                _set(options.setdefault(key, {}), known[key][_option(name)], inner)
        else:
            _check(path, key, known["scan"], "option of scan")
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


def _check(path: Path, key: str, known: Mapping[str, Any], kind: str) -> None:
    if _option(key) not in known:
        near = difflib.get_close_matches(_option(key), known, n=1)
        hint = f"is {near[0]!r} meant?" if near else f"choose from {', '.join(sorted(known))}."
        raise UsageError(f"{path}: {key!r} is no {kind}: {hint}")


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path} cannot be read as TOML ({reason}): mend or remove it.") from error
