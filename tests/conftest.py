"""Settings shared by all tests: repeatable examples, and the folder of real data if present."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# These are read when torch first computes; see `audit.cli.SPIN_COUNT` and `audit.models.execution`.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
os.environ.setdefault("MKL_CBWR", "AUTO")

ROOT = Path(__file__).resolve().parents[1]

# Every run uses the same examples, so that failures are reproducible.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

SLOW = (
    "attackers/test_attacks.py",
    "attackers/test_coupling.py",
    "attackers/test_geometry.py",
    "attackers/test_hopskipjump.py",
    "attackers/test_sinkhorn.py",
    "attackers/test_square.py",
    "attackers/test_transport.py",
    "attackers/test_wagan_training.py",
    "attackers/test_wasserstein.py",
    "audit/test_crown.py",
    "audit/test_devices.py",
    "audit/test_distributional.py",
    "audit/test_effort.py",
    "audit/test_hardening.py",
    "audit/test_health_active.py",
    "audit/test_health_samples.py",
    "audit/test_precision.py",
    "audit/test_readings.py",
    "audit/test_scan_outcome.py",
    "audit/test_sensitivity.py",
    "audit/test_simplex.py",
    "audit/test_smoothed.py",
    "audit/test_smoothing.py",
    "audit/test_soft.py",
    "audit/test_unfinished.py",
    "audit/test_value.py",
    "audit/test_wasserstein_scan.py",
    "cli/test_bad_input.py",
    "cli/test_determinism.py",
    "cli/test_encodings.py",
    "cli/test_gates.py",
    "cli/test_harden.py",
    "cli/test_scan.py",
    "cli/test_settings.py",
    "cli/test_shared_models.py",
    "cli/test_smooth.py",
    "cli/test_train_attacker.py",
    "cli/test_wasserstein_threat.py",
    "data/test_data_memory.py",
    "data/test_data_tables.py",
    "models/onnx/test_backend_suite.py",
    "models/onnx/test_wrong_shapes.py",
    "models/onnx/test_zoo.py",
    "models/test_inputs.py",
    "models/test_inspect.py",
    "models/test_one_column.py",
    "models/test_safe_loading.py",
    "models/test_score_only.py",
    "models/test_torch_archives.py",
    "reports/test_not_measured.py",
    "reports/test_report_browser.py",
    "reports/test_report_html.py",
    "reports/test_report_renderers.py",
    "reports/test_report_terminal.py",
    "test_pipelines.py",
    "test_readme.py",
)
"""Files that take about 2 seconds or more of processor time; `make check` leaves them out.

All other files, new ones included, are part of the quick selection. Measured on one core of a
server: the files listed take about 25 minutes together, all others about 20 seconds.
"""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip the import of slow files where they are deselected."""
    if config.getoption("markexpr") == "not slow" and is_slow(collection_path):
        return True
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow files."""
    for item in items:
        if is_slow(item.path):
            item.add_marker("slow")


def is_slow(path: Path) -> bool:
    """Return whether a test file is listed in `SLOW`."""
    tests = ROOT / "tests"
    return path.is_relative_to(tests) and path.relative_to(tests).as_posix() in SLOW


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of oracles, real models and real data next to the repository."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the folder ../shared does not exist next to this repository")
    return folder
