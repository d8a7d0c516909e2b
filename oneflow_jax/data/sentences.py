"""Sentences about named pictures: written for training, and read back word for word for scoring.

In a template, `{0}` is a name with its article, `[0]` the picture of that name, and `{kinds}` what
all names are, in the plural. The names of one document all differ.
"""

import functools
import re
from collections.abc import Collection, Mapping, Sequence

from oneflow_jax.data import document as documents

CAPTION_TEMPLATES = (
    "a picture of {0}: [0]",
    "here is {0}: [0]",
    "{0} [0]",
    "[0] {0}",
    "[0] this is {0}",
    "[0] a picture of {0}",
)
"""Documents of one picture: words first or picture first."""

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
"""Documents of 2 to 4 pictures of one kind; counts and orders hold for words and pictures alike."""

TEMPLATE_WORDS = frozenset(
    word.strip(":,")
    for template in (*CAPTION_TEMPLATES, *INTERLEAVED_TEMPLATES)
    for word in template.split()
    if not re.match(r"[{\[]", word)
) | {"a", "an", ""}
"""The words of the forms themselves, which name nothing; and punctuation."""

_UNCOUNTABLE = re.compile(
    "bacon|bread|broccoli|bubble tea|butter|canned food|cooked rice|curry rice|fondue|fried shrimp"
    "|garlic|ginger root|ice|mate|popcorn|sake|salt|shaved ice|spaghetti|sushi"
)
_NUMBER_WORDS = ("two", "three", "four")
_IMAGE_FIELD = re.compile(r"\s*\[(\d)\]\s*")
_FIELD = re.compile(r"\\\{(\d|kinds)\\\}")


def noun_phrase(name: str) -> str:
    """Returns `name` as a sentence needs it: 'a fox', 'an owl', 'grapes'."""
    plural = name.endswith("s") and not name.endswith(("ss", "us", "os"))
    if plural or _UNCOUNTABLE.fullmatch(name):
        return name
    vowel_sound = name[0] in "aeiou" and not name.startswith(("eu", "uni", "ufo", "uk", "one"))
    return f"an {name}" if vowel_sound else f"a {name}"


def num_names(template: str) -> int:
    """Returns how many different names a template speaks of."""
    return len(set(_IMAGE_FIELD.findall(template)))


def render(template: str, names: Sequence[str], kind: str) -> tuple[str | int, ...]:
    """Returns the parts of a document: words, and for each picture the index of its name.

    `kind` is what all `names` are, in the singular ('animal').
    """
    pieces = _IMAGE_FIELD.split(template)
    words = {"kinds": f"{kind}s"}
    parts = [
        int(piece) if index % 2 else piece.format(*map(noun_phrase, names), **words)
        for index, piece in enumerate(pieces)
    ]
    return tuple(part for part in parts if part != "")


def parse_name(caption: str, names: Collection[str]) -> str | None:
    """Returns the one of `names` that a single picture's words name.

    None unless `caption` is, word for word, one of `CAPTION_TEMPLATES` with exactly one of `names`.
    """
    kinds = tuple((name, "picture") for name in names)
    for template in CAPTION_TEMPLATES:
        words = " ".join(filter(None, _IMAGE_FIELD.split(template)[::2]))
        found = _template_regex(words, kinds).fullmatch(caption)
        if found:
            return _phrases_to_names(kinds)[found["n0"]]
    return None


def extract_names(text: str, names: Collection[str]) -> list[str]:
    """Returns the names that words speak of, in their order; 'a red apple' speaks of no other."""
    kinds = tuple((name, "") for name in names)
    phrases = sorted(_phrases_to_names(kinds), key=len, reverse=True)
    found = re.findall(rf"(?<!\w)(?:{'|'.join(map(re.escape, phrases))})(?!\w)", text)
    return [_phrases_to_names(kinds)[phrase] for phrase in found]


def parse_count(text: str) -> int | None:
    """Returns how many things words promise: 3 for 'three animals: ...'; None if they do not."""
    found = re.match(r"(two|three|four) \w+:", text)
    return _NUMBER_WORDS.index(found[1]) + 2 if found else None


def expected_names(
    document: documents.Document, kinds: Mapping[str, str]
) -> tuple[str, ...] | None:
    """Returns the name that each picture of a document should show, in reading order.

    Args:
      document: words and pictures; a gap for a picture counts as a picture.
      kinds: all names, each with its kind ('animal').

    Returns:
      None unless the document is one of the forms above word for word, its pictures in their
      places, its names all different, and its count and its kind true.
    """
    flat = _flatten(document)
    for template in (*CAPTION_TEMPLATES, *INTERLEAVED_TEMPLATES):
        shape = " ".join(_IMAGE_FIELD.sub(" <image> ", template).split())
        names = _match_fields(shape, flat, kinds)
        if names is not None:
            return tuple(names[int(index)] for index in _IMAGE_FIELD.findall(template))
    return None


def match_template(text: str, kinds: Mapping[str, str]) -> str | None:
    """Returns the template that words alone follow to the letter, wherever their pictures are.

    Of two with the same words, as '{0} [0]' and '[0] {0}' are, it is the first. A space ahead of a
    comma does not count: it is what a picture leaves behind.

    Args:
      text: all of a document's.
      kinds: all names, each with its kind ('animal').

    Returns:
      None unless the words are those of one of the forms, their names all different, and their
      count and their kind true.
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
    """Returns the names that make `text` of `shape`, by number; None if no true ones do."""
    known = tuple(kinds.items())
    found = _template_regex(shape, known).fullmatch(text)
    if not found:
        return None
    fields = found.groupdict()
    kind = fields.pop("kinds", None)
    names = [_phrases_to_names(known)[fields[key]] for key in sorted(fields)]
    true_kind = kind is None or all(f"{kinds[name]}s" == kind for name in names)
    return names if true_kind and len(set(names)) == len(names) else None


@functools.lru_cache(maxsize=8)
def _phrases_to_names(kinds: tuple[tuple[str, str], ...]) -> dict[str, str]:
    return {noun_phrase(name): name for name, _ in kinds}


@functools.lru_cache(maxsize=128)
def _template_regex(template: str, kinds: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    """Returns what matches a template filled in; groups `n0`, `n1`, ... hold the phrases."""
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
