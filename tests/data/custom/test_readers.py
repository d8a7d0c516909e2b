"""Tests of readers for tar, Parquet, page, pair and TFDS data; `test_jsonl.py` has JSON lines."""

import io
import json
import tarfile

import pytest

from oneflow_jax.data import digits
from oneflow_jax.data.custom import (
    formats,
    html_text,
    packages,
    pairs,
    parquet,
    tfds,
    web_pages,
    webdataset,
)
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.errors import UserError
from tests.data.custom import examples

pyarrow = pytest.importorskip("pyarrow")
tables = pytest.importorskip("pyarrow.parquet")


def describe_all(reader, path, **changes):
    return [
        examples.describe_parts(raw)
        for raw in examples.read_all(reader, examples.settings(path, **changes))
    ]


def write_tar(path, members):
    """Write a tar file from pairs: a name, and a content, or a type if the member is not a file."""
    with tarfile.open(path, "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content not in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content, "/etc/passwd"
                file.addfile(info)


def test_members_of_one_key_form_a_document(tmp_path):
    document = {"document": ["x", {"image": "0.png"}, {"text": "y"}, {"image": "9.png"}]}
    write_tar(
        tmp_path / "a.tar",
        [
            ("s/1.txt", b"one"),
            ("s/1.jpg", b"j"),
            ("s/1.cls", b"3"),
            ("s/2.1.png", b"b"),
            ("s/2.0.png", b"a"),
            ("s/2.json", json.dumps({"caption": "two"}).encode()),
            ("s/3.0.png", b"a"),
            ("s/3.json", json.dumps(document).encode()),
        ],
    )
    assert describe_all(webdataset.WebDatasetReader(), tmp_path) == [
        ["<s/1.jpg>", "one"],
        ["<s/2.1.png>", "<s/2.0.png>", "two"],
        ["x", "<s/3.0.png>", "y", "[missing file]"],
    ]
    assert describe_all(webdataset.WebDatasetReader(), tmp_path, columns=("txt", "jpg"))[0] == [
        "one",
        "<s/1.jpg>",
    ]
    raw = next(iter(examples.read_all(webdataset.WebDatasetReader(), examples.settings(tmp_path))))
    assert raw.location == "a.tar, s/1"


def test_irregular_members_are_reported(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        [
            ("../1.png", b"x"),
            ("/2.png", b"x"),
            ("3.png", tarfile.SYMTYPE),
            ("4.png", tarfile.LNKTYPE),
            ("5.png", tarfile.FIFOTYPE),
            ("6.txt", b"fine"),
        ],
    )
    reasons = ["outside the folder"] * 2 + ["not a file"] * 3
    assert describe_all(webdataset.WebDatasetReader(), tmp_path) == [
        [f"[{r}]"] for r in reasons
    ] + [["fine"]]


def test_truncated_tar_file_is_read_to_its_end(tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, [(f"{n}.txt", b"x" * 600) for n in range(3)])
    whole = path.read_bytes()
    for data, documents in ((whole[:1000], 0), (whole[:2000], 1), (whole[:3700], 2), (b"no", 0)):
        path.write_bytes(data)
        described = []
        with pytest.raises(DataError, match="unreadable file"):
            append_documents(described, path)
        assert len(described) == documents
    path.write_bytes(whole[:1536] + b"?" * 512 + whole[2048:])
    with pytest.raises(DataError, match="damaged header"):
        list(webdataset.WebDatasetReader().read(*single_unit(webdataset.WebDatasetReader(), path)))


def append_documents(documents, path):
    for raw in webdataset.WebDatasetReader().read(
        *single_unit(webdataset.WebDatasetReader(), path)
    ):
        documents.append(raw)


def single_unit(reader, path):
    config = examples.settings(path)
    (unit,) = reader.list_units(config)
    return config, unit


def test_negative_size_does_not_loop_forever(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("a.txt")
        info.pax_headers = {"size": "-2048"}
        file.addfile(info)
    with pytest.raises(DataError, match="unreadable file"):
        list(webdataset.WebDatasetReader().read(*single_unit(webdataset.WebDatasetReader(), path)))


def write_table(path, rows):
    tables.write_table(pyarrow.Table.from_pylist(rows), path)


def test_images_and_texts_of_a_table(tmp_path):
    picture = {"bytes": b"p", "path": "p.png"}
    write_table(
        tmp_path / "a.parquet",
        [
            {"caption": "one", "image": picture, "url": "http://h", "n": 1},
            {"caption": None, "image": None, "url": "http://h", "n": 2},
        ],
    )
    assert describe_all(parquet.ParquetReader(), tmp_path) == [["<p.png>", "one"], []]
    assert describe_all(parquet.ParquetReader(), tmp_path, columns=("caption", "image"))[0] == [
        "one",
        "<p.png>",
    ]
    with pytest.raises(DataError, match=r"no column x\. Columns: caption, image, url, n"):
        describe_all(parquet.ParquetReader(), tmp_path, columns=("x",))


def test_tables_of_documents(tmp_path):
    picture = {"bytes": b"p", "path": None}
    write_table(tmp_path / "a.parquet", [{"texts": ["a", None], "images": [None, picture]}])
    assert describe_all(parquet.ParquetReader(), tmp_path) == [["a", "<>"]]
    write_table(
        tmp_path / "a.parquet", [{"texts": ["a", None], "images": [None, "http://h/x.png"]}]
    )
    assert describe_all(parquet.ParquetReader(), tmp_path) == [["a", "[address, not a file]"]]
    elsewhere = {"bytes": None, "path": "../x.png"}
    rows = [{"image": elsewhere, "text": "b"}, {"image": picture, "text": "c"}]
    write_table(tmp_path / "a.parquet", rows)
    assert describe_all(parquet.ParquetReader(), tmp_path) == [
        ["[outside the folder]", "b"],
        ["<>", "c"],
    ]
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(DataError, match="unreadable"):
        describe_all(parquet.ParquetReader(), tmp_path)


def test_missing_package_names_the_install_command(tmp_path, monkeypatch):
    def raise_import_error(name):
        raise ImportError(name)

    monkeypatch.setattr(packages.importlib, "import_module", raise_import_error)
    (tmp_path / "a.parquet").write_bytes(b"")
    message = r"source\.format='parquet' needs pyarrow\. Run pip install -r requirements-data\.txt"
    with pytest.raises(UserError, match=message):
        parquet.ParquetReader().list_units(examples.settings(tmp_path))
    (tmp_path / "a.md").write_bytes(b"")
    with pytest.raises(UserError, match="needs markdown-it-py"):
        web_pages.WebPagesReader().list_units(examples.settings(tmp_path))


PAGES = {
    "a.html": (
        "<html><head><title>no</title></head><body><nav>no</nav><p>some <b>bo</b>ld<br>words"
        "<img src='x%20y.png?v=1#z'><p>more &amp; more<script>no</script><img src=''><img>",
        ["some bold words", "<x y.png>", "more & more"],
    ),
    "b.html": ("<p>no</p><main><p>yes<img src='../x.png'></main><p>no",
               ["yes", "[outside the folder]"]),
    "c.html": ("<div class='related'>no</div></div></p><p>a<p>b", ["a b"]),
    "d.html": ("<img src='http://h/x.png'><img src='data:text/plain;base64,AA'>"
               "<img src='data:image/png;base64,AA'>", ["[address, not a file]"] * 2 + ["<>"]),
    "e.md": ("# Head\n\nsome *words*\n\n![no](x.png)\n\n<script>no</script>\n",
             ["Head some words", "<x.png>"]),
    "f.html": ("", []),
    "g.html": ("<" * 1000 + "<div>" * 3000 + "deep", None),
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_pages(tmp_path, name):
    page, expected = PAGES[name]
    (tmp_path / name).write_text(page)
    (parts,) = describe_all(web_pages.WebPagesReader(), tmp_path)
    tidy = [" ".join(part.split()) for part in parts]
    assert tidy == expected if expected is not None else tidy[-1].endswith("deep")


def test_pages_in_the_character_set_that_they_name():
    page = "<meta charset='latin-1'>größer"
    assert web_pages.decode_page(page.encode("latin-1")) == page
    assert web_pages.decode_page("größer".encode("utf-16")) == "größer"
    assert web_pages.decode_page(b"<meta charset='rot13'>a\xff") == "<meta charset='rot13'>a\udcff"
    assert web_pages.decode_page(b"<meta charset='nonsense'>a") == "<meta charset='nonsense'>a"


def test_addresses_are_not_text():
    assert html_text.url_to_path("http://h/a?b") == "http://h/a?b"
    assert html_text.url_to_path("a%2e%2e/b.png?c") == "a../b.png"


def test_pairs(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "DOCUMENTS_PER_UNIT", 1)
    for name in ("b.png", "b.txt", "a.0.png", "a.1.png", "a.txt", "c.txt", "d.exe"):
        (tmp_path / name).write_bytes(name.encode())
    assert describe_all(pairs.PairsReader(), tmp_path) == [
        ["<a.0.png>", "<a.1.png>", "a.txt"],
        ["<b.png>", "b.txt"],
        ["c.txt"],
    ]
    assert len(pairs.PairsReader().list_units(examples.settings(tmp_path))) == 3
    assert describe_all(pairs.PairsReader(), tmp_path, glob="b*") == [["<b.png>", "b.txt"]]


def test_data_sets_of_tfds(tmp_path):
    builder = digits.builder(tmp_path)
    builder.download_and_prepare()
    config = examples.settings(builder.data_dir, split="heldout", columns=("images", "document"))
    reader = tfds.TfdsReader()
    assert formats.detect_format(config) == "tfds"
    unit = reader.list_units(config)[0]
    raw = next(iter(reader.read(config, unit)))
    assert len(raw.parts) == 2
    assert raw.parts[0].load().startswith(b"\x89PNG")
    assert b'"text"' in raw.parts[1]
    with pytest.raises(UserError, match=r"source\.split='test': .* train, heldout"):
        reader.list_units(examples.settings(builder.data_dir, split="test"))
    with pytest.raises(UserError, match="nor a data set that TFDS knows"):
        reader.list_units(examples.settings("no_such_thing", format="tfds"))


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["a.jsonl", "x.png"], "jsonl"),
        (["a.tar"], "webdataset"),
        (["a.parquet"], "parquet"),
        (["a.html", "b.md", "x.png"], "pages"),
        (["a.png", "a.txt"], "pairs"),
    ],
)
def test_format_is_detected_from_the_files(tmp_path, names, kind):
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    assert formats.detect_format(examples.settings(tmp_path)) == kind


def test_ambiguous_format_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no file has a known extension"):
        formats.detect_format(examples.settings(tmp_path))
    for name in ("a.jsonl", "b.tar", "c.tar"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"1 of 'jsonl', 2 of 'webdataset'.*Set source\.format"):
        formats.detect_format(examples.settings(tmp_path))
    with pytest.raises(UserError, match=r"source\.format='xml': .* auto, jsonl"):
        formats.detect_format(examples.settings(tmp_path, format="xml"))
    with pytest.raises(UserError, match="no such file or folder"):
        formats.detect_format(examples.settings(tmp_path / "none"))
