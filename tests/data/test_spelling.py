"""Tests of prompts with letters and words that the tokenizer does not know."""

import pytest

from oneflow_jax import errors
from oneflow_jax.data import spelling, vocab
from tests import tiny


@pytest.fixture(scope="module")
def tokenizer():
    return vocab.Vocab.load(tiny.EMOJI_TOKENIZER)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("A picture of a Tiger", "a picture of a tiger"),
        ("FIRST A FOX", "first a fox"),
        ("a TiGeR", "a tiger"),
        ("Here is an Elephant, then", "here is an elephant, then"),
        ("a ſnake", "a snake"),  # LATIN SMALL LETTER LONG S
    ],
)
def test_missing_letters_are_folded(tokenizer, text, read):
    assert tokenizer.decode(spelling.encode_prompt(tokenizer, text)) == read
    assert spelling.encode_prompt(tokenizer, text) == spelling.encode_prompt(tokenizer, read)


@pytest.mark.parametrize(
    ("corpus", "text", "read"),
    [
        ("A RED TIGER", "a red tiger", "A RED TIGER"),  # a tokenizer without small letters
        ("strasse und maße", "STRASSE", "strasse"),
        ("der fluss", "der fluß", "der fluss"),
        ("ο λόγος", "Ο ΛΌΓΟΣ", "ο λόγος"),
        ("мир труд май", "Мир ТРУД", "мир труд"),
        ("istanbul", "ISTANBUL", "istanbul"),
    ],
)
def test_case_folding_follows_unicode(corpus, text, read):
    tokenizer = vocab.train_sentencepiece([corpus] * 5, 200)
    assert tokenizer.decode(spelling.encode_prompt(tokenizer, text)) == read


@pytest.mark.parametrize(
    ("corpus", "text", "read"),
    [
        ("un caf\u00e9", "un cafe\u0301", "un caf\u00e9"),  # typed on macOS
        ("un cafe\u0301", "un caf\u00e9", "un cafe\u0301"),
        ("une \u00e9cole", "Une E\u0301COLE", "une \u00e9cole"),
        ("\ud55c\uae00", "\u1112\u1161\u11ab\u1100\u1173\u11af", "\ud55c\uae00"),  # Hangul
        ("10 \u00c5", "10 \u212b", "10 \u00c5"),  # ANGSTROM SIGN
    ],
)
def test_canonical_forms_of_unicode_are_the_same_text(corpus, text, read):
    tokenizer = vocab.train_sentencepiece([corpus] * 5, 200)
    assert tokenizer.decode(spelling.encode_prompt(tokenizer, text)) == read
    equal_case = corpus if text[0] == corpus[0] else corpus.upper()
    assert bool(spelling.list_folded(tokenizer, text)) == (equal_case != corpus)


def test_a_known_form_is_kept():
    tokenizer = vocab.train_sentencepiece(["caf\u00e9 cafe\u0301"] * 5, 200)
    for text in ("caf\u00e9", "cafe\u0301"):
        assert tokenizer.decode(spelling.encode_prompt(tokenizer, text)) == text


def test_known_letters_are_not_folded():
    tokenizer = vocab.train_sentencepiece(["A cat and a Dog"] * 5, 200)
    assert tokenizer.decode(spelling.encode_prompt(tokenizer, "A Dog")) == "A Dog"
    assert spelling.list_folded(tokenizer, "A Dog") == []
    large = vocab.train_sentencepiece(["a cat"] * 5, 2048)
    assert large.decode(spelling.encode_prompt(large, "A CAT")) == "A CAT"  # in bytes


def test_a_training_text_is_not_folded(tokenizer):
    assert vocab.UNKNOWN in tokenizer.encode("A tiger", allow_unknown=True)


def test_folded_words_are_warned_of(tokenizer):
    (note,) = spelling.list_folded(tokenizer, "A picture of a Tiger, a Tiger")
    assert "'A' as 'a'" in note
    assert note.count("'Tiger,' as 'tiger,'") == 1
    assert spelling.list_folded(tokenizer, "a tiger") == []


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("a tigr", "'tiger'"), ("a Elefant", "'elephant'"), ("two strawbery", "'strawberry'")],
)
def test_unknown_word_is_warned_of_with_the_nearest(tokenizer, text, nearest):
    (note,) = spelling.list_unknown(tokenizer, text)
    assert text.split()[1] in note
    assert nearest in note


def test_no_word_is_suggested_that_is_hardly_similar(tokenizer):
    (note,) = spelling.list_unknown(tokenizer, "a candle")
    assert "nearest" not in note


def test_the_beginning_of_a_word_is_not_suggested():
    small = vocab.train_sentencepiece(["a rooster", "a roof", "a bat"] * 50, 28)
    assert {"roo", "rooster"} < set(small.words)
    (note,) = spelling.list_unknown(small, "a robot")
    assert "nearest" not in note


def test_known_words_give_no_warning(tokenizer):
    assert spelling.list_unknown(tokenizer, "a picture of a tiger, then: two animals") == []


def test_parts_of_a_known_word_with_hyphens_give_no_warning():
    small = vocab.train_sentencepiece(["a t-rex", "a t-shirt", "a cat", "a tall shoe"] * 50, 40)
    assert "rex" not in small.words
    assert spelling.list_unknown(small, "a t-rex and a cat") == []
    assert len(spelling.list_unknown(small, "a rex")) == 1


def test_characters_in_bytes_are_warned_of():
    large = vocab.train_sentencepiece(["a cat and a dog"] * 5, 2048)
    (note,) = spelling.list_unknown(large, "a 猫 and a cat 猫")
    assert "'猫' (CJK UNIFIED IDEOGRAPH-732B)" in note


def test_a_missing_symbol_is_refused_with_the_nearest_word(tokenizer):
    with pytest.raises(errors.UserError, match=r"'é'.*'tigér'.*'tiger'"):
        spelling.encode_prompt(tokenizer, "a tigér")
    with pytest.raises(errors.UserError, match="'猫'"):
        spelling.encode_prompt(tokenizer, "A 猫")


@pytest.mark.parametrize("text", ["a \ud800", "\udcff fox"])
@pytest.mark.parametrize("call", [spelling.encode_prompt, spelling.list_unknown])
def test_text_that_is_no_unicode_is_refused(tokenizer, call, text):
    with pytest.raises(errors.UserError, match="lone surrogate"):
        call(tokenizer, text)
