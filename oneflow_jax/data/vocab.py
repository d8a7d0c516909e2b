"""Vocabulary: text to ids and back. Special ids come first, then text tokens, then image codes."""

import abc
import codecs
import collections
import dataclasses
import functools
import io
import logging
import os
from collections.abc import Iterable, Iterator, Sequence

import sentencepiece
from etils import epath

from oneflow_jax import errors
from oneflow_jax.data import characters

PAD = 0  # an empty slot; never occurs inside text
BOS = 1  # first token of every document
END = 2  # ends a text span and fills the rest of its slots
IMAGE = 3  # marks where an image is to be inserted, or (autoregressive models) where one begins
MASK = 4  # replaces a token that is masked out
UNKNOWN = 5  # a symbol that is not in the tokenizer; id 0 in SentencePiece

SPECIALS = ("<pad>", "<bos>", "<end>", "<image>", "<mask>", "<unknown>")

# From this vocabulary size on, symbols outside the corpus are encoded as bytes (256 tokens).
_BYTE_FALLBACK_MIN_SIZE = 2048
_NUM_BYTES = 256

# SentencePiece skips lines of more than 4,192 bytes; a UTF-8 character takes at most 4 bytes.
_MAX_LINE_CHARACTERS = 1_000


class IdRanges:
    """Id ranges of a vocabulary: special ids 0 to 5, then `text` tokens, then image `codes`.

    Attributes:
      text: ids of text tokens.
      code_count: number of codes of the image tokenizer; 0 without one.
    """

    text: range
    code_count: int

    @property
    def codes(self) -> range:
        """Ids of the image codes: code k has id `codes[k]`."""
        return range(self.text.stop, self.text.stop + self.code_count)

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.codes.stop

    def padded_size(self, multiple: int = 128) -> int:
        """Return `size` rounded up to a multiple, so that a mesh can shard the embedding table."""
        return -(-self.size // multiple) * multiple


@dataclasses.dataclass(frozen=True)
class AbstractVocab(IdRanges):
    """Id ranges of an untrained vocabulary, which cannot encode or decode text."""

    text: range
    code_count: int = 0


class TextVocab(IdRanges, abc.ABC):
    """Text to ids and back: a trained `Vocab`, or the `PretrainedVocab` of a language model.

    `model` is the content of the tokenizer's file.
    """

    model: bytes

    def __getstate__(self) -> tuple[bytes, int]:
        # The tokenizer that reads `model` is not pickled. It is created again after unpickling.
        return self.model, self.code_count

    def __setstate__(self, state: tuple[bytes, int]) -> None:
        object.__setattr__(self, "model", state[0])
        object.__setattr__(self, "code_count", state[1])

    @abc.abstractmethod
    def encode(self, text: str, *, allow_unknown: bool = False) -> list[int]:
        """Encode a text; return its ids, without BOS and END."""

    @abc.abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` up to the first END, without special tokens and image codes."""

    @abc.abstractmethod
    def to_pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the text of each id, with its leading space; '' for special and code ids."""

    @property
    @abc.abstractmethod
    def words(self) -> tuple[str, ...]:
        """All words of at least two letters that are one token."""

    @property
    @abc.abstractmethod
    def spells_bytes(self) -> bool:
        """Whether symbols without a token are encoded as bytes."""

    @abc.abstractmethod
    def is_spelled(self, symbol: str) -> bool:
        """Return whether a symbol has no token and is encoded as bytes."""

    @abc.abstractmethod
    def missing_symbols(self, text: str) -> list[str]:
        """Return the symbols of a text that the tokenizer cannot encode, each symbol once."""


@dataclasses.dataclass(frozen=True)
class Vocab(TextVocab):
    """A vocabulary that was trained on a corpus: text to ids and back.

    `model` is a serialized SentencePiece model. A Vocab can therefore be pickled and compared.
    """

    model: bytes = dataclasses.field(repr=False)
    code_count: int = 0

    @classmethod
    def load(cls, path: str | os.PathLike[str], code_count: int = 0) -> "Vocab":
        """Load a vocabulary from a file that holds the `model` of a trained vocabulary.

        Args:
          path: path of the file, such as `tokenizer.model` in the folder of a run.
          code_count: number of codes of the image tokenizer; 0 without one.

        Raises:
          UserError: the file does not exist or is not a SentencePiece model of oneflow_jax.
        """
        path = epath.Path(path)
        if not path.is_file():
            raise errors.UserError(
                f"tokenizer {str(path)!r}: no such file. Give a tokenizer.model."
            )
        vocab = cls(path.read_bytes(), code_count)
        try:
            ours = vocab._processor.unk_id() == 0 and vocab._processor.bos_id() == -1
        except RuntimeError as error:
            message = f"tokenizer {str(path)!r} is not a SentencePiece model"
            raise errors.UserError(f"{message}: {error}") from error
        if not ours:
            message = "defines its own special tokens. Train the tokenizer with oneflow_jax."
            raise errors.UserError(f"tokenizer {str(path)!r} {message}")
        return vocab

    @functools.cached_property
    def _processor(self) -> sentencepiece.SentencePieceProcessor:
        return sentencepiece.SentencePieceProcessor(model_proto=self.model)

    @property
    def text(self) -> range:
        """Ids of text tokens."""
        return range(len(SPECIALS), UNKNOWN + self._processor.get_piece_size())

    def encode(self, text: str, *, allow_unknown: bool = False) -> list[int]:
        """Encode a text; return its ids, without BOS and END.

        `decode` returns exactly this text, except that runs of white space become one space.
        A tokenizer that was trained with NFKC normalization, the former default, also replaces some
        characters, such as a superscript two by "2".

        Args:
          text: the text to encode.
          allow_unknown: whether an unknown symbol is encoded as UNKNOWN (for a corpus) or raises
            an error (for a prompt).

        Raises:
          UserError: the text is empty or is not Unicode, or `allow_unknown` is False and the text
            contains symbols that are not in the vocabulary.
        """
        check_text(text)
        ids = self._encode_pieces(text)
        missing = [] if allow_unknown else self.missing_symbols(text)
        if missing:
            symbols = " ".join(map(characters.describe, missing))
            message = "the tokenizer has no token for these characters; use others:"
            raise errors.UserError(f"text {text!r}: {message} {symbols}")
        return [UNKNOWN + piece for piece in ids]

    def to_pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the text of each id, with its leading space; '' for special and code ids.

        If a character is encoded as several bytes, the id of the last byte gets the character, and
        the other ids get ''.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces: list[str] = []
        for token in map(int, ids):
            piece = token - UNKNOWN
            if token in self.text and self._processor.is_byte(piece):
                spelled = bytes([int(self._processor.id_to_piece(piece)[3:5], 16)])
                pieces.append(decoder.decode(spelled))
                continue
            if rest := decoder.decode(b"", final=True):  # The previous character is incomplete.
                pieces[-1] += rest
            text = self._processor.id_to_piece(piece) if token in self.text else ""
            pieces.append(text.replace("\u2581", " "))
        if rest := decoder.decode(b"", final=True):
            pieces[-1] += rest
        return [self._restore(piece) for piece in pieces]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` up to the first END, without special tokens and image codes."""
        words: list[int] = []
        for token in map(int, ids):
            if token == END:
                break
            if token in self.text:
                words.append(token - UNKNOWN)
        return self._restore(self._processor.decode(words))

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """All words of at least two letters that are one token."""
        pieces = map(self._processor.id_to_piece, range(self._processor.get_piece_size()))
        words = (self._restore(piece[1:]) for piece in pieces if piece.startswith("\u2581"))
        return tuple(word for word in words if len(word) > 1 and word.isalpha())

    @functools.cached_property
    def spells_bytes(self) -> bool:
        """Whether symbols without a token are encoded as bytes."""
        return any(map(self._processor.is_byte, range(self._processor.get_piece_size())))

    def is_spelled(self, symbol: str) -> bool:
        """Return whether a symbol has no token and is encoded as bytes."""
        return any(map(self._processor.is_byte, self._encode_pieces(symbol)))

    @functools.cached_property
    def _is_lossless(self) -> bool:
        """Whether the tokenizer preserves all characters, that is, was trained without NFKC."""
        return self._processor.normalize("\u00b2").endswith("\u00b2")

    def _encode_pieces(self, text: str) -> list[int]:
        if self._is_lossless:
            text = characters.protect(characters.clean_spaces(text))
        return self._processor.encode(text)

    def _restore(self, text: str) -> str:
        return characters.restore(text) if self._is_lossless else text

    def missing_symbols(self, text: str) -> list[str]:
        """Return the symbols of a text that the tokenizer cannot encode, each symbol once.

        Raises:
          UserError: the text is not Unicode.
        """
        check_unicode(text)
        return [
            symbol
            for symbol in dict.fromkeys(text)
            if symbol in characters.NONCHARACTERS or 0 in self._encode_pieces(symbol)
        ]


def check_text(text: str) -> None:
    """Check that a text is not empty and is Unicode, or raise UserError."""
    if not text.strip():
        raise errors.UserError(f"text {text!r} is empty. Give at least one word.")
    check_unicode(text)


def check_unicode(text: str) -> None:
    """Check that a text has no lone surrogate, or raise UserError."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise errors.UserError(
            f"text {text!r}: {text[error.start]!r} is a lone surrogate, not a character. Give "
            "text in UTF-8."
        ) from error


def train_sentencepiece(
    texts: Iterable[str], vocab_size: int, character_coverage: float = 1.0
) -> Vocab:
    """Train a SentencePiece model on `texts` and return its vocabulary.

    Training is deterministic: equal texts in equal order give equal bytes. The vocabulary is
    smaller than `vocab_size` if the corpus does not yield enough tokens. With a `vocab_size` below
    2,048, symbols outside the corpus are unknown. With a larger `vocab_size`, symbols without a
    token are encoded as bytes. If such a vocabulary has no room for all characters of the corpus,
    three quarters of its tokens other than bytes are single characters, the most frequent ones.

    Args:
      texts: texts of the corpus.
      vocab_size: maximum number of ids, including special ids.
      character_coverage: fraction of all character occurrences in the corpus, 0.98 to 1. The most
        frequent characters that together make up this fraction get tokens.

    Raises:
      UserError: the coverage is out of range, the corpus has no text, or `vocab_size` is too small
        for its characters.
    """
    errors.check_between("data.character_coverage", character_coverage, 0.98, 1)
    lines = [characters.protect(line) for text in texts for line in _split_lines(text)]
    if not lines:
        raise errors.UserError(
            f"data.vocab_size={vocab_size}: no tokenizer can be trained, since the documents have "
            "no text. Give documents with text."
        )
    byte_fallback = vocab_size >= _BYTE_FALLBACK_MIN_SIZE
    # UNKNOWN is id 0 in SentencePiece. The other special ids come before UNKNOWN.
    room = vocab_size - len(SPECIALS) - _NUM_BYTES * byte_fallback
    counts = characters.count_characters(lines)
    covered = characters.choose_covered(counts, character_coverage)
    if len(covered) > room:
        if not byte_fallback:
            raise errors.UserError(
                f"data.vocab_size={vocab_size}: the texts have {len(covered):,} different "
                "characters, and each needs a token. Give "
                f"{len(covered) + len(SPECIALS):,} or more; from "
                f"{_BYTE_FALLBACK_MIN_SIZE:,} on, rare characters are encoded as bytes."
            )
        lines, num_kept = characters.hide_rare(lines, counts, room)
        character_coverage = 1.0
        logging.info(
            "data.vocab_size=%d: %d of the %d characters have a token; the others become bytes.",
            vocab_size, num_kept, len(counts),
        )  # fmt: skip
    elif not byte_fallback:
        _warn_of_uncovered(counts, covered)
    return Vocab(_run_trainer(lines, vocab_size, character_coverage, byte_fallback=byte_fallback))


def _run_trainer(
    lines: Sequence[str], vocab_size: int, character_coverage: float, *, byte_fallback: bool
) -> bytes:
    """Train SentencePiece on `lines`, and return the serialized model."""
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            # At 512 ids BPE gives each word of a small corpus one token; unigram splits the words.
            model_type="bpe",
            # The default normalization, NFKC, would change characters: for example, a superscript
            # two would become a plain two.
            normalization_rule_name="identity",
            vocab_size=vocab_size - UNKNOWN,
            unk_id=0,
            unk_piece=characters.UNKNOWN_PIECE,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            hard_vocab_limit=False,
            character_coverage=character_coverage,
            byte_fallback=byte_fallback,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise errors.UserError(
            f"data.vocab_size={vocab_size}: no tokenizer can be trained on these texts. Raise "
            "data.vocab_size, or give more text."
        ) from error
    return model.getvalue()


def _warn_of_uncovered(counts: collections.Counter[str], covered: Sequence[str]) -> None:
    """Log a warning if characters of the corpus have no token."""
    uncovered = sorted(counts.keys() - set(covered), key=lambda each: (-counts[each], each))
    if uncovered:
        logging.warning(
            "data.character_coverage: %d characters of the texts have no token and become "
            "<unknown>, %d times in all, among them %s. Raise data.character_coverage, or give "
            "a data.vocab_size of %d or more, which encodes them as bytes.",
            len(uncovered),
            sum(counts[each] for each in uncovered),
            ", ".join(map(characters.describe, map(characters.restore, uncovered[:5]))),
            _BYTE_FALLBACK_MIN_SIZE,
        )


def _split_lines(text: str) -> Iterator[str]:
    """Split a text into parts that are short enough for SentencePiece, which skips long lines."""
    words = characters.clean_spaces(text)
    while len(words) > _MAX_LINE_CHARACTERS:
        space = (
            words.rfind(" ", 1, _MAX_LINE_CHARACTERS)
            if " " in words[:_MAX_LINE_CHARACTERS]
            else _MAX_LINE_CHARACTERS
        )
        yield words[:space]
        words = words[space:].strip()
    if words:
        yield words
