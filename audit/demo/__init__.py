"""The model and data that `audit demo` scans; where they come from stands in README.md here."""

from importlib import resources
from pathlib import Path


def model_path() -> Path:
    """The shipped Fashion-MNIST classifier, an ONNX file."""
    return _shipped("fashion_cnn.onnx")


def data_path() -> Path:
    """The shipped 1,000 test images with labels, an ``.npz`` file."""
    return _shipped("fashion_test_1000.npz")


def _shipped(name: str) -> Path:
    """Path of a file in this package; packages are installed as folders, so it is a real file."""
    return Path(str(resources.files(__name__) / name))
