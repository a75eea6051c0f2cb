"""What holds for every data set: the pixel mapping, the order of rows, the checks on values."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from audit.data import Dataset, check_labels, open_data
from audit.data.pixels import clip_inward, scaled
from audit.errors import DataError, NothingToEvaluate, UsageError

bounds = st.tuples(
    st.floats(-1000, 1000, allow_subnormal=False), st.floats(1e-3, 1000, allow_subnormal=False)
).map(lambda pair: (pair[0], pair[0] + pair[1]))


def write(folder: Path, x: np.ndarray, y: np.ndarray) -> Path:
    path = folder / "data.npz"
    np.savez(path, x=x, y=y)
    return path


def dataset(folder: Path, x: np.ndarray, low: float = 0.0, high: float = 1.0) -> Dataset:
    return open_data(write(folder, x, np.zeros(len(x), dtype=int)), low=low, high=high)


@given(bounds, st.sampled_from([np.uint8, np.uint16]))
def test_integer_pixels_are_mapped_exactly_and_inside(
    interval: tuple[float, float], dtype: type
) -> None:
    low, high = interval
    white = np.iinfo(dtype).max
    v = np.arange(0, white + 1, max(1, white // 255)).astype(dtype)
    x = clip_inward(scaled(v, low, high), low, high)
    exact = low + (high - low) * (v.astype(np.float64) / white)
    assert x.dtype == np.float32
    assert (x.astype(np.float64) >= low).all()
    assert (x.astype(np.float64) <= high).all()
    # Half a unit in the last place, and one more where an end of the interval was rounded inward.
    assert (np.abs(x - exact) <= 1.5 * np.spacing(np.abs(exact).astype(np.float32))).all()


def test_uint8_on_the_unit_interval_is_division_by_255() -> None:
    v = np.arange(256, dtype=np.uint8)
    assert np.array_equal(scaled(v, 0.0, 1.0), v.astype(np.float32) / np.float32(255))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(data=st.data())
def test_reading_rows_is_reading_all_and_choosing(tmp_path: Path, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "bool"]))
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=5))
    x = data.draw(hnp.arrays(dtype, shape))
    loaded = dataset(tmp_path, x)
    rows = np.array(data.draw(st.lists(st.integers(0, len(x) - 1))), dtype=np.int64)
    everything = loaded.read(np.arange(len(x)))
    assert everything.shape == (len(loaded), *loaded.shape)
    assert everything.flags.c_contiguous
    assert np.array_equal(loaded.read(rows), everything[rows])


def test_floats_are_taken_as_they_are(tmp_path: Path) -> None:
    x = np.linspace(-2, 3, 12).reshape(3, 4)
    assert np.array_equal(
        dataset(tmp_path, x, low=-2, high=3).read(np.arange(3)), x.astype(np.float32)
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_bound_that_float32_cannot_hold_is_met_from_inside(tmp_path: Path, dtype: type) -> None:
    x = np.full((1, 2), 0.1, dtype=dtype)
    found = dataset(tmp_path, x, low=0.0, high=0.1).read(np.array([0]))
    assert (found.astype(np.float64) <= 0.1).all()
    assert found == pytest.approx(0.1, rel=1e-3)


def test_no_rows_and_impossible_rows(tmp_path: Path) -> None:
    loaded = dataset(tmp_path, np.zeros((3, 2, 2), np.uint8))
    assert loaded.read(np.array([], dtype=int)).shape == (0, 1, 2, 2)
    for rows in ([3], [-1]):
        with pytest.raises(IndexError, match=r"of 3 samples"):
            loaded.read(np.array(rows))


@pytest.mark.parametrize(
    ("bad", "advice"),
    [
        (200.0, "looks like 0..255: pass --low 0 --high 255"),
        (-0.5, "looks like -1..1: pass --low -1 --high 1"),
        (-2.1, "looks normalised"),
        (4000.0, "Pass the true range"),
    ],
)
def test_values_outside_the_box_name_row_value_and_remedy(
    tmp_path: Path, bad: float, advice: str
) -> None:
    x = np.full((5, 3), 0.5)
    x[2, 1] = bad
    loaded = dataset(tmp_path, x)
    assert loaded.read(np.array([0, 1, 3])).shape == (3, 3)
    with pytest.raises(DataError, match=rf"row 2 contains {bad:g}, outside \[0, 1\].*{advice}"):
        loaded.read(np.array([4, 2]))


def test_unit_data_under_a_signed_box_is_left_alone_but_not_the_reverse(tmp_path: Path) -> None:
    x = np.linspace(0, 1, 6).reshape(2, 3)
    assert dataset(tmp_path, x, low=-1, high=1).read(np.arange(2)).max() == 1
    with pytest.raises(DataError, match=r"looks like 0\.\.1"):
        dataset(tmp_path, x, low=0.25, high=0.75).read(np.arange(2))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_name_the_row(tmp_path: Path, bad: float) -> None:
    x = np.zeros((4, 2, 2))
    x[3, 0, 1] = bad
    with pytest.raises(DataError, match=r"row 3 contains (nan|inf); every value must be a finite"):
        dataset(tmp_path, x).read(np.arange(4))


def test_labels_cannot_be_written(tmp_path: Path) -> None:
    loaded = dataset(tmp_path, np.zeros((2, 2), np.uint8))
    assert loaded.labels.dtype == np.int64
    with pytest.raises(ValueError, match=r"read-only"):
        loaded.labels[0] = 1


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, 10], "label 10 in row 2 .*10 classes, so labels 0..9"),
        ([0, -1, 4], "label -1 in row 1"),
        ([1, 10, 3], "label 10 in row 1 .*seem to start at 1: subtract 1"),
    ],
)
def test_labels_outside_the_model_name_the_row(tmp_path: Path, y: list[int], message: str) -> None:
    loaded = open_data(write(tmp_path, np.zeros((3, 2), np.uint8), np.array(y)), low=0, high=1)
    with pytest.raises(DataError, match=message):
        check_labels(loaded, 10)


def test_labels_inside_the_model_pass(tmp_path: Path) -> None:
    y = np.array([0, 9, 3])
    check_labels(open_data(write(tmp_path, np.zeros((3, 2)), y), low=0, high=1), 10)


def test_no_sample_is_nothing_to_evaluate(tmp_path: Path) -> None:
    with pytest.raises(NothingToEvaluate, match=r"holds no samples") as caught:
        dataset(tmp_path, np.zeros((0, 28, 28), np.uint8))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("interval", [(1.0, 0.0), (0.0, 0.0), (0.0, np.inf), (np.nan, 1.0)])
def test_an_impossible_box_is_refused(tmp_path: Path, interval: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match=r"two finite numbers"):
        dataset(tmp_path, np.zeros((1, 2)), *interval)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"channels": 2}, "images have 1, 3 or 4"), ({"resize": (0, 5)}, "at least 1 pixel")],
)
def test_impossible_options_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    path = write(tmp_path, np.zeros((1, 2)), np.zeros(1))
    with pytest.raises(UsageError, match=message):
        open_data(path, low=0, high=1, **options)
