"""Vocabulary of a pretrained language model: the `tokenizer.json` of Hugging Face's `tokenizers`.

The ids are those of `vocab.IdRanges`: first our special ids, then the tokens of the tokenizer that
can occur in text, in the order of its own ids. Its special tokens, such as `<|endoftext|>`, have no
ids here. BOS and END stand for those that begin and end a document (`build.language_model`), and
the others are left out. So no text can contain a control token: `<|endoftext|>` in a text is
encoded letter by letter.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from oneflow_jax import errors
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.shapes import Int

_PROBE = "Größe,  naïve\n\n\tcafé 12345 <a> 漢字 🦊👩‍🚀 \x07"
"""Text with accents, spaces, digits, line breaks, ideographs, emoji and a control character. A
tokenizer that encodes single bytes preserves it."""

_WORD_STARTS = ("\u0120", "\u2581")
"""First characters of tokens that begin with a space, in byte-level and in SentencePiece BPE."""


@dataclasses.dataclass(frozen=True)
class PretrainedVocab(vocabs.TextVocab):
    """A pretrained tokenizer: text to ids and back, without changes of white space.

    `model` is the content of its `tokenizer.json`. A PretrainedVocab can be pickled and compared.
    """

    model: bytes = dataclasses.field(repr=False)
    code_count: int = 0

    @classmethod
    def load(cls, path: str | os.PathLike[str], code_count: int = 0) -> "PretrainedVocab":
        """Load the tokenizer of a pretrained language model.

        Args:
          path: path of a `tokenizer.json`.
          code_count: number of codes of the image tokenizer; 0 without one.

        Raises:
          UserError: the file does not exist or is not a tokenizer, the tokenizer does not preserve
            text, or the package `tokenizers` is not installed.
        """
        path = epath.Path(path)
        if not path.is_file():
            raise errors.UserError(
                f"tokenizer {str(path)!r}: no such file. Copy it from the folder of the model."
            )
        vocab = cls(path.read_bytes(), code_count)
        try:
            decoded = vocab.decode(vocab.encode(_PROBE))
        except errors.UserError:
            raise
        except Exception as error:  # `tokenizers` raises a plain `Exception`.
            raise errors.UserError(
                f"tokenizer {str(path)!r}: not a tokenizer file ({error}). Download it again."
            ) from error
        if decoded != _PROBE:
            raise errors.UserError(
                f"tokenizer {str(path)!r}: it changes texts. It reads {_PROBE!r} as {decoded!r}. "
                "Give a model whose tokenizer encodes every character, such as byte-level BPE."
            )
        return vocab

    @functools.cached_property
    def _tokenizer(self) -> Any:  # noqa: ANN401 - of an optional package
        try:
            import tokenizers
        except ImportError as error:
            raise errors.UserError(
                "The package tokenizers is not installed, and the tokenizer of a pretrained "
                "language model needs it. Run `pip install tokenizers`."
            ) from error
        tokenizer = tokenizers.Tokenizer.from_str(self.model.decode())
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        return tokenizer

    @functools.cached_property
    def pretrained_ids(self) -> Int[np.ndarray, "n"]:
        """The tokenizer's own id of each text token."""
        added = self._tokenizer.get_added_tokens_decoder()
        special = {token for token, value in added.items() if value.special}
        ids = set(self._tokenizer.get_vocab(with_added_tokens=True).values())
        return np.array(sorted(ids - special))

    @functools.cached_property
    def _ids_of_pretrained(self) -> dict[int, int]:
        return dict(zip(self.pretrained_ids.tolist(), self.text, strict=True))

    @property
    def text(self) -> range:
        """Ids of text tokens."""
        return range(len(vocabs.SPECIALS), len(vocabs.SPECIALS) + len(self.pretrained_ids))

    def encode(self, text: str, *, allow_unknown: bool = False) -> list[int]:
        """Encode a text; return its ids, without BOS and END. `decode` returns exactly this text.

        Args:
          text: the text to encode.
          allow_unknown: without effect, since no symbol is unknown.

        Raises:
          UserError: the text is empty or is not Unicode.
        """
        del allow_unknown
        vocabs.check_text(text)
        return self._encode(text)

    def _encode(self, text: str) -> list[int]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return [self._ids_of_pretrained[token] for token in encoding.ids]

    def _text_tokens(self, ids: Sequence[int]) -> list[int]:
        """Return the tokenizer's own ids of the text tokens among `ids`."""
        start = self.text.start
        return [int(self.pretrained_ids[n - start]) for n in map(int, ids) if n in self.text]

    def to_pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the text of each id, with its leading space; '' for special and code ids.

        If a character is encoded as several tokens, the last one gets the character, and the others
        get ''.
        """
        pieces, given, shown, text = [], [], "", ""
        for token in map(int, ids):
            piece = ""
            if token in self.text:
                given += self._text_tokens([token])
                text = self._tokenizer.decode(given, skip_special_tokens=False)
                if not text.endswith("\ufffd"):  # Otherwise the last character may be incomplete.
                    # A byte that is not UTF-8 makes all bytes beside it unreadable in `text`. The
                    # characters of earlier pieces stay as they are.
                    piece, shown = text[len(shown) :], text
            pieces.append(piece)
        if pieces:
            pieces[-1] += text[len(shown) :]
        return pieces

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids` up to the first END, without special tokens and image codes."""
        ids = list(map(int, ids))
        before = ids[: ids.index(vocabs.END)] if vocabs.END in ids else ids
        return self._tokenizer.decode(self._text_tokens(before), skip_special_tokens=False)

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """All words of at least two letters that are one token."""
        tokens = map(self._tokenizer.id_to_token, self.pretrained_ids.tolist())
        pairs = zip(tokens, self.pretrained_ids.tolist(), strict=True)
        starting = [[token] for text, token in pairs if text.startswith(_WORD_STARTS)]
        words = map(str.strip, self._tokenizer.decode_batch(starting))
        return tuple(word for word in words if len(word) > 1 and word.isalpha())

    @property
    def spells_bytes(self) -> bool:
        """Whether symbols without a token are encoded as bytes: always."""
        return True

    def is_spelled(self, symbol: str) -> bool:
        """Return whether a symbol has no token of its own and is encoded as several."""
        return len(self._encode(symbol)) > 1

    def missing_symbols(self, text: str) -> list[str]:
        """Return the symbols of a text that the tokenizer cannot encode: none.

        Raises:
          UserError: the text is not Unicode.
        """
        vocabs.check_unicode(text)
        return []
