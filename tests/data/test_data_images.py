"""Data as image files, in class folders or CSV lists: decoding, conversions, what can be wrong."""

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit.data import Dataset, open_data
from audit.data import images as images_module
from audit.errors import DataError, NothingToEvaluate

RNG = np.random.default_rng(0)


def load(path: Path, **options: object) -> Dataset:
    return open_data(path, low=0.0, high=1.0, **options)  # type: ignore[arg-type]


def all_of(data: Dataset) -> np.ndarray:
    return data.read(np.arange(len(data)))


def unit(array: np.ndarray) -> np.ndarray:
    """Pixels as float32 in [0, 1]."""
    return array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)


def save(path: Path, array: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return array


def colour(height: int = 5, width: int = 4) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def grey(height: int = 5, width: int = 4) -> np.ndarray:
    return RNG.integers(0, 256, (height, width), dtype=np.uint8)


def one(folder: Path, image: Image.Image, suffix: str = "png", **options: object) -> Dataset:
    """A class folder that holds the one image."""
    (folder / "0").mkdir(exist_ok=True)
    image.save(folder / "0" / f"a.{suffix}")
    return load(folder, **options)


def stated(data: Dataset, text: str) -> bool:
    return any(text in note for note in data.notes)


# Class folders


def test_folder_round_trip(tmp_path: Path) -> None:
    first = save(tmp_path / "cat" / "b.png", colour())
    second = save(tmp_path / "cat" / "deeper" / "a.PNG", colour())
    third = save(tmp_path / "ant" / "z.png", colour())
    data = load(tmp_path)
    assert data.class_names == ("ant", "cat")
    assert data.labels.tolist() == [0, 1, 1]
    assert data.shape == (3, 5, 4)
    expected = [unit(image).transpose(2, 0, 1) for image in (third, first, second)]
    assert np.array_equal(all_of(data), np.stack(expected))
    assert np.array_equal(data.read(np.array([2, 0])), all_of(data)[[2, 0]])
    assert stated(data, "2 sub-folders in sorted order: 0 ant, 1 cat.")


def test_folders_named_by_integers_are_the_labels(tmp_path: Path) -> None:
    for name in ("10", "2"):
        save(tmp_path / name / "a.png", grey())
    data = load(tmp_path)
    assert data.labels.tolist() == [10, 2]
    assert data.class_names is None
    assert data.shape == (1, 5, 4)
    assert stated(data, "used as the labels")


def test_folder_files_that_are_no_images_or_hidden(tmp_path: Path) -> None:
    save(tmp_path / "ant" / "a.png", grey())
    save(tmp_path / "bee" / ".thumbnails" / "a.png", grey())
    save(tmp_path / ".cache" / "a.png", grey())
    (tmp_path / "bee" / "notes.txt").write_text("hello")
    data = load(tmp_path)
    assert data.labels.tolist() == [0]
    assert data.class_names == ("ant", "bee")
    assert stated(data, "1 files that are not images were ignored")


def test_digest_depends_on_names_and_bytes(tmp_path: Path) -> None:
    save(tmp_path / "a" / "0" / "a.png", grey())
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    original = load(tmp_path / "a").sha256
    assert load(tmp_path / "b").sha256 == original
    (tmp_path / "b" / "0" / "a.png").rename(tmp_path / "b" / "0" / "b.png")
    assert load(tmp_path / "b").sha256 != original
    save(tmp_path / "a" / "0" / "a.png", grey())
    assert load(tmp_path / "a").sha256 != original


def test_folder_without_classes(tmp_path: Path) -> None:
    save(tmp_path / "a.png", grey())
    with pytest.raises(
        DataError, match=r"no sub-folders \(found: a.png\); expected one sub-folder"
    ):
        load(tmp_path)
    (tmp_path / "ant").mkdir()
    with pytest.raises(NothingToEvaluate, match=r"no image file was found"):
        load(tmp_path)
    (tmp_path / "labels.csv").touch()
    with pytest.raises(DataError, match=r"no class folders, but labels.csv; pass .*labels.csv"):
        load(tmp_path)


def test_images_are_decoded_only_when_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        save(tmp_path / "0" / f"{name}.png", grey())
    decoded = []
    original = images_module.decode

    def spy(path: Path, *arguments: object) -> np.ndarray:
        decoded.append(path.name)
        return original(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("audit.data.image_rows.decode", spy)
    data = load(tmp_path)
    assert decoded == []
    data.read(np.array([1]))
    assert decoded == ["b.png"]


# Pixel types


def test_greyscale_among_colour_is_repeated(tmp_path: Path) -> None:
    save(tmp_path / "0" / "a.png", colour())
    pixels = save(tmp_path / "0" / "b.png", grey())
    data = load(tmp_path)
    assert data.shape == (3, 5, 4)
    assert np.array_equal(all_of(data)[1], np.repeat(unit(pixels)[np.newaxis], 3, axis=0))
    assert stated(data, "1 of 2 images are greyscale; repeated to 3 channels.")


def test_colour_becomes_grey_where_asked_or_first(tmp_path: Path) -> None:
    pixels = save(tmp_path / "0" / "b.png", colour())
    data = load(tmp_path, channels=1)
    luma = pixels @ np.array([0.299, 0.587, 0.114]) / 255
    assert data.shape == (1, 5, 4)
    assert np.abs(all_of(data)[0, 0] - luma).max() <= 1 / 255
    assert stated(data, "1 of 1 images are in colour; converted to greyscale")
    save(tmp_path / "0" / "a.png", grey())
    assert load(tmp_path).shape == (1, 5, 4)


def test_transparency_is_dropped_unless_asked_for(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (5, 4, 4), dtype=np.uint8)
    data = one(tmp_path, Image.fromarray(pixels))
    assert np.array_equal(all_of(data)[0], unit(pixels[..., :3]).transpose(2, 0, 1))
    assert stated(data, "have transparency; it was dropped")
    with_alpha = load(tmp_path, channels=4)
    assert np.array_equal(all_of(with_alpha)[0], unit(pixels).transpose(2, 0, 1))
    assert with_alpha.notes == ("Sub-folder names are integers and are used as the labels.",)


def test_opaque_images_with_four_channels(tmp_path: Path) -> None:
    data = one(tmp_path, Image.fromarray(colour()), channels=4)
    assert (all_of(data)[0, 3] == 1).all()
    assert stated(data, "have no transparency; made opaque")


@pytest.mark.parametrize("transparency", [None, 0, b"\x00\x80\xff"])
def test_palette_images(tmp_path: Path, transparency: int | bytes | None) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    extra = {} if transparency is None else {"transparency": transparency}
    (tmp_path / "0").mkdir()
    image.save(tmp_path / "0" / "a.png", **extra)
    data = load(tmp_path)
    assert np.rint(all_of(data)[0, :, 0, 1] * 255).tolist() == [40, 50, 60]
    assert stated(data, "have a palette")
    assert stated(data, "have transparency") == (transparency is not None)


@pytest.mark.parametrize(("mode", "suffix"), [("1", "png"), ("LA", "png"), ("L", "bmp")])
def test_other_grey_modes(tmp_path: Path, mode: str, suffix: str) -> None:
    image = Image.fromarray(grey()).convert(mode)
    data = one(tmp_path, image, suffix)
    expected = unit(np.asarray(image.convert("L")))
    assert data.shape == (1, 5, 4)
    assert np.array_equal(all_of(data)[0, 0], expected)


def test_cmyk_is_stated(tmp_path: Path) -> None:
    data = one(tmp_path, Image.fromarray(colour()).convert("CMYK"), "jpg")
    assert data.shape == (3, 5, 4)
    assert stated(data, "stored as CMYK")


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bit_greyscale_keeps_its_precision(
    tmp_path: Path, channels: int | None, suffix: str
) -> None:
    pixels = RNG.integers(0, 65536, (5, 4), dtype=np.uint16)
    data = one(tmp_path, Image.fromarray(pixels), suffix, channels=channels)
    x = all_of(data)[0]
    assert data.shape == (channels or 1, 5, 4)
    assert all(np.array_equal(plane, unit(pixels)) for plane in x[:3])
    assert channels != 4 or (x[3] == 1).all()
    assert stated(data, "16 bits per pixel")


def test_sixteen_bit_colour_is_stated(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 65536, (3, 2, 3), dtype=np.uint16)

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", 2, 3, 16, 2, 0, 0, 0)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )
    data = load(tmp_path)
    assert np.abs(all_of(data)[0] - unit(pixels).transpose(2, 0, 1)).max() <= 1 / 255
    assert stated(data, "1 of 1 images have 16 bits per colour; reduced to 8.")


def test_pixels_without_a_white(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pixels are floats; store such samples as .npz"):
        one(tmp_path, Image.fromarray(np.zeros((3, 3), np.float32)), "tif")
    (tmp_path / "0" / "a.tif").unlink()
    wide = one(tmp_path, Image.fromarray(np.full((3, 3), 70_000, np.int32)), "tif")
    with pytest.raises(DataError, match=r"pixels span 70000..70000, expected 0..65535"):
        all_of(wide)


# Sizes


def test_mixed_sizes_name_two_files(tmp_path: Path) -> None:
    save(tmp_path / "0" / "a.png", grey(5, 4))
    save(tmp_path / "0" / "b.png", grey(5, 4))
    save(tmp_path / "1" / "c.png", grey(7, 4))
    with pytest.raises(
        DataError, match=r"0/a.png is 5x4, 1/c.png is 7x4 \(height x width\). Pass --resize HxW"
    ):
        load(tmp_path)
    data = load(tmp_path, resize=(5, 4))
    assert all_of(data).shape == (3, 1, 5, 4)
    assert stated(data, "1 of 3 images were resized")
    assert stated(data, "to 5x4")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(8, 8), (12, 4), (4, 12), (40, 60)])
def test_resizing_covers_and_crops_the_centre(
    tmp_path: Path, dtype: type, size: tuple[int, int]
) -> None:
    # A ramp along each axis: a linear function stays one, so position and scale can be read off.
    rows, columns = np.mgrid[0:40, 0:60]
    white = np.iinfo(dtype).max
    ramp = (rows + columns) / 98
    data = one(tmp_path, Image.fromarray(np.rint(ramp * white).astype(dtype)), resize=size)
    found = all_of(data)[0, 0]
    scale = max(size[0] / 40, size[1] / 60)
    y = 19.5 + (np.arange(size[0]) - (size[0] - 1) / 2) / scale
    x = 29.5 + (np.arange(size[1]) - (size[1] - 1) / 2) / scale
    expected = (y[:, np.newaxis] + x) / 98
    inside = np.s_[1:-1, 1:-1]
    # Half a pixel of the resized image where the crop cannot be centred exactly, and rounding.
    assert np.abs(found - expected)[inside].max() <= 0.5 / scale / 98 + 2 / 255


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    board = np.where(np.indices((64, 64)).sum(axis=0) % 2, 255, 0).astype(np.uint8)
    data = one(tmp_path, Image.fromarray(board), resize=(8, 8))
    assert np.abs(all_of(data) - 0.5).max() < 0.05


def test_resizing_sixteen_bits_does_not_overflow_at_edges(tmp_path: Path) -> None:
    edge = np.repeat(np.array([[0, 0, 0, 0, 65535, 65535, 65535, 65535]], np.uint16), 8, axis=0)
    x = all_of(one(tmp_path, Image.fromarray(edge), resize=(32, 32)))[0, 0]
    assert (x[:, :14] < 0.1).all()
    assert (x[:, 18:] > 0.9).all()


def test_an_absurdly_long_image_is_not_resized(tmp_path: Path) -> None:
    data = one(tmp_path, Image.fromarray(np.zeros((1, 5000), np.uint8)), resize=(300, 300))
    with pytest.raises(DataError, match=r"too elongated; crop it first"):
        all_of(data)


# Damage


def test_unreadable_images_are_named_on_opening(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "broken.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"broken.jpg is not a readable image"):
        load(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp", "tif", "pgm"])
def test_truncated_images_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "0" / f"a.{suffix}"
    save(path, grey(64, 64))
    assert all_of(load(tmp_path)).shape == (1, *load(tmp_path).shape)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"a.{suffix} is not a readable image"):
        all_of(load(tmp_path))


@pytest.mark.filterwarnings("ignore")  # outside the tests a warning is no error either
def test_decompression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "0" / "a.png", grey(30, 30))
    for limit in (800, 400):  # Pillow warns above the limit, and refuses above twice the limit.
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=rf"a.png: the image claims more than {limit} pixels"):
            load(tmp_path)


def test_decoders_that_start_programs_stay_closed(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    )
    with pytest.raises(DataError, match=r"not a readable image"):
        load(tmp_path)


def test_a_file_changed_after_opening(tmp_path: Path) -> None:
    data = one(tmp_path, Image.fromarray(grey(5, 4)))
    save(tmp_path / "0" / "a.png", grey(6, 6))
    with pytest.raises(DataError, match=r"has changed since it was opened"):
        all_of(data)


# CSV


def write_csv(folder: Path, text: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with a.png beside the list and b.png in images/."""
    save(tmp_path / "a.png", colour())
    save(tmp_path / "images" / "b.png", colour())
    return tmp_path


@pytest.mark.parametrize(
    "header", ["file,label", "path,class", "filename,target", "image,label", "\ufeffFile, Label "]
)
def test_csv_with_integer_labels(pictures: Path, header: str) -> None:
    data = load(write_csv(pictures, f"{header}\nb.png,7\n\na.png, 2\n"))
    assert data.labels.tolist() == [7, 2]
    assert data.class_names is None
    assert data.notes == ()
    for row, name in enumerate(("images/b.png", "a.png")):
        pixels = np.asarray(Image.open(pictures / name))
        assert np.array_equal(all_of(data)[row], unit(pixels).transpose(2, 0, 1))


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_csv_with_other_delimiters(pictures: Path, delimiter: str) -> None:
    text = "id,file,label\n1,a.png,3\n".replace(",", delimiter)
    assert load(write_csv(pictures, text)).labels.tolist() == [3]


def test_csv_with_labels_by_name(pictures: Path) -> None:
    data = load(write_csv(pictures, 'label,file\n"tench, common",a.png\nant,b.png\n'))
    assert data.labels.tolist() == [1, 0]
    assert data.class_names == ("ant", "tench, common")
    assert stated(data, "classes are the 2 names in sorted order: 0 ant, 1 tench, common.")


def test_csv_with_a_name_column(pictures: Path) -> None:
    data = load(write_csv(pictures, "file,label,name\na.png,3,tench\nb.png,1,ant\n"))
    assert data.labels.tolist() == [3, 1]
    assert data.class_names == ("0", "ant", "2", "tench")


def test_csv_absurd_labels_get_no_names(pictures: Path) -> None:
    data = load(write_csv(pictures, "file,label,name\na.png,999999999999,tench\n"))
    assert data.class_names is None


def test_csv_digest_covers_labels_and_images(pictures: Path) -> None:
    digests = {load(write_csv(pictures, f"file,label\na.png,{k}\n")).sha256 for k in (1, 2)}
    save(pictures / "a.png", colour())
    digests.add(load(pictures / "list.csv").sha256)
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na.png,1\n", "no column file or path or filename or image .*name, label"),
        ("file,number\na.png,1\n", "no column label or class or target"),
        ("file,label\na.png,1\nc.png,1\n", "line 3: c.png is neither in .* nor in its images/"),
        ("file,label\na.png,1.5\n", "line 2: label '1.5' is not an integer"),
        ("file,label\na.png,1\nb.png,nan\n", "line 3: label 'nan' is not an integer"),
        ("file,label\na.png,1\nb.png,ant\n", "line 3: label 'ant' is not an integer"),
        ("file,label\na.png,99999999999999999999\n", "is not an integer"),
        ("file,label\na.png\n", "line 2: file or label is empty"),
        ("file,label\n,1\n", "line 2: file or label is empty"),
        ('file,label\n"a.png,1\n', "not a CSV in UTF-8"),
    ],
)
def test_csv_mistakes_name_the_line(pictures: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write_csv(pictures, text))


def test_csv_that_is_no_text_or_has_no_lines(pictures: Path) -> None:
    path = pictures / "list.csv"
    path.write_bytes(b"file,label\n\xff\xfe,1\n")
    with pytest.raises(DataError, match=r"not a CSV in UTF-8"):
        load(path)
    with pytest.raises(NothingToEvaluate, match=r"holds no samples"):
        load(write_csv(pictures, "file,label\n"))
