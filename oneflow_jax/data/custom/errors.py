"""Names and descriptions of defects in a user's data, and of their repairs.

A defect in the data never stops the preparation. The program drops or repairs the defective part,
and counts it.
"""

DROP_REASONS = {
    # Reasons to drop a document.
    "malformed line": "not JSON, nested too deeply, or a row with too many or too few cells",
    "unknown layout": "valid JSON, but none of the layouts in docs/own_data.md",
    "line too long": "more than 64 MiB in one line",
    "unreadable file": "an archive, a table, a page or another file that cannot be read to its end",
    "empty document": "the document has neither text nor an image",
    "no picture left": "all images of the document were dropped",
    "duplicate": "the document has the same content as a document before it",
    "the reader died": "the process that prepared the document crashed twice",
    "the reader hung": "reading took longer than source.read_timeout seconds, twice",
    "unexpected error": "an error that the reader does not handle; please report it",
    # Reasons to drop an image.
    "outside the folder": "an absolute path, or a path that leaves the folder through .. or a link",
    "address, not a file": "a URL (http: or similar); nothing is ever downloaded",
    "missing file": "the file does not exist",
    "not a file": "a folder, a pipe, a socket or a device",
    "bad path": "a path that is not a string, is empty or too long, or has a NUL character",
    "empty picture": "a file of 0 bytes, or an image of height or width 0",
    "too large": "more than 256 MiB (a page: 16 MiB), or more than source.max_megapixels",
    "not a picture": "not an image of a supported format, regardless of its extension",
    "unread format": "HEIC, JPEG XL, SVG or another format that must be converted first",
    "damaged picture": "truncated or corrupt",
    "no range of values": "floats or 32-bit integers whose values of black and white are unknown",
    "unknown colors": "a file of a color space that cannot be converted to sRGB, such as PQ",
    # Reasons to drop a text.
    "not words": "a value that is not a string where text is expected",
    "blank words": "only white space or control characters",
    "not UTF-8": "a text in another encoding, without a readable character",
}
"""Description of each reason to drop a document, an image or a text."""

REPAIRS = {
    "invalid UTF-8": "bytes that are not UTF-8 were replaced with U+FFFD",
    "lone surrogates": "unpaired surrogates were replaced with U+FFFD",
    "control characters": "control characters were removed",
    "first frame": "a file, such as an animation, has several images; only the first was used",
    "transparency": "the image was composited on white",
    "CMYK": "the image was converted to RGB",
    "16 bits": "16 bits or floats were converted to 8 bits",
    "color profile": "colors were converted to sRGB",
    "unusable color profile": "a profile that is damaged or does not fit the image was ignored",
    "cropped": "more than a quarter of the image was cut off; see data.aspect_ratios",
    "wrong extension": "the file was read according to its content, not its extension",
    "cut into sections": "the text had more than 20,000 words or 100,000 characters",
}
"""Description of each repair. A repaired part stays in its document."""


def format_reason(reason: str) -> str:
    """Return the name of a reason for the user; the names in prepared data have an older word."""
    return reason.replace("a picture", "an image").replace("picture", "image")


SEPARATED = "the image and the text of one name are not adjacent in the tar file"
"""Note of a document of a tar file whose other part is a separate document."""


class DataError(Exception):
    """A document or a part of it cannot be used.

    Attributes:
        reason: a key of `DROP_REASONS`.
        detail: short description of the defect; may be empty.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        """Initialize the error.

        Raises:
            KeyError: `reason` is not a key of `DROP_REASONS`.
        """
        if reason not in DROP_REASONS:
            raise KeyError(reason)
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail[:200]

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason
