"""Real data sets load, where the folder that holds them is present beside the repository."""

from pathlib import Path

import numpy as np
import pytest

from audit.data import check_labels, open_data

REAL = Path(__file__).parents[3] / "shared" / "data"

pytestmark = pytest.mark.skipif(
    not REAL.is_dir(), reason="the folder ../shared/data with real data is not present"
)


def test_mnist() -> None:
    data = open_data(REAL / "mnist" / "t10k-images-idx3-ubyte.gz", low=0.0, high=1.0)
    assert len(data) == 10_000
    assert data.shape == (1, 28, 28)
    assert data.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    # The mean of the test set, as commonly published: 0.1325.
    assert data.read(np.arange(len(data))).mean() == pytest.approx(0.1325, abs=1e-3)
    check_labels(data, 10)


def test_cifar() -> None:
    data = open_data(REAL / "cifar10" / "cifar10_test_first2000.bin", low=0.0, high=255.0)
    assert len(data) == 2000
    assert data.shape == (3, 32, 32)
    assert data.labels[:5].tolist() == [3, 8, 8, 0, 6]
    assert 110 < data.read(np.arange(500)).mean() < 130
    check_labels(data, 10)


def test_imagenet_list() -> None:
    data = open_data(REAL / "imagenet" / "labels.csv", low=0.0, high=1.0, resize=(224, 224))
    assert len(data) == 84
    assert data.class_names is not None
    assert data.class_names[0] == "tench"
    assert "2 of 84 images are greyscale; repeated to 3 channels." in data.notes
    rows = np.array([0, 40, 83])
    assert data.read(rows).shape == (3, 3, 224, 224)
    check_labels(data, 1000)
