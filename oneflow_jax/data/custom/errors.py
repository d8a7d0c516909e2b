"""What may be wrong with a user's data, by name, and what is done about it.

Nothing that is found in data stops a preparation: it is left out, or put right, and counted.
"""

DROP_REASONS = {
    # Of a document, or of what was to be one.
    "malformed line": "not JSON, or nested too deeply",
    "unknown layout": "JSON, but none of the layouts in docs/own_data.md",
    "line too long": "more than 64 MiB in one line",
    "unreadable file": "an archive, a table, a page or a file that cannot be read, or read on",
    "empty document": "neither words nor a picture",
    "no picture left": "there were pictures, and all of them were dropped",
    "the reader died": "its process died over it, twice",
    "the reader hung": "took longer than source.patience seconds",
    "unexpected error": "an error that no reader knows: please report it",
    # Of a picture.
    "outside the folder": "a path that leads out of the given folder, by .., / or a link",
    "address, not a file": "http:, data: or the like; nothing is ever downloaded",
    "missing file": "there is no such file",
    "not a file": "a folder, a pipe, a socket or a device",
    "bad path": "no text, empty, too long, or with a NUL in it",
    "empty picture": "a file of no bytes, or of no height or width",
    "too large": "more bytes than 256 MiB (a page: 16), or more pixels than source.megapixels",
    "not a picture": "no picture of a known format, whatever its name says",
    "damaged picture": "cut short, or wrong inside",
    # Of words.
    "not words": "where words should be there is something else",
    "blank words": "nothing to see: white space, control characters",
}
"""Why something is left out."""

REPAIRS = {
    "invalid UTF-8": "bytes that are no UTF-8 became U+FFFD",
    "lone surrogates": "halves of characters became U+FFFD",
    "control characters": "taken out",
    "first frame": "of an animation the first picture was taken",
    "transparency": "laid over white",
    "CMYK": "turned into RGB",
    "16 bits": "turned into 8",
    "wrong extension": "read by what it is, not by its name",
    "cut into sections": "more than 20,000 words, or 100,000 characters without a break",
}
"""What is put right and kept."""


class DataError(Exception):
    """Something in the data cannot be used.

    Attributes:
        reason: a key of `DROP_REASONS`.
        detail: what was seen, in a few words; may be empty.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        """Refuses a reason that nobody has explained."""
        if reason not in DROP_REASONS:
            raise KeyError(reason)
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail[:200]

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason
