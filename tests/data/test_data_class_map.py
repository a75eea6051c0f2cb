"""Class names and their indices: class maps in every form, and what is said without one."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit.data import Dataset, open_data
from audit.data.class_map import read_class_map
from audit.errors import DataError

FORMS = {
    "map.json": '{"zebra": 2, "ant": 0, "bee": 1}',
    "list.json": '["ant", "bee", "zebra"]',
    "id2label.json": '{"0": "ant", "2": "zebra", "1": "bee"}',
    "map.csv": "name,index\nzebra,2\n\nant,0\nbee,1\n",
    "semicolons.csv": "\ufeffIndex;Class\n2;zebra\n0;ant\n1;bee\n",
    "names.txt": "ant\nbee\r\nzebra\n\n",
}


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(path)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def load(path: Path, class_map: Path | None = None) -> Dataset:
    return open_data(path, low=0, high=1, class_map=class_map)


def stated(data: Dataset, text: str) -> bool:
    return any(text in note for note in data.notes)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """One image per class, in class folders."""
    for name in ("bee", "zebra"):
        picture(tmp_path / "data" / name / "a.png")
    return tmp_path / "data"


@pytest.mark.parametrize("name", FORMS)
def test_every_form_says_the_same(tmp_path: Path, folders: Path, name: str) -> None:
    class_map = write(tmp_path / name, FORMS[name])
    data = load(folders, class_map)
    assert data.labels.tolist() == [1, 2]
    assert data.class_names == ("ant", "bee", "zebra")
    assert stated(data, f"looked up in the class map {name}: 1 bee, 2 zebra.")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"ant": 0, "ant": 1}', "has the name 'ant' twice, for 0 and 1"),
        ("a.json", '{"ant": 0, "bee": 0}', "gives the index 0 to both 'ant' and 'bee'"),
        ("a.json", '["ant", "ant"]', "has the name 'ant' twice"),
        ("a.json", '{"ant": -1}', "gives 'ant' the index -1; class indices are counted from 0"),
        ("a.json", '{"ant": 1000000}', "gives 'ant' the index 1000000"),
        ("a.json", '{"ant": 1.5}', r"wrong \('1\.5' is not a class index\)"),
        ("a.json", '{"ant": true}', "'True' is not a class index"),
        ("a.json", "[1, 2]", "'1' is not a name"),
        ("a.json", "3", "neither an object nor a list, but int"),
        ("a.json", "{", "wrong .*expected a JSON object"),
        ("a.json", "[" * 9**5, "wrong .*expected a JSON object"),
        ("a.json", "{}", "names no class"),
        ("a.csv", "ant,0\nbee,1\n", "its first line is 'ant,0', not 'name,index'"),
        ("a.csv", "", "not 'name,index'"),
        ("a.csv", "name,index\nant\n", "line 2 has no name or no index"),
        ("a.csv", "name,index\nant,one\n", "'one' is not a class index"),
        ("a.csv", 'name,index\n"ant,0\n', "is wrong"),
        ("a.txt", "ant\n\nbee\n", "has no name for class 1"),
        ("a.txt", "", "names no class"),
        ("a.txt", "ant\nbee\nant\n", "has the name 'ant' twice, for 0 and 2"),
    ],
)
def test_maps_that_are_wrong(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_class_map(write(tmp_path / name, text))


def test_maps_that_are_no_text_or_not_there(tmp_path: Path, folders: Path) -> None:
    with pytest.raises(DataError, match=r"class map .*gone.json is not a file; expected a JSON"):
        load(folders, tmp_path / "gone.json")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"class map .*a.txt is wrong .*utf-8"):
        load(folders, tmp_path / "a.txt")


def test_unknown_folders_are_named(tmp_path: Path, folders: Path) -> None:
    class_map = write(tmp_path / "a.txt", "bee\nzebu\n")
    with pytest.raises(
        DataError, match=r"data/zebra: class 'zebra' is not in the class map .* 0 bee, 1 zebu; add"
    ):
        load(folders, class_map)


def test_indices_without_a_name_are_called_by_their_number(tmp_path: Path, folders: Path) -> None:
    data = load(folders, write(tmp_path / "a.json", '{"bee": 3, "zebra": 1}'))
    assert data.class_names == ("0", "zebra", "2", "bee")
    assert data.labels.tolist() == [3, 1]


def test_folders_named_by_integers_are_looked_up_only_where_the_map_has_them(
    tmp_path: Path,
) -> None:
    for name in ("0", "1"):
        picture(tmp_path / "data" / name / "a.png")
    named = load(tmp_path / "data", write(tmp_path / "a.txt", "ant\nbee\n"))
    assert named.labels.tolist() == [0, 1]
    assert named.class_names == ("ant", "bee")
    assert stated(named, "Labels are indices and remain unchanged; their names are from the")
    mapped = load(tmp_path / "data", write(tmp_path / "b.json", '{"0": 1, "1": 0}'))
    assert mapped.labels.tolist() == [1, 0]
    assert mapped.class_names == ("1", "0")
    with pytest.raises(DataError, match=r"class '1' is not in the class map"):
        load(tmp_path / "data", write(tmp_path / "c.json", '{"0": 1}'))


def test_many_classes_are_listed_in_short(tmp_path: Path) -> None:
    for k in range(9):
        picture(tmp_path / f"class{k}" / "a.png")
    assert load(tmp_path).notes == (
        "Classes are the 9 sub-folders in sorted order: "
        "0 class0, 1 class1, 2 class2, 3 class3, …, 8 class8.",
    )


def test_folders_of_splits_are_no_classes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        picture(tmp_path / split / "ant" / "a.png")
    with pytest.raises(DataError, match=r"are splits, not classes: test, train; pass one"):
        load(tmp_path)
    assert load(tmp_path / "test").class_names == ("ant",)


# Lists of files


def test_csv_names_are_looked_up(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    class_map = write(tmp_path / "map.txt", "ant\nbee\nzebra\n")
    path = write(tmp_path / "list.csv", "file,label\na.png,zebra\na.png,ant\na.png,zebra\n")
    data = load(path, class_map)
    assert data.labels.tolist() == [2, 0, 2]
    assert data.class_names == ("ant", "bee", "zebra")
    assert stated(data, "looked up in the class map map.txt: 0 ant, 2 zebra.")
    write(path, "file,label\na.png,ant\na.png,Zebra\n")
    with pytest.raises(DataError, match=r"list.csv, line 3: class 'Zebra' is not in the class map"):
        load(path, class_map)


def test_csv_indices_are_named_by_the_map(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    class_map = write(tmp_path / "map.txt", "ant\nbee\n")
    path = write(tmp_path / "list.csv", "file,label,name\na.png,1,whatever\n")
    data = load(path, class_map)
    assert data.labels.tolist() == [1]
    assert data.class_names == ("ant", "bee")
    write(path, "file,label\na.png,1\na.png,2\n")
    with pytest.raises(
        DataError, match=r"label 2 in row 1 is not an index of the class map .*0\.\."
    ):
        load(path, class_map)


def test_arrays_are_named_by_the_map(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3)), y=np.array([1, 0]))
    data = load(tmp_path / "a.npz", write(tmp_path / "map.txt", "ant\nbee\n"))
    assert data.class_names == ("ant", "bee")
    assert data.labels.tolist() == [1, 0]


# Tables


def encoded() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(stream, "png")
    return stream.getvalue()


def table(folder: Path, labels: list, names: list[str] | None = None) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (the extra [data])")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is built without parquet")
    content = pyarrow.table({"image": [encoded()] * len(labels), "label": labels})
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        info = json.dumps({"info": {"features": features}})
        content = content.replace_schema_metadata({"huggingface": info})
    parquet.write_table(content, folder / "a.parquet")
    return folder / "a.parquet"


def test_names_in_tables_are_looked_up(tmp_path: Path) -> None:
    class_map = write(tmp_path / "map.txt", "ant\nbee\nzebra\n")
    data = load(table(tmp_path, ["zebra", "ant"]), class_map)
    assert data.labels.tolist() == [2, 0]
    assert data.class_names == ("ant", "bee", "zebra")
    with pytest.raises(DataError, match=r"row 1: class 'cow' is not in the class map"):
        load(table(tmp_path, ["ant", "cow", "cow"]), class_map)


def test_class_labels_are_renumbered_by_their_names(tmp_path: Path) -> None:
    class_map = write(tmp_path / "map.txt", "ant\nbee\nzebra\n")
    data = load(table(tmp_path, [0, 1, 0], ["zebra", "ant", "unused"]), class_map)
    assert data.labels.tolist() == [2, 0, 2]
    assert data.class_names == ("ant", "bee", "zebra")
    with pytest.raises(DataError, match=r"class 'unused' is not in the class map"):
        load(table(tmp_path, [0, 2], ["zebra", "ant", "unused"]), class_map)
    with pytest.raises(DataError, match=r"label -1 in row 1 has no name among the 2"):
        load(table(tmp_path, [0, -1], ["zebra", "ant"]), class_map)
