import pickle

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from oneflow_jax.data import pretrained_vocab, spelling, vocab
from oneflow_jax.errors import UserError
from tests.pretrained import random_language_model


@pytest.fixture(scope="module", params=["llama", "llama3", "qwen2"])
def tokenizer(request):
    return random_language_model.make_tokenizer(request.param)


@pytest.fixture
def loaded(tokenizer, tmp_path):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return pretrained_vocab.PretrainedVocab.load(tmp_path / "tokenizer.json", code_count=16)


@pytest.mark.parametrize("text", random_language_model.TEXTS)
def test_texts_are_restored_letter_by_letter(loaded, text):
    ids = loaded.encode(text)
    assert set(ids) <= set(loaded.text)
    assert loaded.decode(ids) == text
    assert "".join(loaded.to_pieces(ids)) == text


def test_ids_are_those_of_the_tokenizer_after_our_special_ids(loaded, tokenizer):
    text = "The capital of France"
    expected = tokenizer.encode(text, add_special_tokens=False).ids
    ids = loaded.encode(text)
    np.testing.assert_array_equal(
        loaded.pretrained_ids[np.array(ids) - loaded.text.start], expected
    )
    assert loaded.text == range(6, 6 + tokenizer.get_vocab_size() - 3)
    assert list(loaded.codes) == list(range(loaded.text.stop, loaded.text.stop + 16))


def test_names_of_special_tokens_in_a_text_are_letters(loaded, tokenizer):
    assert len(tokenizer.encode("<|endoftext|>", add_special_tokens=False).ids) == 1
    ids = loaded.encode("<|endoftext|>")
    assert len(ids) > 3
    assert not set(loaded.pretrained_ids) & {tokenizer.token_to_id("<|endoftext|>")}


def test_decoding_ends_at_end_and_skips_special_ids(loaded):
    red, blue = loaded.encode("naïve"), loaded.encode(" café")
    ids = [vocab.BOS, *red, vocab.IMAGE, vocab.MASK, *blue, loaded.codes[3], vocab.END, *red]
    assert loaded.decode(ids) == "naïve café"
    pieces = loaded.to_pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == "naïve cafénaïve"


def test_an_incomplete_character_is_shown(loaded):
    ids = loaded.encode("a🐙")
    assert len(ids) > 2
    pieces = loaded.to_pieces(ids[:-1])
    assert pieces[0] == "a"
    assert set(pieces[-1]) == {"\ufffd"}


def test_it_is_a_value(loaded):
    again = pickle.loads(pickle.dumps(loaded))
    assert again == loaded
    assert again.encode("café") == loaded.encode("café")


def test_words_and_spelling(loaded):
    assert "two" in loaded.words
    assert all(word.isalpha() for word in loaded.words)
    assert loaded.missing_symbols("日本 \U0001fae8") == []
    assert loaded.is_spelled("\U0001fae8")
    assert not loaded.is_spelled("a")
    assert spelling.encode_prompt(loaded, "Größe") == loaded.encode("Größe")


def test_texts_that_cannot_be_encoded(loaded):
    with pytest.raises(UserError, match="is empty"):
        loaded.encode(" \n")
    with pytest.raises(UserError, match="lone surrogate"):
        loaded.encode("a\ud800")


def test_files_that_cannot_be_used(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(UserError, match=r"no such file\. Copy it"):
        pretrained_vocab.PretrainedVocab.load(path)
    path.write_text("{}")
    with pytest.raises(UserError, match="not a tokenizer file"):
        pretrained_vocab.PretrainedVocab.load(path)
    words = tokenizers.Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(path))
    with pytest.raises(UserError, match="it changes texts"):
        pretrained_vocab.PretrainedVocab.load(path)


def test_bytes_that_are_no_text_have_pieces(tmp_path):
    """Check tokens of bytes that are not UTF-8, which models may write."""
    tokenizer = random_language_model.make_tokenizer("gemma3")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = pretrained_vocab.PretrainedVocab.load(tmp_path / "tokenizer.json")
    for text in random_language_model.TEXTS:
        assert "".join(loaded.to_pieces(loaded.encode(text))) == text
    theirs = loaded.pretrained_ids.tolist()
    names = ("<0x2E>", "<0xC3>", "<0x80>", "<0xFF>", "a")
    ids = [loaded.text.start + theirs.index(tokenizer.token_to_id(name)) for name in names]
    assert loaded.decode(ids) == 4 * "\ufffd" + "a"
    assert loaded.to_pieces(ids) == [".", "", "À", "", "\ufffd\ufffda"]
