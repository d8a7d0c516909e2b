import pickle

import pytest

from oneflow_jax.data import sentences, toy


def test_captions_name_the_colors_of_their_images():
    kinds = dict.fromkeys(toy.COLORS, "color")
    names_of_colors = {color: name for name, color in toy.COLORS.items()}
    source = toy.Toy(documents=200)
    for document in source:
        names = sentences.expected_names(document, kinds)
        colors = [tuple(image[0, 0].tolist()) for image in document.images()]
        assert names == tuple(names_of_colors[color] for color in colors), document.text()
    assert {len(document.images()) for document in source} == {1, 2, 3, 4}


def test_documents_are_deterministic_and_differ_between_splits():
    def words(split):
        source = pickle.loads(pickle.dumps(toy.Toy(split)))
        return [document.text() for document in source]

    assert words("train") == words("train")
    assert words("train") != words("heldout")


def test_fields_set_size_and_number():
    source = toy.Toy(documents=20, pixels=6, interleaved=0)
    assert len(source) == 20
    assert {document.images()[0].shape for document in source} == {(6, 6, 3)}
    assert {len(document.images()) for document in source} == {1}
    with pytest.raises(IndexError):
        source[20]
