"""What every test shares: repeatable examples, and the folder of real data where there is one."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Read when torch first works; see `audit.cli.SPIN_COUNT` and `audit.models.execution`.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
os.environ.setdefault("MKL_CBWR", "AUTO")

ROOT = Path(__file__).resolve().parents[1]

# The same examples on every run: a failure seen once is seen again.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Oracles, real models and real data, beside the repository."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the folder ../shared is not beside this repository")
    return folder
