import pickle

import pytest

from oneflow_jax import errors
from oneflow_jax.data import toy, vocab
from tests import tiny


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


def test_training_is_deterministic_and_loadable(texts, tokenizer, tmp_path):
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


def test_large_vocabulary_encodes_any_symbol_as_bytes(texts):
    large = vocab.train_sentencepiece(texts, 2048)
    assert large.decode(large.encode("a 猫")) == "a 猫"


@pytest.mark.parametrize(("texts_given", "size"), [(["abc def"], 7), ([], 200), ([" "], 200)])
def test_impossible_sizes_are_reported(texts_given, size):
    with pytest.raises(errors.UserError, match=f"size={size}"):
        vocab.train_sentencepiece(texts_given, size)


@pytest.mark.parametrize("content", [None, b"nonsense"])
def test_wrong_file_is_reported(tmp_path, content):
    path = tmp_path / "tokenizer.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(errors.UserError, match=r"tokenizer\.model"):
        vocab.Vocab.load(path)


def test_long_texts_are_used_in_training():
    """Check texts of more than 4,192 bytes, which SentencePiece skips unless they are split."""
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


KEPT_TEXTS = [
    "5 m² ½ and 10⁻³ μm",
    "ﬁne ﬂour Ａ１ ｶﾅ ℌ",  # ligatures, full-width and half-width forms
    "👩‍👩‍👧 ❤️ 🏳️‍🌈",  # zero-width joiners and variation selectors
    "é e\u0301 ﷽ ﷺ",  # composed, decomposed, and Arabic ligatures
    "▁▂▃▄▅▆▇█ a▁b",  # U+2581 and U+2585, which SentencePiece reserves
    "a <unk> b <0x41> <s></s> <pad>",
    "only <unk> here",
    "zero\u200bwidth \ufeffmark soft\u00adhyphen \ufffd",
]


@pytest.mark.parametrize("size", [300, 2048])
@pytest.mark.parametrize("text", KEPT_TEXTS)
def test_text_round_trips_letter_for_letter(texts, text, size):
    tokenizer = vocab.train_sentencepiece([*texts, *[text] * 5], size)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", KEPT_TEXTS)
def test_unseen_text_is_encoded_as_bytes(texts, text):
    tokenizer = vocab.train_sentencepiece(texts, 2048)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_white_space_becomes_single_spaces_and_nothing_else_changes(texts):
    for size in (200, 2048):
        tokenizer = vocab.train_sentencepiece([*texts, "a\tred\n\u3000circle"], size)
        ids = tokenizer.encode(" \t a\u00a0 red\r\n\u3000circle ")
        assert tokenizer.decode(ids) == "a red circle"


def test_every_character_round_trips_or_is_white_space():
    tokenizer = vocab.train_sentencepiece(["a red circle"] * 9, 2048)
    changed = []
    for start in range(1, 0x20000, 16):
        points = [n for n in range(start, start + 16) if not 0xD800 <= n < 0xE000]
        letters = (c for c in map(chr, points) if not c.isspace() and c not in "\ufdd0\ufdd1\ufdd2")
        word = "".join(letters)
        if word and tokenizer.decode(tokenizer.encode(word)) != word:
            changed.append(hex(start))
    assert changed == []


def test_older_tokenizers_keep_their_normalization():
    """Check a tokenizer of an early version, trained with SentencePiece's NFKC normalization."""
    old = vocab.Vocab.load(tiny.EMOJI_TOKENIZER)
    assert old.decode(old.encode("a  ﬁsh and ｔｉｇｅｒ")) == "a fish and tiger"
    assert old.encode("a picture of a tiger") == [6, 33, 31, 6, 309]


CHARACTERS = [chr(0x4E00 + i) for i in range(3000)]


@pytest.mark.parametrize("coverage", [1.0, 0.9995])
def test_surplus_characters_are_encoded_as_bytes(coverage):
    texts = ["".join(CHARACTERS[i : i + 100]) for i in range(0, 3000, 100)]
    texts += ["".join(CHARACTERS[:500])] * 20
    tokenizer = vocab.train_sentencepiece(texts, 2048, coverage)
    assert tokenizer.size <= 2048
    whole = "".join(CHARACTERS)
    ids = tokenizer.encode(whole)
    assert tokenizer.decode(ids) == whole
    # Frequent characters have tokens of their own.
    assert len(tokenizer.encode("".join(CHARACTERS[:500]))) <= 501


@pytest.mark.parametrize("size", [300, 2047])
def test_too_many_characters_for_a_small_vocabulary_is_an_error(size):
    with pytest.raises(errors.UserError) as error:
        vocab.train_sentencepiece(["".join(CHARACTERS)], size)
    assert f"data.vocab_size={size}" in str(error.value)
    assert "3,001 different characters" in str(error.value)
    assert "2,048" in str(error.value)
    assert "sentencepiece" not in str(error.value).lower()


@pytest.mark.parametrize("texts_given", [[], [" "], ["\n\t", ""]])
def test_training_without_text_is_an_error(texts_given):
    with pytest.raises(errors.UserError, match="no text") as error:
        vocab.train_sentencepiece(texts_given, 2048)
    assert ".cc" not in str(error.value)


def test_unknown_characters_are_warned_of(caplog):
    vocab.train_sentencepiece(["abcdefgh" * 40] * 50 + ["漢"], 40, 0.999)
    assert "'漢' (CJK UNIFIED IDEOGRAPH-6F22)" in caplog.text
    assert "data.character_coverage" in caplog.text
    caplog.clear()
    vocab.train_sentencepiece(["abcdefgh" * 40] * 50 + ["漢"], 2048, 0.999)
    assert not caplog.text


@pytest.mark.parametrize("text", ["a \udcff", "a\ud83d"])
def test_lone_surrogate_is_refused(tokenizer, text):
    with pytest.raises(errors.UserError, match="surrogate"):
        tokenizer.encode(text)


def test_pieces_join_to_the_text_with_characters_in_bytes(texts):
    tokenizer = vocab.train_sentencepiece(texts, 2048)
    ids = tokenizer.encode("a 猫 red ▁é")
    assert "".join(tokenizer.to_pieces(ids)) == " a 猫 red ▁é"
    assert "".join(tokenizer.to_pieces([*ids, vocab.END, *ids])) == " a 猫 red ▁é" * 2
    three_bytes = tokenizer.encode("猫")[-3:]
    assert tokenizer.to_pieces(three_bytes) == ["", "", "猫"]
    assert tokenizer.to_pieces([*three_bytes[:2], *tokenizer.encode("a")]) == ["", "\ufffd", " a"]
    assert tokenizer.to_pieces(three_bytes[:1]) == ["\ufffd"]


def test_noncharacters_are_refused_in_prompts(texts):
    tokenizer = vocab.train_sentencepiece(texts, 2048)
    with pytest.raises(errors.UserError, match="ufdd0"):
        tokenizer.encode("a \ufdd0 red")
    assert tokenizer.decode(tokenizer.encode("a \ufdd1", allow_unknown=True)) == "a \ufffd"
