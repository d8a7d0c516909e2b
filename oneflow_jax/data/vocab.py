"""Words to ids and back: one table of id ranges, specials first, then text, then picture codes."""

import dataclasses
import functools
import io
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import sentencepiece
from etils import epath

from oneflow_jax import errors

PAD = 0  # an empty slot; never inside text
BOS = 1  # opens every document
END = 2  # ends a span of text, and fills the span after it
IMAGE = 3  # stands for a picture that is yet to be inserted
MASK = 4  # a hidden token
UNKNOWN = 5  # a symbol that the tokenizer has not seen; SentencePiece's own id 0

SPECIALS = ("<pad>", "<bos>", "<end>", "<image>", "<mask>", "<unknown>")

# From here on, symbols outside the corpus are spelled in bytes, which takes 256 pieces.
_BYTE_FALLBACK_MIN_SIZE = 2048

# SentencePiece passes over lines of more than 4,192 bytes; a character takes 4 at most.
_MAX_LINE_CHARACTERS = 1_000


class IdRanges:
    """The table of ids: 0 to 5 specials, `text` pieces, then `codes` of a picture tokenizer.

    Attributes:
      text: the ids of text pieces.
      code_count: how many codes a picture tokenizer has; 0 without one.
    """

    text: range
    code_count: int

    @property
    def codes(self) -> range:
        """The ids of a picture's codes: code k has id `codes[k]`."""
        return range(self.text.stop, self.text.stop + self.code_count)

    @property
    def size(self) -> int:
        """How many ids there are."""
        return self.codes.stop

    def padded_size(self, multiple: int = 128) -> int:
        """Returns `size` rounded up to a multiple, so that a mesh can divide the table."""
        return -(-self.size // multiple) * multiple


@dataclasses.dataclass(frozen=True)
class AbstractVocab(IdRanges):
    """The ids that there will be when a vocabulary is learned: without words."""

    text: range
    code_count: int = 0


@dataclasses.dataclass(frozen=True)
class Vocab(IdRanges):
    """A learned vocabulary: words to ids and back.

    `model` is a SentencePiece model as bytes, so that a Vocab can be pickled and compared.
    """

    model: bytes = dataclasses.field(repr=False)
    code_count: int = 0

    @classmethod
    def load(cls, path: str | os.PathLike[str], code_count: int = 0) -> "Vocab":
        """Returns the vocabulary in a file of the `model` that `train_sentencepiece` made.

        Args:
          path: the file, `tokenizer.model` of a run.
          code_count: how many codes a picture tokenizer has; 0 without one.

        Raises:
          UserError: no such file, or not a SentencePiece model of ours.
        """
        path = epath.Path(path)
        if not path.is_file():
            raise errors.UserError(f"tokenizer {str(path)!r}: there is no such file")
        vocab = cls(path.read_bytes(), code_count)
        try:
            ours = vocab._pieces.unk_id() == 0 and vocab._pieces.bos_id() == -1
        except RuntimeError as error:
            message = f"tokenizer {str(path)!r} is not a SentencePiece model"
            raise errors.UserError(f"{message}: {error}") from error
        if not ours:
            message = "has specials of its own; train it with oneflow_jax"
            raise errors.UserError(f"tokenizer {str(path)!r} {message}")
        return vocab

    @functools.cached_property
    def _pieces(self) -> sentencepiece.SentencePieceProcessor:
        return sentencepiece.SentencePieceProcessor(model_proto=self.model)

    def __getstate__(self) -> tuple[bytes, int]:
        # The processor is remade by whoever unpickles.
        return self.model, self.code_count

    def __setstate__(self, state: tuple[bytes, int]) -> None:
        object.__setattr__(self, "model", state[0])
        object.__setattr__(self, "code_count", state[1])

    @property
    def text(self) -> range:
        """The ids of text pieces."""
        return range(len(SPECIALS), UNKNOWN + self._pieces.get_piece_size())

    def encode(self, text: str, *, allow_unknown: bool = False) -> list[int]:
        """Returns the ids of a text, without BOS and END.

        Args:
          text: any words; runs of white space count as one space.
          allow_unknown: whether an unknown symbol becomes UNKNOWN, as in a corpus, or an error, as
            in a prompt.

        Raises:
          UserError: the text is empty, or holds symbols that the tokenizer does not know.
        """
        if not text.strip():
            raise errors.UserError(f"text {text!r} is empty; give at least one word")
        ids = self._pieces.encode(text)
        if not allow_unknown and 0 in ids:
            symbols = " ".join(map(_describe_symbol, self._unknown_symbols(text)))
            message = "the tokenizer, made from the training text, has no symbol for"
            raise errors.UserError(f"text {text!r}: {message} {symbols}")
        return [UNKNOWN + piece for piece in ids]

    def piece(self, token: int) -> str:
        """Returns what one id adds to a text, with its leading space; '' for specials and codes."""
        if token not in self.text:
            return ""
        return self._pieces.id_to_piece(token - UNKNOWN).replace("\u2581", " ")

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the words of `ids` up to the first END; specials and codes are left out."""
        words: list[int] = []
        for token in map(int, ids):
            if token == END:
                break
            if token in self.text:
                words.append(token - UNKNOWN)
        return self._pieces.decode(words)

    def _unknown_symbols(self, text: str) -> list[str]:
        return [symbol for symbol in dict.fromkeys(text) if 0 in self._pieces.encode(symbol)]


def train_sentencepiece(
    texts: Iterable[str], vocab_size: int, character_coverage: float = 1.0
) -> Vocab:
    """Returns the vocabulary of a SentencePiece model of `texts`.

    The same texts in the same order give the same bytes. A corpus that has fewer than `vocab_size`
    pieces
    to offer gets a smaller vocabulary. From 2,048 on, symbols outside the corpus are spelled in
    bytes; below, they are unknown.

    Args:
      texts: the words of the corpus.
      vocab_size: how many ids at most, specials included.
      character_coverage: share of the symbols that get pieces, from the most frequent; 0.98 to 1.

    Raises:
      UserError: a coverage that cannot be, no text at all, or more symbols in it than `vocab_size`
          has
        room for.
    """
    if not 0.98 <= character_coverage <= 1:
        raise errors.UserError(f"data.coverage={character_coverage}: give a share of 0.98 to 1")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(line for text in texts for line in _split_lines(text)),
            model_writer=model,
            # At 512 ids BPE gives each word of a small corpus one token; unigram leaves them split.
            model_type="bpe",
            # Our UNKNOWN is SentencePiece's id 0; our other specials come before it.
            vocab_size=max(vocab_size - UNKNOWN, 1),
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            hard_vocab_limit=False,
            character_coverage=character_coverage,
            byte_fallback=vocab_size >= _BYTE_FALLBACK_MIN_SIZE,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        message = f"vocabulary size={vocab_size}: no tokenizer can be made from these texts"
        raise errors.UserError(f"{message}; give more ids, or more text ({error})") from error
    return Vocab(model.getvalue())


def _split_lines(text: str) -> Iterator[str]:
    """The text, in pieces that SentencePiece does not pass over for their length."""
    words = text.strip()
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


def _describe_symbol(symbol: str) -> str:
    return f"{symbol!r} ({unicodedata.name(symbol, 'unnamed')})"
