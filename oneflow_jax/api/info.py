"""Description of a model: what it is, what it knows, and its limits."""

import dataclasses
import textwrap

from oneflow_jax.data.image_shapes import SQUARE
from oneflow_jax.viewer import templates

NUM_EXAMPLES = 12
"""Number of names that `str(info)` shows."""

LINE_LENGTH = 96
"""Maximum length of the lines of `str(info)`, in characters."""

TEXT_ONLY = ("text",)
"""Tasks of a language model, which has no images."""

_TASKS = {
    "text": "text after text",
    "joint": "text and images together",
    "text_to_image": "images from text",
    "image_to_text": "text from images",
    "spans": "infilling",
    "scattered": "infilling",
}
"""What a model generates after training on a task (`flows.tasks`), as `str(info)` names it."""


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """Description of a model; `print(info)` shows it as text, and a notebook as a table.

    Attributes:
        name: name of the run.
        paradigm: name of the paradigm.
        parameters: number of parameters.
        tasks: names of the training tasks: "joint", "text_to_image", "image_to_text", "spans" and
            "scattered" (`paradigm.tasks`); ("text",) for a language model.
        pixels: width and height of square images, in pixels.
        aspect_ratios: aspect ratios of images, width to height; images of other ratios than "1:1"
            have about as many pixels as a square (`<image 3:2>`).
        image_slots: number of slots of a square image in a document.
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
    tasks: tuple[str, ...]
    pixels: int
    image_slots: int
    gap_tokens: int | None
    slots: int
    chooses_parts: bool
    can_edit: bool
    words: tuple[str, ...] = dataclasses.field(repr=False)
    names: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    aspect_ratios: tuple[str, ...] = (SQUARE,)

    def __str__(self) -> str:
        """Return the description in a few lines; of many names and words, only some examples."""
        rows = [*self._list_facts(), *self._list_words()]
        return "\n".join([self.name, *(_format_row(title, text) for title, text in rows)])

    def _repr_html_(self) -> str:
        """Return the HTML that notebooks show: a table, and all names and words to unfold."""
        lists = [(f"{len(self.words):,} words with a token of their own", self.words)]
        if self.names:
            lists.insert(0, (f"{len(self.names):,} names: {self._list_examples()}", self.names))
        return templates.render(
            "model_info.html", name=self.name, rows=self._list_facts(), lists=lists
        )

    def _list_facts(self) -> list[tuple[str, str]]:
        """Return the title and the text of each row, without those of names and words."""
        has_images = self.tasks != TEXT_ONLY
        tasks = [_TASKS[name] for name in self.tasks] + ["editing"] * self.can_edit
        most = f"{self.gap_tokens} tokens at most, with the end token"
        image = f", of which an image takes {self.image_slots}" if has_images else ""
        images = [("images", self._describe_images())] if has_images else []
        return [
            ("paradigm", f"{self.paradigm}, {self.parameters:,} parameters"),
            ("generates", ", ".join(dict.fromkeys(tasks))),
            *images,
            ("gap <text>", "any length" if self.gap_tokens is None else most),
            ("document", f"{self.slots:,} slots at most{image}"),
        ]

    def _describe_images(self) -> str:
        others = [ratio for ratio in self.aspect_ratios if ratio != SQUARE]
        also = f", and {', '.join(f'<image {ratio}>' for ratio in others)}" if others else ""
        return f"{self.pixels} x {self.pixels} pixels{also}"

    def _list_words(self) -> list[tuple[str, str]]:
        """Return the rows of names and words: how many there are, and where all of them are."""
        words = f"{len(self.words):,} with a token of their own (all: model.info().words)"
        if not self.names:
            return [("words", words)]
        more = " (all: model.info().names)" if len(self.names) > NUM_EXAMPLES else ""
        return [("names", f"{len(self.names):,}: {self._list_examples()}{more}"), ("words", words)]

    def _list_examples(self) -> str:
        """Return names from all parts of the list, because neighbors are of the same kind."""
        every = max(1, len(self.names) // NUM_EXAMPLES)
        more = " ..." if len(self.names) > NUM_EXAMPLES else ""
        return ", ".join(self.names[::every][:NUM_EXAMPLES]) + more


def _format_row(title: str, text: str) -> str:
    return textwrap.fill(
        text,
        LINE_LENGTH,
        initial_indent=f"  {title:<12}",
        subsequent_indent=" " * 14,
        break_long_words=False,
        break_on_hyphens=False,
    )
