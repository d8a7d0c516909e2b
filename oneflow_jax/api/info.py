"""Description of a model: what it is, what it knows, and its limits."""

import dataclasses

SHOWN_WORDS = 200
"""Maximum number of words, and of names, that `str(info)` shows."""


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Description of a model; `print(info)` shows it as text.

    Attributes:
        name: name of the run.
        paradigm: name of the paradigm.
        parameters: number of parameters.
        pixels: width and height of the images, in pixels.
        gap_tokens: number of tokens of the gap `<text>`, with the end token; None if the model
            chooses the length.
        slots: maximum length of a document: its tokens, image patches and markers.
        chooses_parts: whether the gap `<document>` is supported.
        can_edit: whether `Model.edit` is supported.
        words: words and beginnings of words that are one token, in alphabetical order. A small
            tokenizer has a token for each frequent word of its training texts, so the model
            probably knows only these words.
        names: names in the training data, such as "tiger"; for own data, its most frequent
            captions. () if the data set has no list of names, or if the prepared own data is not on
            this machine.
    """

    name: str
    paradigm: str
    parameters: int
    pixels: int
    gap_tokens: int | None
    slots: int
    chooses_parts: bool
    can_edit: bool
    words: tuple[str, ...] = dataclasses.field(repr=False)
    names: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    def __str__(self) -> str:
        """Return the description in one line per attribute."""
        gap = "any length" if self.gap_tokens is None else f"{self.gap_tokens} tokens at most"
        return "\n".join(
            (
                f"{self.name}: {self.paradigm}, {self.parameters:,} parameters",
                f"images: {self.pixels} x {self.pixels} pixels",
                f"text of a gap <text>: {gap}",
                f"document: {self.slots} slots at most",
                f"edits finished documents: {'yes' if self.can_edit else 'no'}",
                *([f"names: {_shorten(self.names)}"] if self.names else []),
                f"words: {_shorten(self.words)}",
            )
        )


def _shorten(words: tuple[str, ...]) -> str:
    more = len(words) - SHOWN_WORDS
    return ", ".join(words[:SHOWN_WORDS]) + (f" and {more:,} more" if more > 0 else "")
