import pickle

import pytest

from oneflow_jax import errors
from oneflow_jax.data import toy, vocab


@pytest.fixture(scope="module")
def texts():
    return [document.text() for document in toy.Toy(documents=300)]


@pytest.fixture(scope="module")
def tokenizer(texts):
    return vocab.train_sentencepiece(texts, 200)


def test_round_trip(texts, tokenizer):
    for text in texts:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert set(ids) <= set(tokenizer.text)


def test_specials_come_first_and_text_never_uses_them(tokenizer):
    specials = (vocab.PAD, vocab.BOS, vocab.END, vocab.IMAGE, vocab.MASK, vocab.UNKNOWN)
    assert specials == tuple(range(len(vocab.SPECIALS)))
    assert tokenizer.text.start == len(specials)
    assert tokenizer.size == tokenizer.text.stop


def test_decode_stops_at_the_end_and_leaves_specials_out(tokenizer):
    red, blue = tokenizer.encode("a red"), tokenizer.encode("a blue")
    ids = [vocab.BOS, vocab.PAD, *red, vocab.MASK, vocab.UNKNOWN, vocab.END, *blue, vocab.END]
    assert tokenizer.decode(ids) == "a red"
    assert tokenizer.decode([vocab.END]) == ""
    assert tokenizer.decode([]) == ""


def test_codes_follow_the_text(tokenizer):
    coded = vocab.Vocab(tokenizer.model, code_count=16)
    assert coded.codes == range(tokenizer.size, tokenizer.size + 16)
    assert coded.size == tokenizer.size + 16
    assert coded.decode([*coded.encode("a red"), coded.codes[3]]) == "a red"


def test_size_is_padded_up(tokenizer):
    assert tokenizer.padded_size(128) % 128 == 0
    assert 0 <= tokenizer.padded_size(128) - tokenizer.size < 128
    assert tokenizer.padded_size(1) == tokenizer.size


def test_training_is_deterministic_and_loads_again(texts, tokenizer, tmp_path):
    again = vocab.train_sentencepiece(texts, 200)
    assert again == tokenizer
    path = tmp_path / "tokenizer.model"
    path.write_bytes(again.model)
    assert vocab.Vocab.load(path) == tokenizer


def test_pickles_after_use(tokenizer):
    ids = tokenizer.encode("a red")
    assert pickle.loads(pickle.dumps(tokenizer)).encode("a red") == ids


def test_unknown_symbols_are_named(tokenizer):
    with pytest.raises(errors.UserError, match=r"'é' \(LATIN SMALL LETTER E WITH ACUTE\) '猫'"):
        tokenizer.encode("a é red 猫")
    assert vocab.UNKNOWN in tokenizer.encode("a é red", allow_unknown=True)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_text_is_refused(tokenizer, text):
    with pytest.raises(errors.UserError, match="empty"):
        tokenizer.encode(text)


def test_a_size_beyond_the_corpus_gives_a_smaller_vocabulary(texts):
    large = vocab.train_sentencepiece(texts, 1500)
    assert large.size < 1500
    assert large.encode("three colors") == large.encode("three colors ")
    assert len(large.encode("three colors")) == 2


def test_a_large_vocabulary_spells_any_symbol_in_bytes(texts):
    large = vocab.train_sentencepiece(texts, 2048)
    assert large.decode(large.encode("a 猫")) == "a 猫"


@pytest.mark.parametrize(("texts_given", "size"), [(["abc def"], 7), ([], 200), ([" "], 200)])
def test_impossible_training_is_named(texts_given, size):
    with pytest.raises(errors.UserError, match=f"size={size}"):
        vocab.train_sentencepiece(texts_given, size)


@pytest.mark.parametrize("content", [None, b"nonsense"])
def test_a_wrong_file_is_named(tmp_path, content):
    path = tmp_path / "tokenizer.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(errors.UserError, match=r"tokenizer\.model"):
        vocab.Vocab.load(path)


def test_long_texts_are_learned_from_too():
    """Check texts of more than 4,192 bytes, which SentencePiece skips."""
    text = " ".join(["zebra", "xylophone"] * 1000)
    tokenizer = vocab.train_sentencepiece([text, "a"], 60)
    assert len(tokenizer.encode("zebra xylophone")) < 5
    without_spaces = vocab.train_sentencepiece(["漢字" * 5000, "a"], 30)
    assert vocab.UNKNOWN not in without_spaces.encode("漢字", allow_unknown=True)


def test_rare_symbols_may_be_left_out():
    texts = ["abcdefgh" * 40] * 50 + ["漢"]
    assert vocab.UNKNOWN in vocab.train_sentencepiece(texts, 40, 0.999).encode(
        "漢", allow_unknown=True
    )
    assert vocab.UNKNOWN not in vocab.train_sentencepiece(texts, 40).encode(
        "漢", allow_unknown=True
    )
    with pytest.raises(errors.UserError, match=r"data\.character_coverage=0\.5: out of range"):
        vocab.train_sentencepiece(texts, 40, 0.5)
