"""Tests of images in formats that are not read: the message says what to do."""

import io

import pytest
from PIL import Image, TiffImagePlugin

from oneflow_jax.data import image_io, unread_formats
from oneflow_jax.data.custom import image_decode, notices, prepare, store
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.errors import UserError
from tests.data.custom import examples
from tests.data.custom.changing_source import prepare_here
from tests.data.custom.test_record_layouts import RED, lines, read_folder

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def make_dng():
    file = io.BytesIO()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[unread_formats.DNG_TAG] = b"\1\4\0\0"
    Image.new("RGB", (8, 8), "red").save(file, "TIFF", tiffinfo=tags)
    return file.getvalue()


FILES = {
    "a.heic": (HEIC, "HEIC or HEIF"),
    "a.HIF": (HEIC, "HEIC or HEIF"),
    "a.jpg": (HEIC, "HEIC or HEIF"),
    "a": (b"\0\0\0\x18ftypmif1\0\0\0\0", "HEIC or HEIF"),
    "a.jxl": (b"\xff\x0a\0\0", "JPEG XL"),
    "b.jxl": (b"\0\0\0\x0cJXL \r\n\x87\n\0", "JPEG XL"),
    "a.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n\0", "JPEG 2000"),
    "a.svg": (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "SVG"),
    "b.svg": (b" <svg/>", "SVG"),
    "a.psd": (b"8BPS\0\1", "Photoshop"),
    "a.exr": (b"v/1\x01\2\0", "OpenEXR"),
    "a.cr3": (b"\0\0\0\x18ftypcrx \0\0\0\1", "camera raw"),
    "a.dng": (make_dng(), "camera raw"),
    "a.tif": (make_dng(), "camera raw"),
    "a.nef": (examples.png(image_format="TIFF"), "camera raw"),
}


@pytest.mark.parametrize("name", FILES)
def test_formats_that_are_not_read_are_named_with_advice(name):
    data, known = FILES[name]
    with pytest.raises(DataError, match=rf"{known} is not read\. Convert .* magick") as fault:
        image_decode.decode_image(data, name, 4, 1.0)
    assert fault.value.reason == "unread format"


def test_content_counts_more_than_the_extension():
    pixels, repairs = image_decode.decode_image(RED, "a.heic", 4, 1.0)
    assert (pixels == (255, 0, 0)).all()
    assert repairs == {"wrong extension"}
    assert unread_formats.recognize(b"", "a.png") == unread_formats.recognize(b"x") == ""


@pytest.mark.parametrize("name", ["a.heic", "a.svg", "a.psd"])
def test_an_image_of_a_prompt_is_named_with_advice(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name][0])
    with pytest.raises(UserError, match=rf"{name}': {FILES[name][1]} is not read\. Convert"):
        image_io.load(tmp_path / name, 4)


@pytest.mark.parametrize(
    "files",
    [
        {"a.heic": HEIC, "a.txt": "a cat", "b.png": RED, "b.txt": "a dog"},
        {"a.jsonl": lines({"image": "a.heic", "caption": "a cat"},
                          {"image": "b.png", "caption": "a dog"}), "a.heic": HEIC, "b.png": RED},
        {"a.csv": "file_name,text\na.heic,a cat\nb.png,a dog\n", "a.heic": HEIC, "b.png": RED},
        {"a.md": "a cat", "a.heic": HEIC, "b.md": "a dog", "b.png": RED},
    ],
)  # fmt: skip
def test_their_documents_are_dropped_with_a_notice(tmp_path, files):
    documents, stats = read_folder(tmp_path, files)
    assert documents == [["<red>", "a dog"]]
    assert stats.lost == {"unread format": 1}
    assert stats.dropped == {"no picture left": 1}
    (notice,) = [each for each in notices.list_notices(stats, {}) if "not read" in each]
    assert notice.startswith("The format of 1 image is not read, such as that of a")
    assert "Convert the file to PNG or JPEG" in notice


def test_a_folder_of_only_such_images_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "_run_workers", prepare_here)
    own = tmp_path / "own"
    examples.write_files(own, {f"{n}.heic": HEIC for n in range(3)})
    folder = prepare.prepare(examples.settings(own), str(tmp_path / "data"), 1)
    with pytest.raises(UserError, match=r"0 documents.*3 images .*HEIC.*Convert the file to PNG"):
        prepare.check_splits(store.open_prepared(folder))
