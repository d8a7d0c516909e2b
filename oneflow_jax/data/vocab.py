"""Vocabulary: text to ids and back. Special ids come first, then text tokens, then image codes."""

import dataclasses
import functools
import io
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import sentencepiece
from etils import epath

from oneflow_jax import errors

PAD = 0  # an empty slot; never occurs inside text
BOS = 1  # first token of every document
END = 2  # ends a text span and fills the rest of its slots
IMAGE = 3  # stands for an image that is still to be inserted
MASK = 4  # replaces a token that is masked out
UNKNOWN = 5  # a symbol that is not in the tokenizer; id 0 in SentencePiece

SPECIALS = ("<pad>", "<bos>", "<end>", "<image>", "<mask>", "<unknown>")

# From this vocabulary size on, symbols outside the corpus are encoded as bytes (256 tokens).
_BYTE_FALLBACK_MIN_SIZE = 2048

# SentencePiece skips lines of more than 4,192 bytes; a UTF-8 character takes at most 4 bytes.
_MAX_LINE_CHARACTERS = 1_000


class IdRanges:
    """Id ranges of a vocabulary: specials 0 to 5, then `text` tokens, then image `codes`.

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
    """Id ranges of a vocabulary that has not been trained: it cannot encode or decode text."""

    text: range
    code_count: int = 0


@dataclasses.dataclass(frozen=True)
class Vocab(IdRanges):
    """A trained vocabulary: text to ids and back.

    `model` is a serialized SentencePiece model, so that a Vocab can be pickled and compared.
    """

    model: bytes = dataclasses.field(repr=False)
    code_count: int = 0

    @classmethod
    def load(cls, path: str | os.PathLike[str], code_count: int = 0) -> "Vocab":
        """Load the vocabulary from a file that holds the `model` of `train_sentencepiece`.

        Args:
          path: path of the file, `tokenizer.model` of a run.
          code_count: number of codes of the image tokenizer; 0 without one.

        Raises:
          UserError: the file does not exist or is not a SentencePiece model of oneflow_jax.
        """
        path = epath.Path(path)
        if not path.is_file():
            raise errors.UserError(f"tokenizer {str(path)!r}: no such file")
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

    def __getstate__(self) -> tuple[bytes, int]:
        # The processor is not pickled; it is created again after unpickling.
        return self.model, self.code_count

    def __setstate__(self, state: tuple[bytes, int]) -> None:
        object.__setattr__(self, "model", state[0])
        object.__setattr__(self, "code_count", state[1])

    @property
    def text(self) -> range:
        """Ids of text tokens."""
        return range(len(SPECIALS), UNKNOWN + self._processor.get_piece_size())

    def encode(self, text: str, *, allow_unknown: bool = False) -> list[int]:
        """Return the ids of a text, without BOS and END.

        Args:
          text: the text to encode; runs of white space count as one space.
          allow_unknown: whether an unknown symbol is encoded as UNKNOWN (for a corpus) or raises
            an error (for a prompt).

        Raises:
          UserError: the text is empty, or contains symbols that are not in the vocabulary.
        """
        if not text.strip():
            raise errors.UserError(f"text {text!r} is empty. Give at least one word.")
        ids = self._processor.encode(text)
        if not allow_unknown and 0 in ids:
            symbols = " ".join(map(_describe_symbol, self._missing_symbols(text)))
            message = "the tokenizer was trained on the training text and has no symbol for"
            raise errors.UserError(f"text {text!r}: {message} {symbols}")
        return [UNKNOWN + piece for piece in ids]

    def id_to_piece(self, token: int) -> str:
        """Return the text of one id, with its leading space; '' for specials and codes."""
        if token not in self.text:
            return ""
        return self._processor.id_to_piece(token - UNKNOWN).replace("\u2581", " ")

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` up to the first END, without specials and codes."""
        words: list[int] = []
        for token in map(int, ids):
            if token == END:
                break
            if token in self.text:
                words.append(token - UNKNOWN)
        return self._processor.decode(words)

    def _missing_symbols(self, text: str) -> list[str]:
        return [symbol for symbol in dict.fromkeys(text) if 0 in self._processor.encode(symbol)]


def train_sentencepiece(
    texts: Iterable[str], vocab_size: int, character_coverage: float = 1.0
) -> Vocab:
    """Train a SentencePiece model on `texts` and return its vocabulary.

    Training is deterministic: equal texts in equal order give equal bytes. The vocabulary is
    smaller than `vocab_size` if the corpus does not yield enough tokens. With a `vocab_size` of
    2,048 or more, symbols outside the corpus are encoded as bytes; below, they are unknown.

    Args:
      texts: texts of the corpus.
      vocab_size: maximum number of ids, specials included.
      character_coverage: fraction of the character occurrences that are covered by tokens, most
        frequent characters first; 0.98 to 1.

    Raises:
      UserError: the coverage is out of range, the corpus has no text, or it has more symbols than
        `vocab_size` has room for.
    """
    errors.check_between("data.character_coverage", character_coverage, 0.98, 1)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(line for text in texts for line in _split_lines(text)),
            model_writer=model,
            # At 512 ids BPE gives each word of a small corpus one token; unigram splits words.
            model_type="bpe",
            # UNKNOWN is id 0 in SentencePiece; our other specials have the ids before UNKNOWN.
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
        message = f"vocabulary size={vocab_size}: no tokenizer can be trained on these texts"
        raise errors.UserError(
            f"{message}. Raise data.vocab_size, or give more text ({error})."
        ) from error
    return Vocab(model.getvalue())


def _split_lines(text: str) -> Iterator[str]:
    """Yield the text in parts that are short enough for SentencePiece not to skip them."""
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
