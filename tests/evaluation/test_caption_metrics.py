import importlib.util
import math

import pytest

from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import caption_metrics

NAMES = ["bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider"]
REFERENCES = [
    ["a black cat on a sofa", "a cat lies on the sofa"],
    ["two dogs in the snow", "dogs run in deep snow"],
    ["an old red train at a station", "a train stands at the station"],
]


@pytest.fixture
def scorers():
    if caption_metrics.is_missing():
        pytest.skip("pip install -r requirements-metrics.txt")


@pytest.mark.usefixtures("scorers")
def test_references_score_best():
    metric_values = caption_metrics.compute_metrics(
        [one[0] for one in REFERENCES], [one[:1] for one in REFERENCES]
    )
    assert list(metric_values) == NAMES
    assert metric_values == pytest.approx(dict.fromkeys(NAMES[:5], 1.0) | {"cider": 10.0})


@pytest.mark.usefixtures("scorers")
def test_metrics_match_hand_computed_values():
    """Check a caption that shares 5 of 6 words, in order, and 2 of 5 bigrams with its reference."""
    candidates, right = ["a cat sat on a sofa"], [["a big cat on a sofa"]]
    metric_values = caption_metrics.compute_metrics(candidates, right)
    assert metric_values["bleu1"] == pytest.approx(5 / 6)
    assert metric_values["bleu2"] == pytest.approx(math.sqrt(5 / 6 * 2 / 5))
    assert metric_values["rouge_l"] == pytest.approx(5 / 6)
    # CIDEr weights words by their rarity among images; with one image all weights are 0.
    assert metric_values["cider"] == 0


@pytest.mark.usefixtures("scorers")
def test_short_captions_are_punished():
    metric_values = caption_metrics.compute_metrics(["a cat"], [["a cat on a sofa"]])
    assert metric_values["bleu1"] == pytest.approx(math.exp(1 - 5 / 2))


@pytest.mark.usefixtures("scorers")
def test_worse_captions_score_less():
    right = [one[0] for one in REFERENCES]
    near = ["a cat on a chair", "a dog in the snow", "a red train"]
    crossed = right[1:] + right[:1]
    levels = [
        caption_metrics.compute_metrics(candidates, REFERENCES)
        for candidates in (right, near, crossed, [""] * 3)
    ]
    for name in NAMES:
        values = [level[name] for level in levels]
        assert values == sorted(values, reverse=True), (name, values)
        assert values[0] > values[1] > values[2] >= values[3], (name, values)
    assert levels[3]["rouge_l"] == levels[3]["cider"] == 0
    assert levels[3]["bleu1"] < 1e-6


@pytest.mark.usefixtures("scorers")
def test_case_punctuation_and_spaces_do_not_count():
    loud = [f"  {one[0].upper()}, !" for one in REFERENCES]
    assert caption_metrics.compute_metrics(loud, REFERENCES) == caption_metrics.compute_metrics(
        [one[0] for one in REFERENCES], REFERENCES
    )


def test_normalization_splits_words_and_punctuation():
    assert caption_metrics.normalize("A dog's t-shirt: it’s (quite) RED, isn't it?") == (
        "a dog's t-shirt it’s quite red isn't it"
    )
    assert caption_metrics.normalize(" ... ") == ""


def test_metrics_are_omitted_without_the_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert caption_metrics.is_missing()
    assert caption_metrics.compute_metrics(["a"], [["a"]]) == {}


@pytest.mark.parametrize(
    ("candidates", "right"), [([], []), (["a"], [["a"], ["b"]]), (["a"], [[]])]
)
def test_invalid_input_is_rejected(candidates, right):
    with pytest.raises(UserError, match="one or more references"):
        caption_metrics.compute_metrics(candidates, right)
