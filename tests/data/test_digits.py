import collections

import numpy as np
import pytest
from sklearn import datasets

from oneflow_jax.data import digits, sources


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return {
        split: [*sources.open_dataset("digits", folder, split)] for split in ("train", "heldout")
    }


def test_there_are_forty_captions_of_six_words():
    assert len(digits.CAPTIONS) == 40
    assert {len(caption.split()) for caption in digits.CAPTIONS} == {6}
    assert collections.Counter(digits.CAPTIONS.values()) == dict.fromkeys(range(10), 4)


def test_parse_digit_is_exact():
    assert digits.parse_digit("a drawing of the digit seven") == 7
    for near in ("a drawing of the digit", "a drawing of the digit seven ", "seven", ""):
        assert digits.parse_digit(near) is None


def test_splits_hold_every_scan_once_with_its_true_caption(documents):
    scans = datasets.load_digits()
    truth = collections.Counter(
        (scan.astype(int).tobytes(), int(digit))
        for scan, digit in zip(scans.images, scans.target, strict=True)
    )
    counts = collections.Counter()
    for document in documents["train"] + documents["heldout"]:
        (picture,) = document.images()
        ink = np.round(picture[:, :, 0] / 255 * 16).astype(int)
        counts[ink.tobytes(), digits.parse_digit(document.text())] += 1
    assert counts == truth
    assert 1450 < len(documents["train"]) < 1550


def test_all_captions_occur_in_both_splits(documents):
    for split in documents.values():
        assert {document.text() for document in split} == set(digits.CAPTIONS)


def test_images_are_rgb_uint8(documents):
    picture = documents["train"][0].images()[0]
    assert picture.shape == (8, 8, 3)
    assert picture.dtype == np.uint8
    assert picture.max() > 200
