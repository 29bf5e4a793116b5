"""Labels of image files from tables as people and Hugging Face write them, and hostile ones."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from support.frozen_encoders import Constant, frozen
from support.image_folders import names_of, put
from support.tar_files import labeled as tar_files
from support.tar_files import write

from jobs.config.recipe import resolve_data_path
from ssl_core.data.dataset import Source, open_source
from ssl_core.data.summary import summary
from ssl_core.errors import UserError
from ssl_core.evaluation.protocol import protocols

NAMES = [f"{i:02d}.png" for i in range(12)]
KINDS = ["cat", "dog"] * 6
EACH = [dict(file_name=name, label=kind) for name, kind in zip(NAMES, KINDS)]


def csv(rows: list[dict], mark: str = ",", end: str = "\n") -> bytes:
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "".join(mark.join(f'"{field}"' for field in line) + end for line in lines).encode()


def jsonl(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: list[dict], features: dict | None = None) -> bytes:
    table = pa.Table.from_pylist(rows)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def opened(root, table: str, content: bytes, data: str | None = None) -> Source:
    (root / table).parent.mkdir(parents=True, exist_ok=True)
    (root / table).write_bytes(content)
    open_source.cache_clear()
    return open_source(data or str(root), 16)


def labels_of(source: Source, root) -> dict[str, str]:
    """Names of files and of their classes, of all labeled images."""
    splits = (source.train, source.test)
    pairs = [pair for split in splits for pair in zip(names_of(split, root), split.labels.tolist())]
    return {name: source.classes[label] for name, label in pairs if label >= 0}


@pytest.fixture
def flat(tmp_path):
    put(tmp_path / "flat", *NAMES)
    return tmp_path / "flat"


NUMBERED = [dict(row, label=KINDS.index(row["label"])) for row in EACH]
CLASS_LABEL = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}


@pytest.mark.parametrize(
    ("table", "content"),
    [
        ("metadata.csv", csv(EACH)),
        ("metadata.csv", b"\xef\xbb\xbf" + csv(EACH, end="\r\n")),
        ("metadata.csv", csv(EACH, ";")),
        ("metadata.csv", csv(EACH, "\t").replace(b'"', b"")),
        ("metadata.csv", csv([dict(kind=row["label"], file_name=f"./{row['file_name']}") for row in EACH])),
        ("metadata.csv", csv([dict(row, label=f" {row['label']} ", height="9", width="9") for row in EACH])),
        ("metadata.jsonl", jsonl(EACH)),
        ("metadata.jsonl", b"\xef\xbb\xbf" + jsonl(EACH).replace(b"\n", b"\r\n\r\n")),
        ("metadata.parquet", parquet(EACH)),
        ("metadata.parquet", parquet(NUMBERED, CLASS_LABEL)),
    ],
)
def test_labels_are_those_of_the_table(flat, table, content):
    source = opened(flat, table, content)
    assert source.classes == ("cat", "dog") and labels_of(source, flat) == dict(zip(NAMES, KINDS))
    assert (len(source.train), len(source.test)) == (8, 4) and not source.multilabel
    line = summary(source)
    assert f"of {table}" in line and "4 of 12 images are held out" in line and "left out" not in line


@pytest.mark.parametrize(("column", "classes"), [("kind", ("cat", "dog")), ("count", ("3", "4", "10"))])
def test_a_column_is_named_behind_the_path_or_asked_for(flat, column, classes):
    rows = [dict(file=n, kind=k, count=c) for n, k, c in zip(NAMES, KINDS, [10, 3, "004", 4.0] * 3)]
    with pytest.raises(UserError, match=r"labels may be in any of kind, count: name the column.*DATA#kind"):
        opened(flat, "metadata.csv", csv(rows))
    source = opened(flat, "metadata.csv", csv(rows), f"{flat}#{column}")
    assert source.classes == classes
    assert opened(flat, "metadata.csv", csv(rows), f"{flat}#").classes == ()
    with pytest.raises(UserError, match=r"metadata\.csv has no column 'kinds': did you mean kind"):
        opened(flat, "metadata.csv", csv(rows), f"{flat}#kinds")
    one, other = (opened(flat, "metadata.csv", csv(rows), f"{flat}#{name}").digest for name in ("kind", "count"))
    assert one != other
    assert opened(flat, "other.csv", csv(rows), f"{flat}/other.csv#{column}").classes == classes


def test_paths_with_columns_become_absolute(flat, monkeypatch):
    (flat / "a#b").mkdir()
    monkeypatch.chdir(flat.parent)
    assert resolve_data_path("flat#kind") == f"{flat}#kind" and resolve_data_path("flat/a#b") == f"{flat}/a#b"


def test_what_does_not_fit_is_counted_and_images_without_a_label_are_unlabeled(flat):
    rows = [*EACH[:9], dict(file_name=NAMES[9], label=""), EACH[0], dict(EACH[1], label="cow")]
    rows += [dict(file_name=name, label="cat") for name in ("no.png", "none.png")] + [
        dict(file_name=NAMES[10], label="NaN")
    ]
    source = opened(flat, "metadata.csv", csv(rows))
    assert labels_of(source, flat) == dict(zip(NAMES[:9], KINDS))
    line = summary(source)
    for words in (
        "2 rows name files that are not there: no.png, none.png",
        "2 rows are repeated, 1 of them with another label or split: the first row counts",
        "1 images have no row",
        "2 rows have no label",
        "7 labeled and 3 unlabeled training images, 2 test images",
    ):
        assert words in line
    assert len(source.labeled().train) == 7


def test_splits_are_those_of_a_column(flat):
    splits = ["train"] * 6 + ["validation"] * 2 + ["test"] * 2 + ["unlabeled"] * 2
    rows = [dict(row, split=split) for row, split in zip(EACH, splits)]
    source = opened(flat, "metadata.jsonl", jsonl(rows))
    assert names_of(source.train, flat) == [*NAMES[:6], *NAMES[10:]] and names_of(source.test, flat) == NAMES[8:10]
    assert source.train.labels.tolist() == [0, 1] * 3 + [-1, -1]
    line = summary(source)
    assert "trained on 6 train images, tested on 2 test images, by the tables" in line
    assert "trained on without labels: 2 unlabeled images" in line and "not used: 2 val images" in line
    rows[8]["label"] = "cow"
    with pytest.raises(UserError, match="test images have classes that the training images lack: cow"):
        opened(flat, "metadata.jsonl", jsonl(rows))


def test_a_table_in_the_folder_of_each_split(tmp_path):
    for part in ("train", "test", "unlabeled"):
        put(tmp_path / part, *NAMES)
    for part in ("train", "test"):
        (tmp_path / part / "metadata.csv").write_bytes(csv(EACH))
    source = open_source(str(tmp_path))
    assert (int(source.train.labeled.sum()), len(source.train), len(source.test)) == (12, 24, 12)
    assert source.test.labels.tolist() == [0, 1] * 6


SEVERAL = [dict(file_name=name, label=label) for name, label in zip(NAMES, [["cat"], ["cat", "dog"], ["dog"]] * 4)]


@pytest.mark.parametrize(
    ("table", "content"),
    [
        ("metadata.csv", csv([dict(row, label="|".join(row["label"])) for row in SEVERAL])),
        ("metadata.jsonl", jsonl(SEVERAL)),
        ("metadata.parquet", parquet(SEVERAL)),
        (
            "metadata.parquet",
            parquet(
                [dict(row, label=[KINDS.index(one) for one in row["label"]]) for row in SEVERAL],
                {"label": {"feature": {"_type": "ClassLabel", "names": ["cat", "dog"]}, "_type": "Sequence"}},
            ),
        ),
    ],
)
def test_several_labels_an_image(flat, table, content):
    source = opened(flat, table, content)
    assert source.multilabel and source.classes == ("cat", "dog") and source.train.labels.dtype == bool
    found = {}
    for split in (source.train, source.test):
        assert split.labels.shape == (len(split), 2) and split.labeled.all()
        found |= zip(names_of(split, flat), ([source.classes[i] for i in np.flatnonzero(row)] for row in split.labels))
    assert found == {row["file_name"]: row["label"] for row in SEVERAL}
    assert "2 classes (cat 8, dog 8), 1.33 an image" in summary(source)


def test_an_image_without_any_of_several_labels_is_unlabeled(flat):
    rows = [*SEVERAL[:10], dict(file_name=NAMES[10], label=[]), dict(file_name=NAMES[11], label=None)]
    source = opened(flat, "metadata.jsonl", jsonl(rows))
    assert int((~source.train.labeled).sum()) == 2 and source.labeled().train.labeled.all()


@pytest.mark.parametrize(
    ("path", "row"), [("../00.png", 1), ("a/../../00.png", 1), ("/etc/passwd", 1), ("C:\\00.png", 1), ("..\\x.png", 1)]
)
def test_paths_that_lead_out_are_refused(flat, path, row):
    with pytest.raises(UserError, match=rf"row {row} of metadata.csv names .*expected a path") as error:
        opened(flat, "metadata.csv", csv([dict(file_name=path, label="cat"), *EACH]))
    assert "\n" not in str(error.value)


HOSTILE = {
    "no text": ("metadata.csv", b"file_name,label\n\xff\xfe.png,cat\n", "metadata.csv cannot be read"),
    "other fields": ("metadata.csv", b"file_name,label\n00.png,cat,dog\n", "Expected 2 columns, got 3"),
    "twice": ("metadata.csv", b"file_name,label,label\n00.png,a,b\n", "several columns are called label"),
    "nothing": ("metadata.csv", b"", "metadata.csv cannot be read"),
    "no rows": ("metadata.csv", b"file_name,label\n", "no image that metadata.csv names is there"),
    "other files": ("metadata.csv", b"file_name,label\nx,y\n", "is there, such as 'x'"),
    "no json": ("metadata.jsonl", b"{'file_name': 1}\n", "metadata.jsonl cannot be read"),
    "no object": ("metadata.jsonl", b"[1]\n", "line 1 is no object"),
    "deep": ("metadata.jsonl", b"[" * 200_000, "metadata.jsonl cannot be read"),
    "no parquet": ("metadata.parquet", b"PAR1" * 9, "metadata.parquet cannot be read"),
    "cut": ("metadata.parquet", parquet(EACH)[:-20], "metadata.parquet cannot be read"),
}


@pytest.mark.parametrize(("table", "content", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_damaged_table_is_one_line(flat, table, content, words):
    with pytest.raises(UserError, match=words) as error:
        opened(flat, table, content)
    assert "\n" not in str(error.value)


def test_odd_labels_and_names(tmp_path):
    odd = ["a,b.png", 'say "a".png', "two\nlines.png", "кошка.png", "cafe\u0301.png", "sub/x.png"]
    put(tmp_path, *odd)
    rows = [dict(file_name=name.replace('"', '""'), label="yes") for name in odd]
    rows[4]["file_name"] = "caf\xe9.png"
    rows[5] = dict(file_name="sub\\x.png", label="no")
    source = opened(tmp_path, "metadata.csv", csv(rows))
    assert labels_of(source, tmp_path) == dict(zip(odd, ["yes"] * 5 + ["no"]))


def test_labels_that_are_no_classes(flat):
    rows = [dict(row, label=value) for row, value in zip(EACH, [0.5, float("nan"), None, -1, *"abababab"])]
    line = summary(opened(flat, "metadata.jsonl", jsonl(rows)))
    assert "1 labels cannot be used, such as '0.5'" in line and "4 unlabeled training images" in line
    captions = [dict(row, label=f"a picture of {row['file_name']}") for row in EACH]
    source = opened(flat, "metadata.jsonl", jsonl(captions))
    assert source.classes == () and "each image has one of its own, as captions are" in summary(source)
    nothing = opened(flat, "metadata.jsonl", jsonl([dict(file_name=name) for name in NAMES]))
    assert nothing.classes == () and len(nothing.train) == 12


def test_other_tables_stay_what_they_are(tmp_path):
    """Class folders count where a table names no files; a table that is given has to; and two are one too many."""
    put(tmp_path, *(f"{kind}/{name}" for kind in ("cat", "dog") for name in NAMES))
    source = opened(tmp_path, "metadata.csv", b"author,license\nme,MIT\n")
    assert source.classes == ("cat", "dog") and "metadata.csv is not read: it has no column file_name" in summary(
        source
    )
    with pytest.raises(UserError, match="it has no column file_name"):
        opened(tmp_path, "notes.csv", b"author,license\nme,MIT\n", f"{tmp_path}/notes.csv")
    os.replace(tmp_path / "metadata.csv", tmp_path / "cat" / "metadata.csv")
    with pytest.raises(UserError, match="several tables lie in the folder: remove all but one"):
        (tmp_path / "metadata.csv").write_bytes(csv(EACH))
        opened(tmp_path, "metadata.jsonl", jsonl(EACH))


def test_evaluation_without_labels_takes_several(flat):
    source = opened(flat, "metadata.jsonl", jsonl(SEVERAL))
    model, retrieval = frozen(Constant(), source), protocols()["retrieval"]
    found = retrieval.run(model, retrieval.Config(queries=2, neighbors=2, shown=2), 0)
    assert model.classes == 0 and set(found.numbers) == {"similarity@2"}


def test_a_column_where_there_is_no_table(flat, tmp_path):
    (flat / "notes.txt").touch()
    with pytest.raises(UserError, match=r"flat#kind: there is no table of labels$"):
        open_source(f"{flat}#kind")
    write(tmp_path / "tars" / "a.tar", tar_files(0, 4))
    with pytest.raises(UserError, match="tar files have no columns"):
        open_source(f"{tmp_path}/tars#kind")
