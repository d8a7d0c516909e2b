import sys

import pytest

from oneflow_jax.data import vocab
from oneflow_jax.data.custom import text_clean
from oneflow_jax.data.custom.errors import DataError


@pytest.mark.parametrize(
    ("raw", "expected", "repairs"),
    [
        ("  a\n\tb  c ", "a b c", set()),
        ("5 m² ½ ﬁ Ａ１ e\u0301é ▁▅ 🏳️‍🌈", "5 m² ½ ﬁ Ａ１ e\u0301é ▁▅ 🏳️‍🌈", set()),
        ("a\r\n\u00a0b\u3000\u2028c\v", "a b c", set()),
        ("a\ufdd0b", "ab", {"control characters"}),
        ("▁▂", "▁▂", set()),
        ("▁", "▁", set()),
        ("größer 漢字 ﷽ 👩‍👩‍👧", "größer 漢字 ﷽ 👩‍👩‍👧", set()),
        ("a\0b\x07c", "abc", {"control characters"}),
        ("a\ud800b", "a\ufffdb", {"lone surrogates"}),
        ("\ufeffGröße".encode(), "Größe", set()),
        ("Größe 🦊\r\n".encode("utf-16"), "Größe 🦊", set()),
        ("Größe".encode("utf-16-be").join([b"\xfe\xff", b""]), "Größe", set()),
        (b"a\xffb", "a\ufffdb", {"invalid UTF-8"}),
        (b"\xed\xa0\x80 x", "\ufffd\ufffd\ufffd x", {"invalid UTF-8"}),
    ],
)
def test_text_is_repaired(raw, expected, repairs):
    assert text_clean.clean_text(raw) == (expected, repairs)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "blank words"),
        (" \n\t", "blank words"),
        ("\0\x01", "blank words"),
        ("\u200b\ufeff", "blank words"),
        (b"\xff", "not UTF-8"),
        (7, "not words"),
        (None, "not words"),
    ],
)
def test_text_without_content_is_rejected(raw, reason):
    with pytest.raises(DataError) as fault:
        text_clean.clean_text(raw)
    assert fault.value.reason == reason


def test_cleaned_text_can_be_encoded():
    """Check a text that contains every Unicode code point."""
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    text, repairs = text_clean.clean_text(everything)
    assert text.encode()
    assert repairs == {"invalid UTF-8", "control characters"}
    assert not set(text) & set(map(chr, [*range(32), *range(127, 160), 0xD800, 0xDFFF]))


def test_nearly_all_kept_characters_have_tokens():
    """Check that each kept character below U+3100 gives at least one token.

    A document of characters without tokens would have no slots, so `overflow` would drop it.
    """
    tokenizer = vocab.train_sentencepiece(["a b c words of some kind"] * 9, 2100)
    nothing = []
    for number in range(0x3100):
        try:
            text, _ = text_clean.clean_text(chr(number))
        except DataError:
            continue
        if not tokenizer.encode(text, allow_unknown=True):
            nothing.append(hex(number))
    assert nothing == []


def test_long_text_is_split_into_sections(monkeypatch):
    monkeypatch.setattr(text_clean, "SECTION_WORDS", 3)
    monkeypatch.setattr(text_clean, "SECTION_CHARACTERS", 10)
    assert list(text_clean.split_long_text("a b c d e")) == ["a b c", "d e"]
    assert list(text_clean.split_long_text("aaaa bbbb cccc")) == ["aaaa bbbb", "cccc"]
    assert list(text_clean.split_long_text("x" * 25)) == ["x" * 10, "x" * 10, "x" * 5]


def test_one_megabyte_line_is_split():
    text, _ = text_clean.clean_text("漢" * 350_000)
    assert "".join(text_clean.split_long_text(text)) == text
