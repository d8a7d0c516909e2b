"""Small valid files in each format of custom data, and functions that corrupt files."""

import base64
import io
import json
import pathlib
import random
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image

CANARY = "CANARY"
"""A word in a file outside the data folder; it must not get into the prepared documents."""

BAD_BYTES = (
    *(b"../secret/canary.png", b"../secret/canary.txt", b"/etc/passwd", b"link.png", b"pipe.png"),
    *(b"http://127.0.0.1:9/x.png", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\\u0000"),
    *(b"[" * 3000, b"<div>" * 3000, b"<!--", b"NaN", b"1e999", b"-1", b"99999999999", b'"', b"\n"),
    *("\u202e\u200b\ufeff".encode(), "👩‍👩‍👧 ẞ 漢字 ﷽".encode(), b"\xf4\x90\x80\x80"),
)


def make_image(rng: random.Random, image_format: str = "PNG", mode: str = "RGB") -> bytes:
    """Return a small image of noise, encoded in the given format."""
    size = (rng.randint(1, 40), rng.randint(1, 40))
    noise = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (*size, 3), np.uint8)
    image = PIL.Image.fromarray(noise).convert(mode)
    file = io.BytesIO()
    frames = (
        {"save_all": True, "append_images": [image.rotate(90)]} if image_format == "GIF" else {}
    )
    image.save(file, image_format, **frames)
    return file.getvalue()


def make_any_image(rng: random.Random) -> tuple[str, bytes]:
    """Return the extension and the content of a noise image in a random format."""
    forms = (
        *(("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("JPEG", "RGB")),
        *(("JPEG", "CMYK"), ("JPEG", "L"), ("WEBP", "RGB"), ("GIF", "P"), ("BMP", "RGB")),
        *(("TIFF", "CMYK"), ("TIFF", "F"), ("PPM", "L")),
    )
    form, mode = rng.choice(forms)
    if mode == "I;16":
        deep = np.random.default_rng(rng.randrange(2**32)).integers(0, 2**16, (9, 7), np.uint16)
        file = io.BytesIO()
        PIL.Image.fromarray(deep).save(file, form)
        return ".png", file.getvalue()
    return f".{form.lower()}", make_image(rng, form, mode)


def jsonl(rng: random.Random, number: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of two images, and of JSON lines about them in all layouts."""
    names = []
    for each in range(2):
        ending, data = make_any_image(rng)
        names.append(f"pictures/{number}-{each}{ending}")
        yield names[-1], data
    lines = (
        {"document": [{"text": f"number {number}"}, {"image": names[0]}, {"text": "and so on"}]},
        {"image": names[1], "text": f"a picture {number}"},
        {"texts": [f"one {number}", None, "two"], "images": [None, names[0], None]},
        {
            "text_list": [f"a {number}", "b"],
            "image_info": [{"image_name": names[1], "matched_text_index": 1}],
        },
        _chat(number, names[0]),
        {"Caption": f"c {number}", "image": base64.b64encode(make_image(rng)).decode()},
        {"file_name": names[1], "captions": [f"d {number}", "e"], "score": 0.5},
    )
    yield f"{number}.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode()


def _chat(number: int, image: str) -> dict[str, Any]:
    """Return a conversation on an image, as in LLaVA."""
    turns = [
        {"from": "human", "value": "<image>\nwhat is it?"},
        {"from": "gpt", "value": f"it is {number}"},
    ]
    return {"id": str(number), "image": image, "conversations": turns}


def csv(rng: random.Random, number: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of an image, and of a CSV or TSV table that refers to it."""
    ending, data = make_any_image(rng)
    name = f"pictures/{number}{ending}"
    yield name, data
    delimiter, table = rng.choice(((",", ".csv"), (";", ".csv"), ("\t", ".tsv")))
    rows = [("id", "file_name", "caption"), *((str(n), name, f'"{n} of"') for n in range(3))]
    yield f"{number}{table}", "".join(delimiter.join(row) + "\n" for row in rows).encode()


def json_file(rng: random.Random, number: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of an image, and of its captions in JSON, in a random layout."""
    ending, data = make_any_image(rng)
    name = f"pictures/{number}{ending}"
    yield name, data
    layouts = (
        [_chat(number, name)],
        {
            "images": [{"id": 1, "file_name": name}],
            "annotations": [{"image_id": 1, "caption": f"number {number}"}],
        },
        {"images": [{"filename": name, "sentences": [{"raw": f"number {number}"}]}]},
        {name: f"number {number}"},
    )
    yield f"{number}.json", json.dumps(rng.choice(layouts)).encode()


def webdataset(rng: random.Random, number: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of a tar file of three image-text pairs."""
    file = io.BytesIO()
    form = rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for each in range(3):
            ending, data = make_any_image(rng)
            long = "x" * (150 if form == tarfile.GNU_FORMAT else 5)
            for name, content in (
                (f"{long}{each}{ending}", data),
                (f"{long}{each}.txt", f"image {each} of {number}".encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                if form == tarfile.PAX_FORMAT:
                    info.pax_headers = {"comment": "größe"}
                tar.addfile(info, io.BytesIO(content))
    yield f"{number}.tar", file.getvalue()


def parquet(rng: random.Random, number: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of a Parquet table of images and text."""
    import pyarrow
    import pyarrow.parquet

    rows = [
        {
            "image": {"bytes": make_any_image(rng)[1], "path": f"{each}.png"},
            "text": f"row {each} of {number}",
        }
        for each in range(4)
    ]
    file = io.BytesIO()
    codec = rng.choice(("snappy", "zstd", "gzip", "none"))
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, file, compression=codec, row_group_size=2)
    yield f"{number}.parquet", file.getvalue()


def pages(rng: random.Random, number: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of an image, and of an HTML or Markdown page that shows it."""
    ending, data = make_any_image(rng)
    name = f"img/{number}{ending}"
    yield name, data
    if rng.random() < 0.3:
        words = f"# Page {number}\n\nsome *words*\n\n![a]({name})\n\n- and\n- more `code`\n"
        yield f"{number}.md", words.encode()
        return
    encoding = rng.choice(("utf-8", "latin-1", "utf-16"))
    page = (
        f'<!doctype html><html><head><meta charset="{encoding}"><title>t</title></head><body>'
        f"<nav>menu</nav><main><h1>Page {number}</h1><p>größer &amp; more<img src='{name}'>"
        "<p>after <b>it</b><!-- no --><script>x = 1</script></main></body></html>"
    )
    yield f"{number}.html", page.encode(encoding)


def pairs(rng: random.Random, number: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of an image, and of its text file."""
    ending, data = make_any_image(rng)
    yield f"{number}{ending}", data
    yield f"{number}.txt", f"image number {number}".encode()


FORMATS: dict[str, Callable[[random.Random, int], Iterator[tuple[str, bytes]]]] = {
    "jsonl": jsonl,
    "webdataset": webdataset,
    "parquet": parquet,
    "pages": pages,
    "pairs": pairs,
    "csv": csv,
    "json": json_file,
}


def with_path_traversal(rng: random.Random, name: str, data: bytes, secret: pathlib.Path) -> bytes:
    """Return `data` with image names replaced by paths to secret files, folders, pipes or links."""
    lures = (
        *("../secret/canary.png", "../inside/../secret/canary.png", "link.png", "away/canary.png"),
        *("pipe.png", ".", "", "../pipe.png", "../link.png", "../away/canary.png"),
        *(str(secret / "canary.png"), f"file://{secret}/canary.png", "/etc/passwd", "~/.profile"),
    )
    if name.endswith(".tar"):
        return _path_traversal_tar(rng, lures, secret)
    names = re.compile(rb"(?:pictures|img)/[0-9-]+\.\w+")
    return names.sub(lambda match: rng.choice(lures).encode(), data)


def _path_traversal_tar(
    rng: random.Random, traversal_paths: Sequence[str], secret: pathlib.Path
) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(4):
            info = tarfile.TarInfo(f"{number}{rng.choice(('.png', '.txt'))}")
            info.type = rng.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE))
            info.linkname = rng.choice((*traversal_paths, str(secret / "canary.txt")))
            tar.addfile(info)
            info = tarfile.TarInfo(rng.choice(traversal_paths))
            tar.addfile(info)
    return file.getvalue()


def corrupt(rng: random.Random, data: bytes) -> bytes:
    """Corrupt the content of a file in one to four random ways."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content) + 1)
        length = min(rng.choice((1, 2, 4, 16, 64, 512)), len(content) - at)
        match rng.randrange(8):
            case 0:
                del content[at:]
            case 1:
                content[at : at + length] = rng.randbytes(length)
            case 2:
                content[at : at + length] = bytes(length)
            case 3:
                content[at:at] = rng.choice(BAD_BYTES)
            case 4:
                content[at : at + length] = rng.choice(BAD_BYTES)
            case 5:
                del content[at : at + length]
            case 6:
                content[at:at] = content[: rng.randrange(min(len(content), 4096) + 1)]
            case 7 if at < len(content):
                content[at] ^= 1 << rng.randrange(8)
    return bytes(content)
