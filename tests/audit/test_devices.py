"""A scan on a device that is not the CPU: nothing mixes devices, and the numbers stay."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny convolutional network as ONNX, and samples that it classifies as labelled."""
    made = tmp_path_factory.mktemp("devices")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
        ).eval()
        x = torch.rand(24, 1, 8, 8)
    with torch.no_grad():
        np.savez(made / "data.npz", x=x.numpy(), y=network(x).argmax(1).numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no other package is to go
        torch.onnx.export(
            network, (x[:2],), made / "model.onnx", dynamo=False, input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
        )  # fmt: skip
    return made


def scanned(folder: Path, where: str, name: str) -> dict[str, Any]:
    """What a scan in a process of its own found: the simulated device patches torch."""
    words = [sys.executable, "-m", "tests.scan_on_device", str(folder), where, name]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path]))}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_default_scan_is_the_same_on_another_device(folder: Path) -> None:
    """Attacks, certificates and checks run there; results differ in the last digits at most."""
    ours, theirs = (scanned(folder, where, "default") for where in ("cpu", "sim"))
    assert (ours["device"], theirs["device"]) == ("cpu", "sim")
    assert ours["clean"] == theirs["clean"] == 1
    for entry, other in zip(ours["threats"], theirs["threats"], strict=True):
        assert entry["certifier"] == other["certifier"] == ["crown", "ran"]
        assert set(other["attacks"].values()) == {"ran"}
        assert entry["attacks"] == other["attacks"]
        assert min(other["certified"]) > 0
        assert other["certified"] == pytest.approx(entry["certified"], rel=1e-3)
        assert other["attacked"] == pytest.approx(entry["attacked"], rel=1e-2)
    assert "fail" not in theirs["health"].values()
