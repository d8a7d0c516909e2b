"""Case folding and warnings for letters and words in prompts that the tokenizer does not know.

If a word has a letter without a token, its other canonical forms of Unicode are tried, too: macOS
writes an accent as a separate character, and most texts do not.
"""

import functools
import logging
import re
import unicodedata
from collections.abc import Iterator

from rapidfuzz import fuzz, process

from oneflow_jax import errors
from oneflow_jax.data import characters, document
from oneflow_jax.data.vocab import TextVocab

_MIN_SIMILARITY = 70
"""Minimum similarity, in percent, of a word and the nearest word that a message suggests."""

_MIN_SIMILARITY_OF_BEGINNING = 85
"""The same for a word with which another one begins: it may be a token and not a word ("roo")."""

_WORD = re.compile(r"[^\W\d_]{2,}")


def encode_prompt(vocab: TextVocab, text: str) -> list[int]:
    """Return the ids of a prompt's text. Letters without a token are changed to another case.

    Raises:
        UserError: the text is empty, or has symbols that have no token in any case.
    """
    folded = fold_case(vocab, text)
    missing = vocab.missing_symbols(folded)
    if not missing:
        return vocab.encode(folded)
    words = [word for word in folded.split() if set(missing) & set(word)]
    nearest = [note for word in words[:5] if (note := _name_nearest(vocab, word))]
    raise errors.UserError(
        f"text {text!r}: the tokenizer has no token for "
        f"{' '.join(map(characters.describe, missing))}. Use other characters. {' '.join(nearest)}"
    )


def fold_case(vocab: TextVocab, text: str) -> str:
    """Change the case or Unicode form of words whose letters lack tokens, and return the text."""
    return "".join(
        part if part.isspace() else _fold_word(vocab, part) for part in re.split(r"(\s+)", text)
    )


def list_folded(vocab: TextVocab, text: str) -> list[str]:
    """Return a list with a warning if `fold_case` changes the text, and otherwise []."""
    changes = {
        before: after
        for before, after in zip(text.split(), fold_case(vocab, text).split(), strict=True)
        if _compose(before) != _compose(after)
    }
    if not changes:
        return []
    replacements = ", ".join(f"{before!r} as {after!r}" for before, after in changes.items())
    return [f"text {text!r}: the tokenizer has no token for some letters. It reads {replacements}."]


def list_unknown(vocab: TextVocab, text: str) -> list[str]:
    """List a warning for each word and character that the model probably does not know.

    A small tokenizer has a token for each frequent word of its training texts, so the model
    probably does not know words of several tokens. A large tokenizer divides many words into
    several tokens and rare characters into bytes. For a large tokenizer, only characters that
    become bytes are listed.
    """
    folded = fold_case(vocab, text)
    if vocab.spells_bytes:
        spelled = [letter for letter in dict.fromkeys(folded) if vocab.is_spelled(letter)]
        if not spelled:
            return []
        named = ", ".join(map(characters.describe, spelled[:5]))
        more = f" and {len(spelled) - 5} more" if len(spelled) > 5 else ""
        return [
            f"text {text!r}: the tokenizer spells {named}{more} in bytes, since its training texts "
            "hardly contain them. The model may not know them."
        ]
    words = {match[0]: match.start() for match in _WORD.finditer(folded)}
    return [
        _describe_word(vocab, text, word)
        for word, start in words.items()
        if word not in vocab.words
        and not vocab.missing_symbols(word)
        and _count_tokens(vocab, word, folded[:start][-1:].strip()) > 1
    ]


def log_warnings(vocab: TextVocab, prompt: document.Document) -> None:
    """Log all warnings for the texts of a prompt, each warning once, before it is sampled from."""
    for warning in list_warnings(vocab, prompt):
        _log_once(warning)


def list_warnings(vocab: TextVocab, prompt: document.Document) -> list[str]:
    """List all warnings for the texts of a prompt."""
    return [
        warning
        for text in _texts(prompt)
        for listed in (list_folded, list_unknown)
        for warning in listed(vocab, text)
    ]


@functools.lru_cache(maxsize=1024)
def _log_once(message: str) -> None:
    logging.warning(message)


def _texts(prompt: document.Document) -> Iterator[str]:
    return (part.text for part in prompt.parts if isinstance(part, document.Text))


def _fold_word(vocab: TextVocab, word: str) -> str:
    """Return the word in the first form and case in which all its letters have tokens.

    If there is no such form, change the case of single letters.
    """
    forms = tuple(dict.fromkeys((word, _compose(word), unicodedata.normalize("NFD", word))))
    cases = (str, str.lower, str.casefold, str.upper, str.title)
    for variant in (change(form) for change in cases for form in forms):
        if not vocab.missing_symbols(variant):
            return variant
    return "".join(_fold_letter(vocab, letter) for letter in word)


def _compose(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _fold_letter(vocab: TextVocab, letter: str) -> str:
    variants = (letter, letter.lower(), letter.casefold(), letter.upper(), letter.title())
    known = (variant for variant in variants if not vocab.missing_symbols(variant))
    return next(known, letter)


def _count_tokens(vocab: TextVocab, word: str, before: str) -> int:
    """Return the number of tokens of a word after the character `before`, or "" after a space.

    The token for "rex" in "t-rex" is not the token for the word "rex", and may exist without it.
    """
    if not before or vocab.missing_symbols(before):
        return len(vocab.encode(word))
    return len(vocab.encode(before + word)) - len(vocab.encode(before))


def _describe_word(vocab: TextVocab, text: str, word: str) -> str:
    sentence = (
        f"text {text!r}: the model probably does not know the word {word!r}, which its tokenizer "
        f"spells in {len(vocab.encode(word))} tokens."
    )
    return f"{sentence} {_name_nearest(vocab, word)}".strip()


def _name_nearest(vocab: TextVocab, word: str) -> str:
    """Return a sentence about the most similar word that is a token; '' without a similar word."""
    matches = process.extract(
        word,
        vocab.words,
        scorer=fuzz.ratio,
        processor=str.casefold,
        score_cutoff=_MIN_SIMILARITY,
        limit=None,
    )
    for known, similarity, _ in matches:
        if similarity >= _MIN_SIMILARITY_OF_BEGINNING or not _begins_another(vocab, known):
            return f"The nearest known word to {word!r} is {known!r}."
    return ""


def _begins_another(vocab: TextVocab, word: str) -> bool:
    return any(other != word and other.startswith(word) for other in vocab.words)
