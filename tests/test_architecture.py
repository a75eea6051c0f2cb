"""The shape of the code: allowed imports, file access, documentation, sizes and names."""

import ast
import functools
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from attackers import ATTACKS, ITERATIVE, PLAIN_STEPS
from attackers.geometry import METRICS
from attackers.losses import LOSSES

ROOT = Path(__file__).resolve().parents[1]
CLI = ROOT / "audit" / "cli"
FLOORS = (
    ("attackers", "audit.errors", "audit.schema", "audit.demo", "audit.version"),
    ("audit.values",),
    ("audit.options",),
    ("audit.runtime", "audit.data", "audit.models", "audit.statistics"),
    ("audit.gates", "audit.evidence", "audit.comparison"),
    ("audit.certify", "audit.health", "audit.generators"),
    ("audit.scanning",),
    ("audit.hardening", "audit.inspection"),
    ("audit.api",),
    ("audit",),
    ("audit.cli",),
    ("audit.__main__",),
)
"""Packages in layers, lowest first: each imports only from layers below its own."""

RENDERERS_IMPORT = ("audit.errors", "audit.schema")
"""Packages of the engine that `reports` may import."""

PACKAGES = ("attackers", "audit", "reports")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@functools.cache
def source_lines(path: Path) -> tuple[str, ...]:
    """The lines of a file, read once for all tests."""
    return tuple(path.read_text(encoding="utf-8").splitlines())


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file, parsed once for all tests."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imported(path: Path) -> tuple[str, ...]:
    """Return the imports of a file of this project."""
    return tuple(imports(path, parsed(path)))


def imports(path: Path, tree: ast.AST) -> Iterator[str]:
    """Yield every module and every name imported anywhere in a file, as full dotted names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            folders = path.relative_to(ROOT).parent.parts
            above = folders[: len(folders) - node.level + 1] if node.level else ()
            module = (*above, *filter(None, [node.module]))
            yield from (".".join((*module, alias.name)) for alias in node.names)


def starts(name: str, *prefixes: str) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def room(module: str) -> str:
    """Return the package of a module; for the engine, its direct sub-package or module."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "audit" and module not in ANSWERS else parts[0]


ANSWERS = ("audit.__version__", "audit.__file__")
"""Attributes of the engine's package that are not modules."""

FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def allowed(path: Path, name: str) -> bool:
    here, there = room(dotted(path)), room(name)
    if starts(name, "torchvision"):
        return False
    if not starts(name, *PACKAGES) or here == there:
        return not (here == "reports" and starts(name, "torch"))
    if here == "reports":
        return starts(name, *RENDERERS_IMPORT)
    if there == "reports":
        return here in ("audit.cli", "audit.api")
    return FLOOR_OF[there] < FLOOR_OF[here]


def dotted(path: Path) -> str:
    """Return the dotted name of a module; for `__init__.py`, that of its package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_every_room_has_a_floor() -> None:
    rooms = {room(dotted(path)) for path in MODULES} - {"reports"}
    assert rooms == FLOOR_OF.keys()


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = {dotted(path): path for path in MODULES}
    arrows = {
        module: {
            found for name in imported(path) if (found := owner(name, known)) not in ("", module)
        }
        for module, path in known.items()
    }
    # Repeatedly remove modules that import no remaining module; a cycle is what remains.
    while done := [module for module, to in arrows.items() if not to & arrows.keys()]:
        for module in done:
            del arrows[module]
    assert arrows == {}


def owner(name: str, known: Collection[str]) -> str:
    """Return the known module from which a name is imported, or an empty string."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def test_imports_flow_one_way() -> None:
    assert [
        (dotted(path), name)
        for path in MODULES
        for name in imported(path)
        if not allowed(path, name)
    ] == []


@pytest.mark.parametrize(
    ("module", "source", "name"),
    [
        ("attackers/new.py", "from audit import schema", "audit.schema"),
        ("audit/data/new.py", "from audit.models import Classifier", "audit.models.Classifier"),
        ("audit/statistics/new.py", "import audit.scanning.scan", "audit.scanning.scan"),
        ("attackers/new.py", "def f():\n    import audit.cli", "audit.cli"),
        ("audit/new.py", "from reports.html import render", "reports.html.render"),
        ("audit/models/new.py", "import torchvision", "torchvision"),
        ("reports/new.py", "import audit", "audit"),
        ("reports/new.py", "from audit.scanning.scan import run", "audit.scanning.scan.run"),
        ("reports/new.py", "from attackers import ATTACKS", "attackers.ATTACKS"),
        ("audit/models/new.py", "from ...reports import html", "reports.html"),
    ],
)
def test_what_flows_the_other_way_is_noticed(module: str, source: str, name: str) -> None:
    path = ROOT / module
    found = list(imports(path, ast.parse(source)))
    assert found == [name]
    assert not allowed(path, name)


def calls(path: Path) -> Iterator[str]:
    """Yield the names of all functions called in a file: plain names and attributes."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call):
            function = node.func
            yield function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def test_attackers_touch_no_file_and_print_nothing() -> None:
    files = {"open", "print", "read_text", "write_text", "read_bytes", "write_bytes", "save"}
    system = {"os", "pathlib", "io", "sys", "logging", "shutil", "random"}
    found = {}
    for path in (ROOT / "attackers").rglob("*.py"):
        modules = {name.partition(".")[0] for name in imported(path)}
        found[dotted(path)] = files.intersection(calls(path)) | (system & modules)
    assert {module: names for module, names in found.items() if names} == {}


def test_only_the_command_line_prints() -> None:
    found = {}
    for path in MODULES:
        if CLI not in path.parents:
            names = {node.id for node in ast.walk(parsed(path)) if isinstance(node, ast.Name)}
            found[dotted(path)] = {"print", "typer"} & names | {"echo"}.intersection(calls(path))
    assert {module: names for module, names in found.items() if names} == {}


def test_modules_and_public_functions_say_what_they_do() -> None:
    undocumented = [
        f"{dotted(path)}.{getattr(node, 'name', '')}"
        for path in MODULES
        for node in (parsed(path), *parsed(path).body)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
        and not getattr(node, "name", "").startswith("_")
        and not ast.get_docstring(node)
    ]
    assert undocumented == []


def test_every_entry_is_documented() -> None:
    manual = "\n".join(
        file.read_text(encoding="utf-8")
        for file in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    )
    attacks = {name: entry.run for name, entry in ATTACKS.items()}
    for name, entry in {**attacks, **METRICS, **LOSSES}.items():
        assert (entry.__doc__ or "").strip(), name
    # The manual describes everything that a user can select by name.
    for name in (*ATTACKS, *METRICS):
        assert f"`{name}`" in manual, f"{name} is neither in README.md nor in docs/"


def test_registries_fit_together() -> None:
    for name, entry in ATTACKS.items():
        assert entry.name == name
        assert entry.metrics <= METRICS.keys()
    assert ITERATIVE.keys() == PLAIN_STEPS.keys() == METRICS.keys()
    for role in ("iterative", "plain"):
        answering = [m for e in ATTACKS.values() if getattr(e, role) for m in e.metrics]
        assert sorted(answering) == sorted(METRICS), "one attack for each metric"
    assert all(metric.name == name for name, metric in METRICS.items())
    assert all(metric.unit for metric in METRICS.values())


LONGEST_MODULE, LONGEST_FUNCTION, MOST_PARAMETERS = 300, 60, 8

SHARED_NAMES = {
    # The six functions of the Python API, and the commands that call them.
    *("scan", "harden", "train_attacker", "inspect", "compare"),
    # Every renderer is a module with this one function.
    "render",
}
"""Top-level names that more than one module may define: they stand for the same thing in each."""


def test_modules_are_short() -> None:
    long = {dotted(path): len(source_lines(path)) for path in MODULES}
    assert {name: lines for name, lines in long.items() if lines > LONGEST_MODULE} == {}


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef))


def code_lines(path: Path, function: ast.FunctionDef) -> int:
    """Count the lines of a function's body without docstring, comments and empty lines."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    if not body:
        return 0
    shown = source_lines(path)[body[0].lineno - 1 : body[-1].end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in shown)


def test_functions_are_short() -> None:
    long = {
        f"{dotted(path)}.{function.name}": lines
        for path in MODULES
        for function in functions(path)
        if (lines := code_lines(path, function)) > LONGEST_FUNCTION
    }
    assert long == {}


def parameters(function: ast.FunctionDef) -> int:
    """Count the parameters; hyperparameters, named and with a default, are not counted."""
    args = function.args
    named = [*args.posonlyargs, *args.args]
    required = sum(default is None for default in args.kw_defaults)
    return len([arg for arg in named if arg.arg not in ("self", "cls")]) + required


def test_functions_have_few_parameters() -> None:
    """Check all functions except those of the command line, which have one per option."""
    many = {
        f"{dotted(path)}.{function.name}": count
        for path in MODULES
        if CLI not in path.parents
        for function in functions(path)
        if (count := parameters(function)) > MOST_PARAMETERS
    }
    assert many == {}


def top_level_names(path: Path) -> Iterator[str]:
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (
                name.id
                for target in targets
                for name in ast.walk(target)
                if isinstance(name, ast.Name) and not name.id.startswith("__")
            )


def test_a_name_stands_for_one_thing() -> None:
    """Check all modules except those of operators, which are tables with a common form."""
    homes: dict[str, set[str]] = {}
    for path in MODULES:
        if path.parent.name != "operators":
            for name in top_level_names(path):
                homes.setdefault(name, set()).add(dotted(path))
    shared = {name: sorted(found) for name, found in homes.items() if len(found) > 1}
    assert {name: found for name, found in shared.items() if name not in SHARED_NAMES} == {}
    assert shared.keys() >= SHARED_NAMES, "a name that is no longer shared leaves the list"
