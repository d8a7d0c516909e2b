"""Formats of images that the program does not read: how to recognize them, and what to do."""

EXTENSIONS = {
    "HEIC or HEIF": (".heic", ".heics", ".heif", ".heifs", ".hif"),
    "JPEG XL": (".jxl",),
    "JPEG 2000": (".jp2", ".j2k", ".jpf", ".jpx"),
    "SVG": (".svg", ".svgz"),
    "Photoshop": (".psd", ".psb"),
    "OpenEXR": (".exr",),
    "camera raw": (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),
}
"""Extensions of the files of each format."""

DNG_TAG = 50706
"""Tag of TIFF that marks a raw file in the format DNG."""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_STARTS = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"v/1\x01": "OpenEXR",
    b"<svg": "SVG",
    b"FUJIFILMCCD-RAW": "camera raw",
}


def recognize(data: bytes, name: str = "") -> str:
    """Return the format of a file that Pillow cannot open, by its content or name, or ""."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "HEIC or HEIF"
    if data[4:12] == b"ftypcrx ":
        return "camera raw"
    start = data[:512].lstrip(b"\xef\xbb\xbf \r\n\t")
    if start.startswith(b"<?xml") and b"<svg" in start:
        return "SVG"
    by_content = (known for mark, known in _STARTS.items() if data.startswith(mark))
    by_name = (known for known, endings in EXTENSIONS.items() if name.lower().endswith(endings))
    return next(by_content, "SVG" if start.startswith(b"<svg") else next(by_name, ""))


def advise(image_format: str) -> str:
    """Return a message that says how to convert a file of a format, a key of `EXTENSIONS`."""
    ending = EXTENSIONS[image_format][0]
    return (
        f"{image_format} is not read. Convert the file to PNG or JPEG, for example with "
        f"ImageMagick: magick mogrify -format png *{ending}"
    )
