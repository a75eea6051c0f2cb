"""Data as tables: parquet files and shards, Hugging Face repositories and saved datasets."""

import contextlib
import hashlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from audit.data import Dataset, image_rows, open_data
from audit.data.dataset import Options
from audit.data.parquet import parquet_table
from audit.data.table_data import open_table
from audit.errors import DataError, NothingToEvaluate

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (the extra [data])")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is built without parquet")

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (7, 5, 4, 3), dtype=np.uint8)
LABELS = [2, 0, 1, 1, 2, 0, 0]
NAMES = ["zebra", "ant", "bee"]


def load(path: Path, **options: object) -> Dataset:
    return open_data(path, low=0.0, high=1.0, **options)  # type: ignore[arg-type]


def all_of(data: Dataset) -> np.ndarray:
    return data.read(np.arange(len(data)))


def unit(array: np.ndarray) -> np.ndarray:
    """Channels-last pixels as the samples they should become."""
    return np.moveaxis(array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max), -1, -3)


def stated(data: Dataset, text: str) -> bool:
    return any(text in note for note in data.notes)


def png(array: np.ndarray, suffix: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, suffix)
    return stream.getvalue()


def as_bytes(pixels: np.ndarray) -> Any:
    return pyarrow.array([png(image) for image in pixels], pyarrow.binary())


def as_structs(pixels: np.ndarray) -> Any:
    cells = [{"bytes": png(image), "path": f"{k}.png"} for k, image in enumerate(pixels)]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    return pyarrow.array(cells, kind)


def as_nested(pixels: np.ndarray) -> Any:
    kind = pyarrow.uint8()
    for _ in range(pixels.ndim - 1):
        kind = pyarrow.list_(kind)
    return pyarrow.array(pixels.tolist(), kind)


def as_wide(pixels: np.ndarray) -> Any:
    return pyarrow.array(pixels.tolist())


def as_fixed(pixels: np.ndarray) -> Any:
    values = pyarrow.array(pixels.reshape(-1))
    for length in reversed(pixels.shape[1:]):
        values = pyarrow.FixedSizeListArray.from_arrays(values, length)
    return values


def as_tensors(pixels: np.ndarray) -> Any:
    return pyarrow.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(pixels))


STORAGE = [as_bytes, as_structs, as_nested, as_wide, as_fixed, as_tensors]
by_storage = pytest.mark.parametrize("storage", STORAGE, ids=lambda f: f.__name__)


def table_of(image: Any, label: Any = None, *, names: tuple[str, str] = ("image", "label")) -> Any:
    label = LABELS[: len(image)] if label is None else label
    return pyarrow.table({names[0]: image, names[1]: label})


def class_labels(table: Any, names: list[str] = NAMES) -> Any:
    """The table with the metadata that Hugging Face writes."""
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    info = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": info})


def write(path: Path, table: Any, rows: int = 3) -> Path:
    """A parquet file in row groups of that many rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=rows)
    return path


def save(folder: Path, table: Any, files: int = 2, rows: int = 2, **state: object) -> Path:
    """What ``save_to_disk`` writes: Arrow streams in small batches, and two JSONs."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{k:05d}-of-{files:05d}.arrow" for k in range(files)]
    length = -(-len(table) // files)
    for k, name in enumerate(names):
        with (
            pyarrow.OSFile(str(folder / name), "wb") as sink,
            pyarrow.ipc.new_stream(sink, table.schema) as stream,
        ):
            stream.write_table(table.slice(k * length, length), max_chunksize=rows)
    metadata = (table.schema.metadata or {}).get(b"huggingface", b'{"info": {}}')
    (folder / "dataset_info.json").write_text(json.dumps(json.loads(metadata)["info"]))
    listed = {"_data_files": [{"filename": name} for name in names], **state}
    (folder / "state.json").write_text(json.dumps(listed))
    return folder


WRITERS: list[Callable[[Path, Any], Path]] = [
    lambda folder, table: write(folder / "data.parquet", table),
    lambda folder, table: save(folder / "saved", table),
]
by_writer = pytest.mark.parametrize("writer", WRITERS, ids=["parquet", "saved"])


# Round trips and laws


@by_writer
@by_storage
def test_round_trip(tmp_path: Path, writer: Any, storage: Any) -> None:
    data = load(writer(tmp_path, table_of(storage(PIXELS))))
    assert data.shape == (3, 5, 4)
    assert data.labels.tolist() == LABELS
    assert np.array_equal(all_of(data), unit(PIXELS))
    assert data.class_names is None


@by_writer
@by_storage
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(rows=st.lists(st.integers(0, 6), max_size=12))
def test_reading_rows_is_reading_all_and_choosing(
    tmp_path: Path, writer: Any, storage: Any, rows: list[int]
) -> None:
    data = load(writer(tmp_path, table_of(storage(PIXELS))))
    for indices in (rows, rows[::-1], sorted(rows)):  # one after the other, with one cursor
        wanted = np.array(indices, dtype=np.int64)
        assert np.array_equal(data.read(wanted), unit(PIXELS)[wanted])


def test_rows_far_apart_in_one_row_group(tmp_path: Path) -> None:
    x = RNG.integers(0, 256, (100, 6), dtype=np.uint8)
    data = load(write(tmp_path / "a.parquet", table_of(as_fixed(x), [0] * 100), rows=100))
    for rows in ([99], [0], [31, 32, 64], [98, 3], []):
        expected = x[rows].astype(np.float32) / np.float32(255)
        assert np.array_equal(data.read(np.array(rows, dtype=int)), expected)


def test_a_read_that_failed_does_not_spoil_the_next(tmp_path: Path) -> None:
    x = RNG.integers(0, 256, (100, 6), dtype=np.uint8)
    path = write(tmp_path / "a.parquet", table_of(as_fixed(x), [0] * 100), rows=100)
    data = load(path)
    data.read(np.array([40]))
    content = path.read_bytes()
    write(path, table_of(as_fixed(x[:2]), [0, 0]))
    with pytest.raises(DataError, match=r"a.parquet (is not a readable|has changed)"):
        data.read(np.array([0]))
    path.write_bytes(content)
    assert np.array_equal(data.read(np.array([70]))[0], x[70] / np.float32(255))


@by_storage
def test_only_the_rows_asked_for_are_decoded(
    tmp_path: Path, storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    original = image_rows.decode

    def spy(source: object, *arguments: Any) -> np.ndarray:
        decoded.append(str(source).rpartition(" ")[2])
        return original(source, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(image_rows, "decode", spy)
    data = load(write(tmp_path / "a.parquet", table_of(storage(PIXELS))))
    assert decoded == []
    data.read(np.array([5, 2]))
    assert decoded == (["2", "5"] if storage in (as_bytes, as_structs) else [])


@by_writer
def test_large_offsets_and_dictionaries(tmp_path: Path, writer: Any) -> None:
    image = as_bytes(PIXELS).cast(pyarrow.large_binary())
    label = pyarrow.array([NAMES[k] for k in LABELS]).dictionary_encode()
    data = load(writer(tmp_path, table_of(image, label)))
    assert np.array_equal(all_of(data), unit(PIXELS))
    assert data.class_names == ("ant", "bee", "zebra")


def test_flat_and_float_lists(tmp_path: Path) -> None:
    x = RNG.random((7, 12), dtype=np.float32)
    data = load(write(tmp_path / "a.parquet", table_of(pyarrow.array(list(x)))))
    assert data.shape == (12,)
    assert np.array_equal(all_of(data), x)
    grey = load(write(tmp_path / "b.parquet", table_of(as_nested(PIXELS[..., 0]))), channels=3)
    assert grey.shape == (3, 5, 4)
    assert np.array_equal(all_of(grey)[:, 1], PIXELS[..., 0] / np.float32(255))
    assert stated(grey, "(N, H, W)")
    assert stated(grey, "repeated to 3 channels")


def test_digest_is_that_of_the_file_or_of_names_and_bytes(tmp_path: Path) -> None:
    table = table_of(as_bytes(PIXELS))
    path = write(tmp_path / "a" / "x.parquet", table)
    assert load(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    of_folder = load(tmp_path / "a").sha256
    path.rename(path.with_name("y.parquet"))
    assert load(tmp_path / "a").sha256 != of_folder
    saved = save(tmp_path / "s", class_labels(table))
    before = load(saved).sha256
    save(tmp_path / "s", class_labels(table, ["b", "a", "c"]))
    assert load(saved).sha256 != before


# Images: sizes, channels, depth


@by_writer
@pytest.mark.parametrize("pack", [png, lambda a: png(a, "jpeg")], ids=["png", "jpeg"])
def test_mixed_sizes_need_resize(tmp_path: Path, writer: Any, pack: Any) -> None:
    sizes = [(8, 8), (8, 8), (16, 12), (9, 30)]
    cells = [pack(np.full((*size, 3), 60 * k, np.uint8)) for k, size in enumerate(sizes)]
    path = writer(tmp_path, table_of(pyarrow.array(cells)))
    with pytest.raises(DataError, match=r"row 0 is 8x8, row 2 is 16x12 .*Pass --resize HxW"):
        load(path)
    data = load(path, resize=(8, 8))
    assert data.shape == (3, 8, 8)
    assert np.abs(all_of(data).mean(axis=(1, 2, 3)) * 255 - [0, 60, 120, 180]).max() < 2
    assert stated(data, "2 of 4 images were resized")


@by_writer
def test_channels_are_converted_and_stated(tmp_path: Path, writer: Any) -> None:
    cells = [png(PIXELS[0]), png(PIXELS[1][..., 0]), png(np.dstack([PIXELS[2], PIXELS[2][..., 0]]))]
    path = writer(tmp_path, table_of(pyarrow.array(cells)))
    data = load(path)
    assert np.array_equal(all_of(data)[1, 2], PIXELS[1][..., 0] / np.float32(255))
    assert stated(data, "1 of 3 images are greyscale; repeated to 3 channels.")
    assert stated(data, "1 of 3 images have transparency; it was dropped.")
    grey = load(path, channels=1)
    luma = PIXELS[0] @ np.array([0.299, 0.587, 0.114]) / 255
    assert np.abs(all_of(grey)[0, 0] - luma).max() <= 1 / 255
    assert stated(grey, "2 of 3 images are in colour; converted to greyscale")


@by_writer
def test_sixteen_bit_images_keep_their_precision(tmp_path: Path, writer: Any) -> None:
    deep = RNG.integers(0, 65536, (3, 5, 4), dtype=np.uint16)
    data = load(writer(tmp_path, table_of(pyarrow.array([png(image) for image in deep]))))
    assert data.shape == (1, 5, 4)
    assert np.array_equal(all_of(data)[:, 0], deep / np.float32(65535))
    assert stated(data, "3 of 3 images have 16 bits per pixel; 65535 is mapped to high.")


def test_sixteen_bit_lists(tmp_path: Path) -> None:
    deep = RNG.integers(0, 65536, (3, 5, 4), dtype=np.uint16)
    data = load(write(tmp_path / "a.parquet", table_of(as_fixed(deep))))
    assert np.array_equal(all_of(data)[:, 0], deep / np.float32(65535))


def test_wide_integers_are_bytes_only_where_all_of_them_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    data = load(write(path, table_of(as_wide(PIXELS))))
    assert stated(data, "Values are int64, all in 0..255; read as uint8")
    for change in (256, -1):
        wrong = PIXELS.astype(np.int64)
        wrong[6, 4, 3, 2] = change
        with pytest.raises(DataError, match=r"column 'image' has type int64.*store uint8"):
            load(write(path, table_of(as_wide(wrong))))
    with pytest.raises(DataError, match=r"type int64"):  # 0 and 1: black and white, or 1 of 255?
        load(write(path, table_of(as_wide(PIXELS % 2))))


# Columns


@pytest.mark.parametrize(
    "names", [("img", "fine_label"), ("x", "y"), ("pixel_values", "labels"), ("Image", "Target")]
)
def test_other_column_names_are_stated(tmp_path: Path, names: tuple[str, str]) -> None:
    table = table_of(as_bytes(PIXELS), names=names)
    table = table.append_column("coarse_label", [[9] * 7])
    data = load(write(tmp_path / "a.parquet", table))
    assert data.labels.tolist() == LABELS
    assert stated(data, f"Samples are the column '{names[0]}', labels the column '{names[1]}'.")


def test_columns_by_their_feature(tmp_path: Path) -> None:
    features = {"photo": {"_type": "Image"}, "kind": {"names": NAMES, "_type": "ClassLabel"}}
    table = table_of(as_bytes(PIXELS), names=("photo", "kind"))
    info = json.dumps({"info": {"features": features}})
    data = load(write(tmp_path / "a.parquet", table.replace_schema_metadata({"huggingface": info})))
    assert data.class_names == tuple(NAMES)
    assert stated(data, "Samples are the column 'photo', labels the column 'kind'.")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("photo", "label"), "no column of samples. Found label, photo; expected 'image'"),
        (("image", "kind"), "no column of labels. Found image, kind; expected 'label'"),
    ],
)
def test_missing_columns(tmp_path: Path, names: tuple[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write(tmp_path / "a.parquet", table_of(as_bytes(PIXELS), names=names)))


@by_writer
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (lambda: ["a.png", "b.png"], "has type string; expected encoded images .* or lists of num"),
        (lambda: [[b"a"], [b"b"]], "expected encoded images"),
        (lambda: [1, 2], "has type int64; expected encoded images"),
        (lambda: [{"file": "a"}, {"file": "b"}], "expected encoded images"),
        (lambda: [png(PIXELS[0]), None], "row 1: column 'image' is empty; remove that row"),
        (lambda: [png(PIXELS[0]), b"no image"], "row 1 is not a readable image"),
        (lambda: [[1, 2], None], "row 1: column 'image' has an empty value"),
        (lambda: [[[1, 2]], [[3, None]]], "row 1: column 'image' has an empty value"),
        (lambda: [[[1], [2]], [[3], None]], "row 1: column 'image' has an empty value"),
        (lambda: [[[1, 2]], [None]], "row 1: column 'image' has an empty value"),
        (lambda: [[1, 2], [1, 2, 3]], "row 1: column 'image' has lists of length 3, before it 2"),
        (lambda: [[[1], [2]], [[3], [4, 5]]], "row 1: column 'image' has lists of length 2x2, .*1"),
        (lambda: [[[1]], [[3], [4]]], "lists must have one shape for all rows.*mixed sizes"),
        (lambda: [np.zeros(0, np.uint8)] * 2, "contains empty lists"),
        (
            lambda: [{"bytes": None, "path": "/a/b.png"}] * 2,
            "row 0: .* the path /a/b.png, which is",
        ),
    ],
)
def test_images_that_are_none(tmp_path: Path, writer: Any, image: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(writer(tmp_path, table_of(pyarrow.array(image()), [0, 1])))


def test_shapes_that_change_between_pieces(tmp_path: Path) -> None:
    lists = pyarrow.array([[1.0, 0.5]] * 40 + [[0.25]] * 40)
    with pytest.raises(DataError, match=r"row 4\d: column 'image' has lists of length 1, before"):
        load(write(tmp_path / "a.parquet", table_of(lists, [0] * 80), rows=45))


def test_values_outside_the_box_name_the_row(tmp_path: Path) -> None:
    lists = pyarrow.array([[0.0, 0.5], [0.0, 200.0]])
    with pytest.raises(DataError, match=r"row 1 contains 200, .*pass --low 0 --high 255"):
        all_of(load(write(tmp_path / "a.parquet", table_of(lists))))


# Labels


@by_writer
def test_class_label_names(tmp_path: Path, writer: Any) -> None:
    data = load(writer(tmp_path, class_labels(table_of(as_structs(PIXELS)))))
    assert data.class_names == tuple(NAMES)
    assert data.labels.tolist() == LABELS
    assert data.notes == ()


@by_writer
def test_labels_by_name(tmp_path: Path, writer: Any) -> None:
    names = [NAMES[k] for k in LABELS]
    data = load(writer(tmp_path, table_of(as_bytes(PIXELS), names)))
    assert data.class_names == ("ant", "bee", "zebra")
    assert [data.class_names[k] for k in data.labels] == names
    assert stated(data, "classes are the 3 names in sorted order: 0 ant, 1 bee, 2 zebra.")


@pytest.mark.parametrize("kind", ["int8", "uint64", "float64", "string"])
def test_labels_by_index(tmp_path: Path, kind: str) -> None:
    labels = pyarrow.array([str(k) for k in LABELS]) if kind == "string" else np.array(LABELS, kind)
    data = load(write(tmp_path / "a.parquet", table_of(as_bytes(PIXELS), labels)))
    assert data.labels.tolist() == LABELS
    assert data.class_names is None


@by_writer
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, None, 1], "column 'label' is empty in row 1"),
        ([0, 1, 0.5], r"label 0\.5 in row 2 is not an integer"),
        (["ant", "bee", "3"], "row 0: label 'ant' is not an integer"),
        (["1", "2", "3.5"], r"row 2: label '3\.5' is not an integer"),
        ([[0], [1], [2]], "has type list<.*Several labels per sample are not supported"),
    ],
)
def test_wrong_labels(tmp_path: Path, writer: Any, labels: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(writer(tmp_path, table_of(as_bytes(PIXELS[:3]), pyarrow.array(labels))))


@by_writer
def test_no_rows(tmp_path: Path, writer: Any) -> None:
    with pytest.raises(NothingToEvaluate, match=r"holds no samples"):
        load(writer(tmp_path, table_of(as_bytes(PIXELS)).slice(0, 0)))


# Folders of parquet


def shards(folder: Path, split: str, count: int = 2, missing: tuple[int, ...] = ()) -> None:
    table = table_of(as_bytes(PIXELS))
    length = -(-len(table) // count)
    for k in range(count):
        if k not in missing:
            part = table.slice(k * length, length)
            write(folder / f"{split}-{k:05d}-of-{count:05d}.parquet", part)


def test_shards_are_one_table_in_natural_order(tmp_path: Path) -> None:
    for k in range(7):
        part = table_of(as_bytes(PIXELS)).slice(k, 1)
        write(tmp_path / f"part{k + 6}.parquet", part)
    data = load(tmp_path)
    assert np.array_equal(all_of(data), unit(PIXELS))
    assert data.notes == ("Read from 7 parquet files.",)


@pytest.mark.parametrize("folder", ["data", "plain_text", "."])
def test_repositories_give_their_test_split(tmp_path: Path, folder: str) -> None:
    shards(tmp_path / folder, "train", 3)
    shards(tmp_path / folder, "test")
    (tmp_path / "README.md").write_text("---\n---\n")
    shards(tmp_path / ".cache", "test")
    data = load(tmp_path)
    assert np.array_equal(all_of(data), unit(PIXELS))
    assert stated(data, "The split test is used (found: test, train). Read from 2 parquet files.")


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_without_a_test_split_validation_is_taken(tmp_path: Path, name: str) -> None:
    shards(tmp_path / "data", "train")
    shards(tmp_path / "data", name, 1)
    assert stated(load(tmp_path), f"The split {name} is used")


def test_split_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / "default" / split / "0000.parquet", table_of(as_bytes(PIXELS)))
    assert stated(load(tmp_path), "The split test is used")


def test_a_split_is_named_by_the_common_name_of_its_shards(tmp_path: Path) -> None:
    shards(tmp_path / "data", "train", 3)
    with pytest.raises(DataError, match=r"found train; name the one .*--data .*data/train\.") as e:
        load(tmp_path)
    named = Path(str(e.value).rpartition("--data ")[2].removesuffix("."))
    assert np.array_equal(all_of(load(named)), unit(PIXELS))
    alone = load(tmp_path / "data" / "train-00001-of-00003.parquet")
    assert np.array_equal(all_of(alone), unit(PIXELS)[3:6])


def test_several_tables_are_named(tmp_path: Path) -> None:
    shards(tmp_path / "small", "test")
    shards(tmp_path / "large", "test")
    with pytest.raises(DataError, match=r"several tables: large, small; pass one of these"):
        load(tmp_path)
    shards(tmp_path / "one", "test")
    shards(tmp_path / "one", "my-test", 3)
    with pytest.raises(DataError, match=r"mixes shards of several tables: my-test-00000"):
        load(tmp_path / "one")


def test_missing_shards_are_noticed(tmp_path: Path) -> None:
    shards(tmp_path, "test", 3, missing=(1,))
    message = r"2 files for the 3 shards of test: expected test-00001-of-00003"
    with pytest.raises(DataError, match=message):
        load(tmp_path)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "test")


def test_shards_of_different_types(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", table_of(as_bytes(PIXELS)))
    write(tmp_path / "b.parquet", table_of(as_bytes(PIXELS), [NAMES[k] for k in LABELS]))
    with pytest.raises(DataError, match=r"'label' is int64 in .*a.parquet but string in .*b.par"):
        load(tmp_path)
    write(tmp_path / "b.parquet", pyarrow.table({"other": [1]}))
    with pytest.raises(DataError, match=r"no column in common"):
        load(tmp_path)


# Damage


@pytest.mark.parametrize("keep", [4, 0.5, 0.95])
def test_truncated_parquet(tmp_path: Path, keep: float) -> None:
    path = write(tmp_path / "a.parquet", table_of(as_bytes(PIXELS)))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(DataError, match=r"a.parquet is not a readable parquet file"):
        load(path)


def test_damaged_parquet_is_never_a_traceback(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", table_of(as_nested(PIXELS)))
    content = path.read_bytes()
    for position in RNG.integers(4, len(content), 60):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        # Undamaged where it matters, or refused in our words; nothing else may come out.
        with contextlib.suppress(DataError, NothingToEvaluate):
            all_of(load(path))


def test_rows_that_are_only_claimed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", table_of(as_bytes(PIXELS)))
    table = parquet_table(path, [path], ())
    more = tuple(replace(part, rows=10**15) for part in table.parts)
    with pytest.raises(DataError, match=r"claims 3000000000000000 rows but has 7 labels"):
        open_table(replace(table, parts=more), Options(0.0, 1.0))
    # As many in all, but not where they are said to be.
    other = tuple(
        replace(part, rows=rows) for part, rows in zip(table.parts, (4, 2, 1), strict=True)
    )
    with pytest.raises(DataError, match=r"a.parquet has changed since it was opened"):
        open_table(replace(table, parts=other), Options(0.0, 1.0))


@pytest.mark.parametrize("keep", [0, 4, 0.3, 0.6])
def test_truncated_arrow(tmp_path: Path, keep: float) -> None:
    folder = save(tmp_path / "s", table_of(as_bytes(PIXELS)), files=1)
    path = folder / "data-00000-of-00001.arrow"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(DataError, match=r"arrow is not a readable Arrow file"):
        load(folder)


def test_offsets_that_leave_the_file(tmp_path: Path) -> None:
    table = table_of(as_bytes(PIXELS))
    folder = save(tmp_path / "s", table, files=1, rows=7)
    path = folder / "data-00000-of-00001.arrow"
    offsets = np.frombuffer(table["image"].chunk(0).buffers()[1], dtype=np.int32)[:8]
    content = path.read_bytes()
    assert content.count(offsets.tobytes()) == 1
    wrong = offsets.copy()
    wrong[3] = 1 << 30
    path.write_bytes(content.replace(offsets.tobytes(), wrong.tobytes()))
    with pytest.raises(DataError, match=r"is not a readable Arrow file"):
        load(folder)


def test_text_that_is_no_text(tmp_path: Path) -> None:
    folder = save(tmp_path / "s", table_of(as_bytes(PIXELS)), files=1)
    path = folder / "data-00000-of-00001.arrow"
    path.write_bytes(path.read_bytes().replace(b"image", b"im\xffge"))
    with pytest.raises(DataError, match=r"holds text that is not UTF-8"):
        load(folder)


# Saved datasets


def test_dictionaries_of_datasets_name_their_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save(tmp_path / split, table_of(as_bytes(PIXELS)))
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test", "gone"]}))
    with pytest.raises(DataError, match=r"with the splits train, test; .* --data .*test\.$"):
        load(tmp_path)
    assert len(load(tmp_path / "test")) == 7
    (tmp_path / "dataset_dict.json").write_text("{}")
    with pytest.raises(DataError, match=r"contains none of its splits"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"_indices_data_files": [{"filename": "i.arrow"}]}, "table of indices.*flatten_indices"),
        ({"_data_files": None}, "does not list the data files"),
        ({"_data_files": []}, "lists no data files"),
        ({"_data_files": [{"filename": "gone.arrow"}]}, "lists gone.arrow, which is not a file in"),
        ({"_data_files": [{"filename": "../x.arrow"}]}, r"lists \.\./x.arrow, which is not a file"),
    ],
)
def test_states_that_are_wrong(tmp_path: Path, state: dict, message: str) -> None:
    (tmp_path / "x.arrow").write_bytes(b"outside")
    with pytest.raises(DataError, match=message):
        load(save(tmp_path / "s", table_of(as_bytes(PIXELS)), **state))


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is damaged"), ("[]", "JSON object"), ("[" * 9**5, "damaged")]
)
def test_a_state_that_is_no_json(tmp_path: Path, text: str, message: str) -> None:
    folder = save(tmp_path / "s", table_of(as_bytes(PIXELS)))
    (folder / "state.json").write_text(text)
    with pytest.raises(DataError, match=message):
        load(folder)


def test_metadata_that_is_odd_is_ignored(tmp_path: Path) -> None:
    table = table_of(as_bytes(PIXELS))
    for info in ("{", "[]", '{"info": 1}', '{"info": {"features": [1]}}', '{"info": {}}'):
        path = tmp_path / "a.parquet"
        data = load(write(path, table.replace_schema_metadata({"huggingface": info})))
        assert data.class_names is None


# Without pyarrow


@by_writer
def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, writer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = writer(tmp_path, table_of(as_bytes(PIXELS)))
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match=r"pip install 'wasserstein-audit\[data\]'"):
        load(path)
