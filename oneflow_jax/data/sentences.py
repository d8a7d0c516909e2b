"""Sentences about named images: rendered for training, and parsed exactly for evaluation.

In a template, `{0}` stands for a name with its article, `[0]` for the image of this name, and
`{kinds}` for the plural noun that covers all names, such as "animals". The names in one document
are all different. Either all names of a document begin with a drawing style (see `labels`), or no
name does.
"""

import functools
import re
from collections.abc import Collection, Mapping, Sequence

from oneflow_jax.data import document as documents
from oneflow_jax.data import labels

CAPTION_TEMPLATES = (
    "a picture of {0}: [0]",
    "here is {0}: [0]",
    "{0} [0]",
    "[0] {0}",
    "[0] this is {0}",
    "[0] a picture of {0}",
)
"""Templates of documents with one image: text first or image first."""

INTERLEAVED_TEMPLATES = (
    "{0} [0] and {1} [1]",
    "first {0} [0], then {1} [1]",
    "two {kinds}: {0} [0] and {1} [1]",
    "two {kinds}: first {0} [0], last {1} [1]",
    "{0} [0], then {1} [1], then {0} again [0]",
    "[0] [1] on the left {0}, on the right {1}",
    "{0} [0], {1} [1] and {2} [2]",
    "three {kinds}: {0} [0], {1} [1] and {2} [2]",
    "three {kinds}: first {0} [0], then {1} [1], last {2} [2]",
    "[0] [1] [2] in this order: {0}, {1} and {2}",
    "four {kinds}: {0} [0], {1} [1], {2} [2] and {3} [3]",
    "four {kinds}: first {0} [0], then {1} [1], then {2} [2], last {3} [3]",
)
"""Templates of documents with 2 to 4 images of one kind.

The number and the order of the images agree with the text.
"""

TEMPLATE_WORDS = frozenset(
    word.strip(":,")
    for template in (*CAPTION_TEMPLATES, *INTERLEAVED_TEMPLATES)
    for word in template.split()
    if not re.match(r"[{\[]", word)
) | {"a", "an", ""}
"""Words of the templates that are not part of a name, without punctuation."""

_UNCOUNTABLE = re.compile(
    "bacon|bread|broccoli|bubble tea|butter|canned food|cooked rice|curry rice|fondue|fried shrimp"
    "|garlic|ginger root|ice|mate|popcorn|sake|salt|shaved ice|spaghetti|sushi"
)
NUMBER_WORDS = ("two", "three", "four")
"""Words of the templates for 2, 3 and 4 images."""

_IMAGE_FIELD = re.compile(r"\s*\[(\d)\]\s*")
_FIELD = re.compile(r"\\\{(\d|kinds)\\\}")


def noun_phrase(name: str) -> str:
    """Return `name` with an article, if the name needs an article: 'a fox', 'an owl', 'grapes'.

    `name` may begin with a drawing style: 'a noto fox', 'an openmoji owl', 'noto bread'.
    """
    plural = name.endswith("s") and not name.endswith(("ss", "us", "os"))
    if plural or _UNCOUNTABLE.fullmatch(labels.split_label(name)[1]):
        return name
    vowel_sound = name[0] in "aeiou" and not name.startswith(("eu", "uni", "ufo", "uk", "one"))
    return f"an {name}" if vowel_sound else f"a {name}"


@functools.cache
def interleaved_templates(max_names: int) -> tuple[str, ...]:
    """Return the templates of documents with several images that need at most `max_names` names."""
    return tuple(template for template in INTERLEAVED_TEMPLATES if num_names(template) <= max_names)


def num_names(template: str) -> int:
    """Return the number of different names in a template."""
    return len(set(_IMAGE_FIELD.findall(template)))


def render(template: str, names: Sequence[str], kind: str) -> tuple[str | int, ...]:
    """Fill in a template and return its parts: text, and for each image the index of its name.

    `kind` is the singular noun for all `names`, such as 'animal'.
    """
    pieces = _IMAGE_FIELD.split(template)
    words = {"kinds": f"{kind}s"}
    parts = [
        int(piece) if index % 2 else piece.format(*map(noun_phrase, names), **words)
        for index, piece in enumerate(pieces)
    ]
    return tuple(part for part in parts if part != "")


def parse_name(caption: str, names: Collection[str]) -> str | None:
    """Return which of `names` is in the caption of a single image.

    Return None if `caption` is not exactly one of `CAPTION_TEMPLATES` with one of `names`.
    """
    kinds = tuple((name, "picture") for name in names)
    for template in CAPTION_TEMPLATES:
        words = " ".join(filter(None, _IMAGE_FIELD.split(template)[::2]))
        match = _template_regex(words, kinds).fullmatch(caption)
        if match:
            return _phrases_to_names(kinds)[match["n0"]]
    return None


def extract_names(text: str, names: Collection[str]) -> list[str]:
    """Return the names in a text, in order. Of overlapping names, only the longest counts."""
    kinds = tuple((name, "") for name in names)
    phrases = sorted(_phrases_to_names(kinds), key=len, reverse=True)
    occurrences = re.findall(rf"(?<!\w)(?:{'|'.join(map(re.escape, phrases))})(?!\w)", text)
    return [_phrases_to_names(kinds)[phrase] for phrase in occurrences]


def parse_count(text: str) -> int | None:
    """Return the count at the beginning of a text, such as 3 for 'three animals: ...', or None."""
    match = re.match(r"(two|three|four) \w+:", text)
    return NUMBER_WORDS.index(match[1]) + 2 if match else None


def expected_names(
    document: documents.Document, kinds: Mapping[str, str]
) -> tuple[str, ...] | None:
    """Return the name that each image of a document should show, in reading order.

    Args:
      document: text and images; an image gap counts as an image.
      kinds: kind of each known name, such as 'animal'.

    Returns:
      The names, or None if the document does not match a template exactly. In a match, the text
      and the places of the images are those of the template, all names are different, and the
      count and the kind are correct.
    """
    flat = _flatten(document)
    for template in (*CAPTION_TEMPLATES, *INTERLEAVED_TEMPLATES):
        shape = " ".join(_IMAGE_FIELD.sub(" <image> ", template).split())
        names = _match_fields(shape, flat, kinds)
        if names is not None:
            return tuple(names[int(index)] for index in _IMAGE_FIELD.findall(template))
    return None


def match_template(text: str, kinds: Mapping[str, str]) -> str | None:
    """Return the template that gives `text` when names are filled in and images are left out.

    If two templates have the same words, such as '{0} [0]' and '[0] {0}', the first is returned. A
    space before a comma is ignored, since the removal of an image leaves such a space.

    Args:
      text: all text of a document.
      kinds: kind of each known name, such as 'animal'.

    Returns:
      The template, or None if the text matches no template. In a match, all names are different,
      and the count and the kind are correct.
    """
    flat = text.replace(" ,", ",")
    for template in (*CAPTION_TEMPLATES, *INTERLEAVED_TEMPLATES):
        shape = " ".join(filter(None, _IMAGE_FIELD.split(template)[::2])).replace(" ,", ",")
        if _match_fields(shape, flat, kinds) is not None:
            return template
    return None


def _flatten(document: documents.Document) -> str:
    return " ".join(
        part.text if isinstance(part, documents.Text) else "<image>" for part in document.parts
    )


def _match_fields(shape: str, text: str, kinds: Mapping[str, str]) -> list[str] | None:
    """Return the names that turn the template `shape` into `text`, in order, or None."""
    known = tuple(kinds.items())
    match = _template_regex(shape, known).fullmatch(text)
    if not match:
        return None
    fields = match.groupdict()
    kind = fields.pop("kinds", None)
    names = [_phrases_to_names(known)[fields[key]] for key in sorted(fields)]
    true_kind = kind is None or all(f"{kinds[name]}s" == kind for name in names)
    return names if true_kind and _are_of_one_document(names) else None


def _are_of_one_document(names: Sequence[str]) -> bool:
    """Return whether the names could be in one document: all different, with styles or without."""
    styles, bare = zip(*map(labels.split_label, names), strict=True)
    return len(set(bare)) == len(bare) and len({style is None for style in styles}) == 1


@functools.lru_cache(maxsize=8)
def _phrases_to_names(kinds: tuple[tuple[str, str], ...]) -> dict[str, str]:
    return {noun_phrase(name): name for name, _ in kinds}


@functools.lru_cache(maxsize=128)
def _template_regex(template: str, kinds: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    """Return a pattern for a filled-in template. Its groups `n0`, `n1`, ... match noun phrases."""
    phrases = "|".join(map(re.escape, _phrases_to_names(kinds)))
    plurals = "|".join(sorted({re.escape(f"{kind}s") for _, kind in kinds}))
    seen: set[str] = set()

    def group(field: re.Match[str]) -> str:
        key = field[1]
        name = key if key == "kinds" else f"n{key}"
        again = name in seen
        seen.add(name)
        if again:
            return f"(?P={name})"
        return f"(?P<{name}>{plurals if key == 'kinds' else phrases})"

    return re.compile(_FIELD.sub(group, re.escape(template)))
