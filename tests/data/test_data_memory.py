"""Streaming: what opening and reading hold in memory does not grow with the pixels."""

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from audit.data import Dataset, open_data

FILES = 2000
ROWS = 8000

ARROW_PEAK = """
import sys
from pathlib import Path
import numpy, pyarrow
from audit.data import open_data
data = open_data(Path(sys.argv[1]), low=0.0, high=1.0)
assert len(data.read(numpy.array([7999, 3, 700]))) == 3
print(pyarrow.default_memory_pool().max_memory())
"""


def load(path: Path) -> Dataset:
    return open_data(path, low=0.0, high=1.0)


def measured(action: Callable[[], object]) -> tuple[Any, int, int]:
    """The result of an action, bytes that our own lines left behind, bytes at the peak."""
    tracemalloc.start()
    try:
        result = action()
        peak = tracemalloc.get_traced_memory()[1]
        ours = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/audit/*")])
    finally:
        tracemalloc.stop()
    return result, sum(line.size for line in ours.statistics("filename")), peak


def pictures(folder: Path, count: int) -> list[str]:
    """Tiny images of one content in class folders of 1000, under names of a usual length."""
    names = [f"n{k // 1000:08d}/ILSVRC2012_val_{k:08d}.png" for k in range(count)]
    first = folder / names[0]
    first.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(first)
    for name in names[1:]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).hardlink_to(first)
    return names


@pytest.mark.parametrize("kind", ["folder", "list"])
def test_fifty_thousand_files_need_a_few_megabytes(tmp_path: Path, kind: str) -> None:
    names = pictures(tmp_path / "all", FILES)
    pictures(tmp_path / "few", 2)
    path = tmp_path / "all"
    if kind == "list":
        path = path / "list.csv"
        path.write_text("file,label\n" + "".join(f"{name},7\n" for name in names))
    load(tmp_path / "few")  # imports Pillow's decoders
    load(path)
    # Python's table of interned strings may double, by megabytes that are not ours: not twice.
    _, _, first = measured(lambda: load(path))
    data, held, second = measured(lambda: load(path))
    peak = min(first, second)
    assert len(data) == FILES
    assert held / FILES < 250, "50,000 images: more than 12.5 MB kept"
    # A buffer for hashing does not grow with the files.
    assert (peak - 4_000_000) / FILES < 1000, "50,000 images: more than 54 MB at the peak"


@pytest.mark.parametrize("storage", ["images", "lists"])
def test_a_row_group_as_large_as_the_file_is_not_held(tmp_path: Path, storage: str) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (the extra [data])")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is built without parquet")
    rng = np.random.default_rng(0)
    path = tmp_path / "a.parquet"
    if storage == "images":
        # Noise behind the end of a small image: bytes that compress as badly as photographs.
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
        content = (tmp_path / "a.png").read_bytes()
        column = [content + rng.bytes(5000) for _ in range(ROWS)]
    else:
        column = list(rng.integers(0, 256, (ROWS, 5000), dtype=np.uint8))
    parquet.write_table(
        pyarrow.table({"image": column, "label": [0] * ROWS}), path, row_group_size=ROWS
    )
    del column
    size = path.stat().st_size
    assert parquet.read_metadata(path).num_row_groups == 1
    assert size > 38_000_000

    data, held, peak = measured(lambda: load(path))
    assert len(data) == ROWS
    assert held < 1_000_000
    assert peak < size / 4
    # A process of its own, since Arrow counts its peak from the start of the process. It is the
    # size of a batch and of a few pages (pyarrow writes up to 1024 rows into one), 16 MB here,
    # whatever the size of the file.
    found = subprocess.run(
        [sys.executable, "-c", ARROW_PEAK, str(path)], capture_output=True, text=True, check=True
    )
    assert 0 < int(found.stdout) < size / 2
