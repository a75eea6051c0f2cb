"""The allocator's settings are taken where there is such an allocator."""

import platform
import subprocess
import sys

import pytest

from audit.runtime.memory import keep_freed_pages


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_glibc_takes_them() -> None:
    # In a process of its own: the settings last for its lifetime.
    code = "from audit.runtime.memory import keep_freed_pages; print(keep_freed_pages())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_pages() is False
