"""Tests of the extension of a tokenizer by characters and words."""

import pytest
from sentencepiece import sentencepiece_model_pb2 as model_pb2

from oneflow_jax.data import pretrained_vocab, vocab, vocab_extension
from oneflow_jax.errors import UserError
from tests import tiny
from tests.pretrained import random_language_model

LIMITS = vocab_extension.Limits(max_tokens=100, min_word_count=3, character_coverage=1.0)
TEXTS = ["a zeppelin \u00f1"] * 3 + ["a quokka"] * 2


def extend(texts=TEXTS, **changes):
    limits = vocab_extension.Limits(**vars(LIMITS) | changes)
    return vocab_extension.extend(tiny.vocabulary(), texts, limits)


def pieces(vocabulary):
    model = model_pb2.ModelProto.FromString(vocabulary.model)
    return [(piece.piece, piece.score, piece.type) for piece in model.pieces]


def test_old_tokens_keep_their_ids():
    old, new = tiny.vocabulary(), extend()
    assert pieces(new)[: len(pieces(old))] == pieces(old)
    for document in tiny.captions(20):
        assert new.encode(document.text()) == old.encode(document.text())


def test_characters_and_frequent_words_are_added():
    old, new = tiny.vocabulary(), extend()
    added = vocab_extension.list_added(old, new)
    assert "\u00f1" in added
    assert "zeppelin" in added
    assert "quokka" not in added  # It occurs twice.
    assert new.encode("zeppelin") == [old.text.stop + added.index("zeppelin")]
    assert not new.missing_symbols("quokka")
    for text in TEXTS:
        assert new.decode(new.encode(text)) == text
    ids = new.encode("a zeppelin \u00f1")
    assert "".join(new.to_pieces(ids)) == " a zeppelin \u00f1"


def test_a_loaded_extension_is_the_same(tmp_path):
    new = extend()
    (tmp_path / "tokenizer.model").write_bytes(new.model)
    assert vocab.Vocab.load(tmp_path / "tokenizer.model") == new


def test_the_number_of_new_tokens_is_limited():
    old = tiny.vocabulary()
    everything = vocab_extension.list_added(old, extend())
    for count in range(len(everything) + 1):
        few = vocab_extension.list_added(old, extend(max_tokens=count))
        assert few == everything[:count]  # Characters come first.
    assert extend(max_tokens=0) == old


def test_a_word_with_which_a_known_word_begins_is_not_added():
    """Check that a known word stays one token, although the corpus has its beginning as a word."""
    old = tiny.vocabulary()
    known = max(old.words, key=len)
    token = old.encode(known)
    assert len(token) == 1
    beginnings = [known[:length] for length in range(2, len(known))]
    new = extend(beginnings * 5)
    assert new.encode(known) == token
    assert not set(beginnings) & set(vocab_extension.list_added(old, new))


def test_tokens_of_which_a_new_token_is_the_mean():
    old, new = tiny.vocabulary(), extend()
    added = vocab_extension.list_added(old, new)
    splits = dict(zip(added, vocab_extension.split_added(old, new), strict=True))
    assert splits["\u00f1"] == ()
    known = [n for n in old.encode("zeppelin", allow_unknown=True) if n != vocab.UNKNOWN]
    assert splits["zeppelin"] == tuple(known)
    assert vocab_extension.split_added(old, old) == []


def test_characters_that_were_bytes_are_the_mean_of_their_bytes():
    old = vocab.train_sentencepiece(["a cat and a dog"] * 3, 2048)
    assert old.spells_bytes
    new = vocab_extension.extend(old, ["a \u00f1"] * 3, LIMITS)
    assert vocab_extension.list_added(old, new) == ["\u00f1"]
    (split,) = vocab_extension.split_added(old, new)
    assert old.to_pieces(split) == ["", "\u00f1"]
    assert len(new.encode("a \u00f1")) < len(old.encode("a \u00f1"))


def test_a_tokenizer_that_extends_another_one_is_refused():
    other = vocab.train_sentencepiece(["a cat and a dog"] * 3, 40)
    with pytest.raises(UserError, match=r"does not extend.*another --workdir"):
        vocab_extension.list_added(tiny.vocabulary(), other)


def test_the_tokens_of_a_language_model_stay(tmp_path):
    random_language_model.make_tokenizer("llama").save(str(tmp_path / "tokenizer.json"))
    start = pretrained_vocab.PretrainedVocab.load(tmp_path / "tokenizer.json")
    limits = vocab_extension.Limits(max_tokens=9, min_word_count=1, character_coverage=1.0)
    extended = vocab_extension.extend(start, ["a zeppelin"] * 9, limits)
    assert extended == start
    assert vocab_extension.split_added(start, extended) == []
    other = vocab.train_sentencepiece(["a cat and a dog"] * 3, 40)
    for pair in ((other, start), (start, other)):
        with pytest.raises(UserError, match="does not extend that of its start model"):
            vocab_extension.list_added(*pair)
