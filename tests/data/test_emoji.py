import collections
import itertools
import pathlib

import numpy as np
import pytest

from oneflow_jax import errors
from oneflow_jax.data import emoji, emoji_concepts, sentences, sources

SETTINGS = {"concepts": 24, "pixels": 16, "documents": 400, "held_out_documents": 60}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("emoji")


@pytest.fixture(scope="module")
def documents(folder):
    splits = ("train", "heldout", "combinations")
    return {split: [*sources.open_dataset("emoji", folder, split, **SETTINGS)] for split in splits}


@pytest.fixture(scope="module")
def concepts():
    loaded = emoji_concepts.load(16, 24, emoji.Settings().categories)
    return {concept.name: concept for concept in loaded}


def expected_names(document, concepts):
    kinds = {name: concept.kind for name, concept in concepts.items()}
    return sentences.expected_names(document, kinds)


def test_text_and_images_agree_in_every_document(documents, concepts):
    for document in itertools.chain(*documents.values()):
        names = expected_names(document, concepts)
        assert names is not None, document.text()
        for name, picture in zip(names, document.images(), strict=True):
            np.testing.assert_array_equal(picture, concepts[name].pixels)


def test_documents_stay_within_one_category(documents, concepts):
    for document in itertools.chain(*documents.values()):
        names = expected_names(document, concepts)
        assert len({(concepts[name].category, concepts[name].kind) for name in names}) == 1


def test_held_out_concepts_never_occur_in_training(documents, concepts):
    names_of_split = {
        split: {
            name for document in documents[split] for name in expected_names(document, concepts)
        }
        for split in documents
    }
    assert not names_of_split["train"] & names_of_split["heldout"]
    assert names_of_split["combinations"] <= names_of_split["train"]
    assert len(names_of_split["train"]) == 24
    assert names_of_split["heldout"] == {name for name in concepts if concepts[name].held_out}


def test_combinations_are_not_in_training(documents, concepts):
    train_combinations = {expected_names(document, concepts) for document in documents["train"]}
    for document in documents["combinations"]:
        names = expected_names(document, concepts)
        assert len(names) > 1
        assert names not in train_combinations


def test_templates_and_their_fractions(documents):
    pictures = collections.Counter(len(document.images()) for document in documents["train"])
    assert set(pictures) == {1, 2, 3, 4}
    assert 0.4 < pictures[1] / 400 < 0.6
    assert len(documents["heldout"]) == len(documents["combinations"]) == 60


def test_equal_settings_give_equal_bytes(tmp_path, folder, documents):
    del documents  # The fixture prepares `folder`.
    sources.open_dataset("emoji", tmp_path, "train", **SETTINGS)
    name = emoji.Settings(**SETTINGS).name

    def read_stored(root: pathlib.Path) -> dict[str, bytes]:
        files = (root / "emoji").glob(f"{name}_*/1.0.0/*.array_record*")
        return {file.name: file.read_bytes() for file in files}

    assert len(read_stored(folder)) == 3
    assert read_stored(tmp_path) == read_stored(folder)


def test_captions_can_be_chosen(tmp_path):
    chosen = {"concepts": 8, "documents": 30, "held_out_documents": 2, "interleaved": 0}
    source = sources.open_dataset("emoji", tmp_path, "train", captions=["[0] {0}"], **chosen)
    assert all(document.text().startswith(("a ", "an ")) for document in source)
    with pytest.raises(errors.UserError, match="split='combinations'"):
        sources.open_dataset("emoji", tmp_path, "combinations", captions=["[0] {0}"], **chosen)


def test_different_settings_have_different_folders():
    names = {emoji.Settings().name, emoji.Settings(pixels=32).name, emoji.Settings(concepts=8).name}
    assert len(names | {emoji.Settings(interleaved=0.4).name}) == 4


def test_the_attribution_is_stored(folder, documents):
    del documents  # The fixture prepares `folder`.
    info = emoji.builder(folder, **SETTINGS).info
    assert emoji.ATTRIBUTION in info.description
    assert info.redistribution_info.license == "CC BY-SA 4.0"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"concepts": 2}, "concepts=2: no two concepts are of the same kind"),
        ({"interleaved": 1.5}, "interleaved=1.5"),
        ({"pixels": 0}, "pixels=0"),
        ({"documents": 0}, "documents=0"),
        ({"captions": ("hello",)}, "hello"),
        ({"captions": ()}, "Choose from"),
        ({"concept": 3}, "'concept'"),
    ],
)
def test_invalid_settings_are_reported(tmp_path, settings, message):
    with pytest.raises(errors.UserError, match=message):
        sources.open_dataset("emoji", tmp_path, "train", **settings)
