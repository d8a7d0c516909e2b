"""Files of the tokenizer of a run, and the vocabularies that read them."""

from collections.abc import Callable

from etils import epath

from oneflow_jax.data import pretrained_vocab
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir

LOADERS: dict[str, Callable[[epath.Path, int], vocabs.TextVocab]] = {
    workdir.TOKENIZER: vocabs.Vocab.load,
    workdir.PRETRAINED_TOKENIZER: pretrained_vocab.PretrainedVocab.load,
}
"""Loader of each file; a folder has one of the files."""


def find(folder: epath.Path) -> epath.Path | None:
    """Return the path of the tokenizer in a folder, or None."""
    return next((folder / name for name in LOADERS if (folder / name).exists()), None)


def load(folder: epath.Path, num_codes: int) -> vocabs.TextVocab:
    """Load the vocabulary in a folder.

    Args:
        folder: folder of a run, of an export, or of a pretrained language model.
        num_codes: number of codes of the image tokenizer; 0 without one.

    Raises:
        UserError: the folder has no tokenizer, or its tokenizer cannot be used.
    """
    path = find(folder)
    if path is None:
        raise UserError(f"{folder}: there is no tokenizer. Copy {' or '.join(LOADERS)} to it.")
    return LOADERS[path.name](path, num_codes)


def save(vocab: vocabs.TextVocab, folder: epath.Path) -> None:
    """Write the tokenizer of a vocabulary to a folder."""
    is_pretrained = isinstance(vocab, pretrained_vocab.PretrainedVocab)
    name = workdir.PRETRAINED_TOKENIZER if is_pretrained else workdir.TOKENIZER
    workdir.write_atomically(folder / name, vocab.model)


def copy(start: epath.Path, folder: epath.Path) -> None:
    """Copy the tokenizer of a start model, if it has one, to the folder of a run."""
    if path := find(start):
        workdir.write_atomically(folder / path.name, path.read_bytes())
