"""Data in one file: npz, IDX, CIFAR binary. Round trips, and every way such a file can be wrong."""

import gzip
import hashlib
import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from audit.data import Dataset, open_data
from audit.errors import DataError, NothingToEvaluate

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8)
LABELS = np.array([3, 1, 0, 2, 2, 9])
IDX_CODE = {"uint8": 0x08, "int8": 0x09, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def load(path: Path, **options: object) -> Dataset:
    return open_data(path, low=0.0, high=1.0, **options)  # type: ignore[arg-type]


def all_of(data: Dataset) -> np.ndarray:
    return data.read(np.arange(len(data)))


def idx_bytes(array: np.ndarray, kind: str = "uint8") -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, IDX_CODE[kind], array.ndim, *array.shape)
    return header + array.astype(kind).tobytes()


def write_idx(folder: Path, images: bytes, labels: bytes, *, suffix: str = "") -> Path:
    pack = gzip.compress if suffix else bytes
    (folder / f"t-labels-idx1-ubyte{suffix}").write_bytes(pack(labels))
    path = folder / f"t-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(images))
    return path


def write_npz(folder: Path, **arrays: object) -> Path:
    path = folder / "data.npz"
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


# npz


def test_npz_round_trip(tmp_path: Path) -> None:
    path = write_npz(tmp_path, x=IMAGES, y=LABELS)
    data = load(path)
    assert data.path == str(path)
    assert len(data) == 6
    assert data.shape == (1, 5, 4)
    assert np.array_equal(data.labels, LABELS)
    assert np.array_equal(all_of(data)[:, 0], IMAGES.astype(np.float32) / np.float32(255))
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert data.class_names is None
    assert any("(N, H, W)" in note for note in data.notes)


@pytest.mark.parametrize(
    "names", [("images", "labels"), ("x_test", "y_test"), ("test_images", "test_labels")]
)
def test_npz_aliases_are_stated(tmp_path: Path, names: tuple[str, str]) -> None:
    train = {"x_train": IMAGES[:1], "y_train": LABELS[:1]}
    path = write_npz(tmp_path, **{names[0]: IMAGES, names[1]: LABELS}, **train)
    data = load(path)
    assert len(data) == 6
    assert f"Samples are the array '{names[0]}', labels the array '{names[1]}'." in data.notes


def test_npz_prefers_x_and_y(tmp_path: Path) -> None:
    data = load(write_npz(tmp_path, x=IMAGES, y=LABELS, images=IMAGES[:1], labels=LABELS[:1]))
    assert len(data) == 6


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("images", "x_test", "y"), r"several arrays could be the samples: \['images', 'x_test'\]"),
        (("images", "labels", "targets"), "several arrays could be the labels"),
        (("pixels", "y"), r"no array of samples. Found \['pixels', 'y'\]; expected 'x'"),
        (("x", "z"), "no array of labels.*expected 'y'"),
    ],
)
def test_npz_arrays_that_cannot_be_told_apart(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load(write_npz(tmp_path, **dict.fromkeys(names, IMAGES)))


def test_npz_channels_last_becomes_channels_first(tmp_path: Path) -> None:
    x = RNG.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    data = load(write_npz(tmp_path, x=x, y=LABELS))
    assert data.shape == (3, 5, 4)
    assert np.array_equal(all_of(data), x.transpose(0, 3, 1, 2) / np.float32(255))
    assert any("(N, H, W, C)" in note for note in data.notes)


@pytest.mark.parametrize("shape", [(6, 3, 5, 4), (6, 3, 5, 3), (6, 12), (6, 2, 3, 4, 5)])
def test_npz_other_shapes_stay(tmp_path: Path, shape: tuple[int, ...]) -> None:
    data = load(write_npz(tmp_path, x=np.zeros(shape, np.uint8), y=LABELS))
    assert data.shape == shape[1:]
    assert data.notes == ()


def test_npz_column_of_float_labels(tmp_path: Path) -> None:
    data = load(write_npz(tmp_path, x=IMAGES, y=LABELS[:, None].astype(np.float32)))
    assert np.array_equal(data.labels, LABELS)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (LABELS + 0.5, r"label 3\.5 in row 0 is not an integer"),
        (np.array([0, 1, np.nan, 0, 0, 0]), "label nan in row 2 is not an integer"),
        (np.eye(6), r"shape \(6, 6\).*argmax"),
        (np.array(list("abcdef")), "labels must be integers"),
        (np.full(6, 2**64 - 1, np.uint64), "is not a class index"),
        (np.full(6, 1e18), "is not an integer"),
        (LABELS[:5], "6 samples but 5 labels"),
        (np.append(LABELS, 0), "6 samples but 7 labels"),
    ],
)
def test_npz_wrong_labels(tmp_path: Path, y: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write_npz(tmp_path, x=IMAGES, y=y))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (IMAGES.astype(np.int64), "type int64.*store uint8"),
        (IMAGES.astype(np.complex64), "type complex64"),
        (np.zeros(6), r"shape \(6,\); expected \(N, ...\)"),
        (np.zeros((6, 0, 3)), "samples of at least one value"),
    ],
)
def test_npz_wrong_samples(tmp_path: Path, x: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write_npz(tmp_path, x=x, y=LABELS))


class Marker:
    """An object whose unpickling would be noticed."""

    def __reduce__(self) -> tuple:
        return (pytest.fail, ("a pickle was loaded",))


def test_npz_pickles_are_never_opened(tmp_path: Path) -> None:
    x = np.empty(6, dtype=object)
    x[:] = [Marker()] * 6
    with pytest.raises(DataError, match=r"Python objects"):
        load(write_npz(tmp_path, x=x, y=LABELS))
    path = tmp_path / "pickle.npz"
    path.write_bytes(pickle.dumps(Marker()))
    with pytest.raises(DataError, match=r"not a readable .npz"):
        load(path)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_npz_truncated(tmp_path: Path, keep: float) -> None:
    path = write_npz(tmp_path, x=IMAGES, y=LABELS)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match=r"not a readable .npz archive"):
        load(path)


def test_npz_flipped_bits(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=IMAGES, y=LABELS)
    content = bytearray(path.read_bytes())
    content[content.index(IMAGES.tobytes()) + 7] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not a readable .npz archive .*CRC"):
        load(path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [("(7, 5, 4)", "states 268 bytes, found 248"), ("(10**12, 5, 4)", "not a NumPy array")],
)
def test_npz_headers_that_lie(tmp_path: Path, shape: str, message: str) -> None:
    buffer = io.BytesIO()
    np.save(buffer, IMAGES)
    lie = buffer.getvalue().replace(
        b"(6, 5, 4), }" + b" " * (len(shape) - 9), f"{shape}, }}".encode()
    )
    path = write_npz(tmp_path, y=LABELS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.npy", lie)
    with pytest.raises(DataError, match=message):
        load(path)


def test_npz_a_claim_beyond_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, IMAGES)
    claim = b"(999999999, 999, 9), }"
    lie = buffer.getvalue().replace(b"(6, 5, 4), }" + b" " * (len(claim) - 12), claim)
    path = write_npz(tmp_path, y=LABELS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.npy", lie)
    with pytest.raises(DataError, match=r"needs more than 16 GiB"):
        load(path)


# Channels and sizes of arrays


def test_greyscale_arrays_are_repeated_where_colour_is_asked_for(tmp_path: Path) -> None:
    data = load(write_npz(tmp_path, x=IMAGES, y=LABELS), channels=3)
    assert data.shape == (3, 5, 4)
    assert np.array_equal(all_of(data), np.repeat(IMAGES[:, None] / np.float32(255), 3, axis=1))
    assert "Greyscale images were repeated to 3 channels." in data.notes


def test_colour_arrays_are_not_silently_changed(tmp_path: Path) -> None:
    path = write_npz(tmp_path, x=np.zeros((6, 3, 5, 4), np.uint8), y=LABELS)
    assert load(path, channels=3, resize=(5, 4)).notes == ()
    with pytest.raises(DataError, match=r"images have 3 channels, but 1 are requested"):
        load(path, channels=1)
    with pytest.raises(DataError, match=r"--resize 8x8 applies to image files only"):
        load(path, resize=(8, 8))


def test_channels_do_not_concern_flat_samples(tmp_path: Path) -> None:
    assert load(write_npz(tmp_path, x=np.zeros((6, 20)), y=LABELS), channels=3).shape == (20,)


# IDX


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("kind", ["uint8", ">f4", ">f8"])
def test_idx_round_trip(tmp_path: Path, suffix: str, kind: str) -> None:
    x = IMAGES if kind == "uint8" else IMAGES / 255
    path = write_idx(tmp_path, idx_bytes(x, kind), idx_bytes(LABELS), suffix=suffix)
    data = load(path)
    labels_file = tmp_path / f"t-labels-idx1-ubyte{suffix}"
    assert data.shape == (1, 5, 4)
    assert np.array_equal(data.labels, LABELS)
    assert np.array_equal(all_of(data)[:, 0], (IMAGES / 255).astype(np.float32))
    both = path.read_bytes() + labels_file.read_bytes()
    assert data.sha256 == hashlib.sha256(both).hexdigest()


def test_idx_labels_compressed_otherwise_and_dotted_names(tmp_path: Path) -> None:
    path = tmp_path / "train-images.idx3-ubyte"
    path.write_bytes(idx_bytes(IMAGES))
    (tmp_path / "train-labels.idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(LABELS)))
    assert np.array_equal(load(path).labels, LABELS)


def test_idx_missing_labels_name_the_files_looked_for(tmp_path: Path) -> None:
    path = write_idx(tmp_path, idx_bytes(IMAGES), idx_bytes(LABELS), suffix=".gz")
    (tmp_path / "t-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(
        DataError, match=r"looked for t-labels-idx1-ubyte.gz or t-labels-idx1-ubyte in"
    ):
        load(path)
    plain = tmp_path / "digits.gz"
    plain.write_bytes(gzip.compress(idx_bytes(IMAGES)))
    with pytest.raises(DataError, match=r"a name with 'labels' in place of 'images'"):
        load(plain)


def test_idx_given_the_labels_file(tmp_path: Path) -> None:
    write_idx(tmp_path, idx_bytes(IMAGES), idx_bytes(LABELS))
    with pytest.raises(DataError, match=r"it is a labels file. Pass the images file"):
        load(tmp_path / "t-labels-idx1-ubyte")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:-1], "states 120 bytes .*found 119"),
        (lambda b: b + b"\0", "states 120 bytes .*found more"),
        (lambda b: b[:9], "ends inside its header"),
        (lambda b: b"\0\0", "not an IDX file: it starts with 0x0000,"),
        (lambda b: b"PNG!" + b, "not an IDX file: it starts with 0x504e4721"),
        (lambda b: b[:4] + b"\xff" * 12 + b[16:], "needs more than 16 GiB"),
        (lambda b: b"\0\0\x08\x00" + b[4:], "not an IDX file: it starts with 0x00000800"),
        (lambda b: b"\0\0\x08\x20" + b[4:] * 9, "not an IDX file"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_damaged(tmp_path: Path, change: object, message: str, suffix: str) -> None:
    images = change(idx_bytes(IMAGES))  # type: ignore[operator]
    path = write_idx(tmp_path, images, idx_bytes(LABELS), suffix=suffix)
    with pytest.raises(DataError, match=message):
        load(path)


@pytest.mark.parametrize("keep", [6, 30, -9, -1])
def test_idx_truncated_gzip(tmp_path: Path, keep: int) -> None:
    path = write_idx(tmp_path, idx_bytes(IMAGES), idx_bytes(LABELS), suffix=".gz")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"truncated or damaged"):
        load(path)


def test_idx_damaged_gzip(tmp_path: Path) -> None:
    path = write_idx(tmp_path, idx_bytes(IMAGES), idx_bytes(LABELS), suffix=".gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"truncated or damaged .*CRC"):
        load(path)


def test_idx_wrong_number_of_labels_and_types(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"6 samples but 5 labels"):
        load(write_idx(tmp_path, idx_bytes(IMAGES), idx_bytes(LABELS[:5])))
    with pytest.raises(DataError, match=r"label 0\.5 in row 0 is not an integer"):
        load(write_idx(tmp_path, idx_bytes(IMAGES), idx_bytes(np.full(6, 0.5), ">f4")))
    with pytest.raises(DataError, match=r"type int32.*store uint8"):
        load(write_idx(tmp_path, idx_bytes(IMAGES, ">i4"), idx_bytes(LABELS)))
    with pytest.raises(NothingToEvaluate):
        load(write_idx(tmp_path, idx_bytes(IMAGES[:0]), idx_bytes(LABELS[:0])))


# CIFAR


def cifar_bytes(*labels: list[int]) -> tuple[bytes, np.ndarray]:
    """Records whose label bytes are the given columns."""
    count = len(labels[0])
    pixels = RNG.integers(0, 256, (count, 3072), dtype=np.uint8)
    columns = np.array(labels, dtype=np.uint8).T
    return np.concatenate([columns, pixels], axis=1).tobytes(), pixels


@pytest.mark.parametrize(
    ("labels", "name"), [([[7, 0, 9]], "CIFAR-10 "), ([[19, 0, 3], [99, 0, 42]], "CIFAR-100 ")]
)
def test_cifar_round_trip(tmp_path: Path, labels: list[list[int]], name: str) -> None:
    content, pixels = cifar_bytes(*labels)
    path = tmp_path / "test.bin"
    path.write_bytes(content)
    data = load(path)
    assert data.labels.tolist() == labels[-1]
    assert data.shape == (3, 32, 32)
    assert np.array_equal(all_of(data), pixels.reshape(-1, 3, 32, 32) / np.float32(255))
    assert name in data.notes[0]
    assert data.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("labels", [[[10, 0]], [[20, 0], [5, 5]], [[1, 1], [100, 0]]])
def test_cifar_labels_out_of_range(tmp_path: Path, labels: list[list[int]]) -> None:
    path = tmp_path / "test.bin"
    path.write_bytes(cifar_bytes(*labels)[0])
    with pytest.raises(DataError, match=r"neither complete CIFAR-10 records"):
        load(path)


def test_cifar_truncated(tmp_path: Path) -> None:
    path = tmp_path / "test.bin"
    path.write_bytes(cifar_bytes([1, 2])[0][:-1])
    with pytest.raises(DataError, match=r"6145 bytes are neither complete"):
        load(path)


# Paths


def test_paths_that_are_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; pass the path of the data as --data"):
        load(tmp_path / "nothing.npz")
    for name in ("data.npz", "t-images-idx3-ubyte.gz", "data.csv", "data.bin", "data.xyz"):
        (tmp_path / name).touch()
        with pytest.raises(DataError, match=r"is empty \(0 bytes\)"):
            load(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"folder .* is empty"):
        load(tmp_path / "empty")
    (tmp_path / "data.mat").write_bytes(b"MATLAB")
    with pytest.raises(DataError, match=r"unknown kind of data. Supported: .*\.npz.*CIFAR.*IDX"):
        load(tmp_path / "data.mat")


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_npz(tmp_path, x=IMAGES, y=LABELS)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    with pytest.raises(DataError, match=r"cannot be read: Permission denied"):
        load(path)
