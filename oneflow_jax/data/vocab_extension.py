"""Extension of a trained tokenizer by the characters and frequent words of other texts.

The extended tokenizer keeps all tokens with their ids and appends new tokens:

- characters without a token (unknown characters, and characters that are encoded as bytes);
- frequent words that the tokenizer splits into several tokens.

A new word is a user-defined piece of SentencePiece. It matches as a whole at the beginning of a
word, before the merges of BPE. So a word costs one token, and no token for its prefixes is needed.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence

from sentencepiece import sentencepiece_model_pb2 as model_pb2

from oneflow_jax import errors
from oneflow_jax.data import characters
from oneflow_jax.data.vocab import UNKNOWN, TextVocab, Vocab

_SPACE = "\u2581"
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_Piece = model_pb2.ModelProto.SentencePiece


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of an extension.

    Attributes:
        max_tokens: maximum number of new tokens. Characters come first, then the most frequent
            words.
        min_word_count: minimum number of times that a new word occurs in the texts.
        character_coverage: fraction of all character occurrences, 0.98 to 1. Only the most frequent
            characters that together make up this fraction get tokens.
    """

    max_tokens: int
    min_word_count: int
    character_coverage: float


def extend(vocab: TextVocab, texts: Iterable[str], limits: Limits) -> TextVocab:
    """Return the vocabulary with additional tokens for characters and words of `texts`.

    A word that is one token in `vocab` remains one token. The encoding of a text changes only where
    it contains a new character, or a word that begins with a new word. The vocabulary of a
    pretrained language model stays as it is, since it encodes every character.

    Raises:
        UserError: the coverage is out of range.
    """
    errors.check_between("data.character_coverage", limits.character_coverage, 0.98, 1)
    if not isinstance(vocab, Vocab):
        return vocab
    lines = [characters.clean_spaces(text) for text in texts]
    symbols = list(_new_characters(vocab, lines, limits.character_coverage))[: limits.max_tokens]
    words = list(_new_words(vocab, lines, limits.min_word_count))
    words = words[: limits.max_tokens - len(symbols)]
    model = model_pb2.ModelProto.FromString(vocab.model)
    lowest = min(piece.score for piece in model.pieces)
    for number, symbol in enumerate(symbols, 1):
        model.pieces.add(piece=characters.protect(symbol), score=lowest - number)
    for word in words:
        model.pieces.add(piece=_SPACE + word, score=0.0, type=_Piece.USER_DEFINED)
    return Vocab(model.SerializeToString(), vocab.code_count)


def list_added(start: TextVocab, extended: TextVocab) -> list[str]:
    """Return the text of each token that `extended` has and `start` has not, in order of ids.

    The texts of words have no leading space.

    Raises:
        UserError: `extended` is not an extension of `start`.
    """
    if start == extended:
        return []
    before, after = (_read_pieces(vocab) for vocab in (start, extended))
    if not before or after[: len(before)] != before:
        raise errors.UserError(
            "tokenizer: the tokenizer of the run does not extend that of its start model. "
            "Choose another --workdir."
        )
    return [characters.restore(piece.lstrip(_SPACE)) for piece in after[len(before) :]]


def split_added(start: TextVocab, extended: TextVocab) -> list[tuple[int, ...]]:
    """Return, for each token that `list_added` lists, the ids of the tokens that `start` splits it
    into; () for a character that `start` cannot encode.

    Raises:
        UserError: `extended` is not an extension of `start`.
    """  # noqa: D205 - the first sentence needs two lines
    texts = list_added(start, extended)
    pieces = _read_pieces(extended)[-len(texts) :] if texts else []
    return [
        _split(start, text, starts_word=piece.startswith(_SPACE))
        for text, piece in zip(texts, pieces, strict=True)
    ]


def _split(vocab: Vocab, text: str, *, starts_word: bool) -> tuple[int, ...]:
    ids = vocab.encode(text, allow_unknown=True)
    if not starts_word and vocab.to_pieces(ids[:1]) == [" "]:
        ids = ids[1:]  # The space that SentencePiece adds before a text.
    return tuple(token for token in ids if token != UNKNOWN)


def _new_characters(vocab: Vocab, lines: Sequence[str], coverage: float) -> Iterator[str]:
    """Yield the covered characters without a token, the most frequent first."""
    counts = characters.count_characters(map(characters.protect, lines))
    for character in map(characters.restore, characters.choose_covered(counts, coverage)):
        if character in (_SPACE, *characters.NONCHARACTERS):
            continue
        if vocab.missing_symbols(character) or vocab.is_spelled(character):
            yield character


def _new_words(vocab: Vocab, lines: Sequence[str], min_count: int) -> Iterator[str]:
    """Yield the frequent words that the vocabulary splits, the most frequent first.

    A word with which a known word begins is left out: it would match inside of the known word.
    """
    matches = (_LETTERS.match(word) for line in lines for word in line.split())
    counts = collections.Counter(match[0] for match in matches if match)
    known = [piece[1:] for piece in _read_pieces(vocab) if piece.startswith(_SPACE)]
    prefixes = {word[:length] for word in known for length in range(2, len(word) + 1)}
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if count < min_count:
            return
        if word not in prefixes and len(vocab.encode(word, allow_unknown=True)) > 1:
            yield word


def _read_pieces(vocab: TextVocab) -> list[str]:
    """Return the tokens of a trained vocabulary; [] for that of a language model."""
    if not isinstance(vocab, Vocab):
        return []
    return [piece.piece for piece in model_pb2.ModelProto.FromString(vocab.model).pieces]
