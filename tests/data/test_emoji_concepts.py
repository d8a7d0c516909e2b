import numpy as np
import pytest

from oneflow_jax import errors
from oneflow_jax.data import emoji, emoji_concepts

ANIMALS_AND_FOOD = ("Animals & Nature", "Food & Drink")


@pytest.fixture(scope="module")
def all_concepts():
    return emoji_concepts.load(8)


@pytest.mark.parametrize("count", [8, 64, 100])
def test_count_is_the_number_of_training_concepts(count):
    concepts = emoji_concepts.load(8, count, ANIMALS_AND_FOOD)
    train = [concept for concept in concepts if not concept.held_out]
    assert len(train) == count
    assert 1 <= len(concepts) - count <= count / 8
    assert len({concept.name for concept in concepts}) == len(concepts)


def test_the_quickstart_takes_its_concepts_from_the_chosen_list():
    concepts = emoji_concepts.load(24, 64, ANIMALS_AND_FOOD)
    assert {concept.name for concept in concepts} <= set(emoji_concepts.FREQUENT)
    assert {concept.category for concept in concepts} == set(ANIMALS_AND_FOOD)


def test_quickstart_images_differ():
    concepts = emoji_concepts.load(24, 64, ANIMALS_AND_FOOD)
    flat = np.stack([concept.pixels.astype(float).ravel() for concept in concepts])
    distance = np.sqrt(((flat[:, None] - flat[None]) ** 2).mean(-1))
    assert distance[~np.eye(len(flat), dtype=bool)].min() > 30


def test_images_are_rendered_on_white():
    for concept in emoji_concepts.load(32, 16, ANIMALS_AND_FOOD):
        assert concept.pixels.shape == (32, 32, 3)
        np.testing.assert_array_equal(concept.pixels[0, 0], [255, 255, 255])
        assert concept.pixels.min() < 150


def test_names_are_unique_and_a_tenth_is_held_out(all_concepts):
    names = [concept.name for concept in all_concepts]
    assert len(names) > 1800
    assert len(set(names)) == len(names)
    assert not any(name.endswith("skin tone") for name in names)
    assert 0.07 < np.mean([concept.held_out for concept in all_concepts]) < 0.14


def test_lists_name_emoji_that_exist(all_concepts):
    names = {concept.name for concept in all_concepts}
    assert set(emoji_concepts.FREQUENT) <= names
    assert set(emoji_concepts._KIND_EXCEPTIONS) <= names


def test_kinds_are_correct(all_concepts):
    kinds = {concept.name: concept.kind for concept in all_concepts}
    expected = {"tiger": "animal", "cactus": "plant", "lemon": "fruit", "carrot": "vegetable"}
    expected |= {"pizza": "food", "flag of japan": "flag", "wing": "picture", "dragon": "picture"}
    assert {name: kinds[name] for name in expected} == expected


def test_skin_tones_are_in_the_split_of_their_emoji():
    people = emoji_concepts.load(8, None, ("People & Body",), skin_tones=True)
    sides = {concept.name: concept.held_out for concept in people}
    toned = [name for name in sides if name.endswith(" dark skin tone")]
    assert len(toned) > 200
    for name in toned:
        base = name.removesuffix(" dark skin tone")
        if base in sides:
            assert sides[name] == sides[base], name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 5000}, "5000"),
        ({"count": 0}, "concepts=0"),
        ({"categories": ("Robots",)}, "Robots"),
        ({"categories": ()}, "Choose from"),
    ],
)
def test_invalid_settings_are_reported(arguments, message):
    with pytest.raises(errors.UserError, match=message):
        emoji_concepts.load(8, **arguments)


def test_chosen_names_are_in_training_even_if_their_hash_holds_them_out():
    names = ("panda", "fox", "banana")  # "panda" and "banana" are held out by default
    concepts = emoji_concepts.load(8, None, ANIMALS_AND_FOOD, names=names)
    assert [one.name for one in concepts if one.in_training] == list(names)
    held_out = [one.name for one in concepts if one.held_out]
    assert len(held_out) == 1
    assert held_out[0] not in names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ("fox", "griffin")}, r"names=\['griffin'\]"),
        ({"names": ("fox", "fox")}, r"names=\['fox', 'fox'\]"),
        ({"names": ("fox",), "count": 3}, "concepts=3: must be None"),
    ],
)
def test_wrong_names_are_named(arguments, message):
    with pytest.raises(errors.UserError, match=message):
        emoji_concepts.load(8, categories=ANIMALS_AND_FOOD, **arguments)


def test_the_listed_names_are_those_in_training():
    for settings in (emoji.Settings(concepts=12), emoji.Settings(concepts=None, names=("fox",))):
        drawn = [one.name for one in settings.load_concepts() if one.in_training]
        assert list(settings.list_names()) == drawn


def test_names_change_the_folder_of_the_data_and_their_absence_does_not():
    def folder(**changes):
        return emoji.Settings(concepts=None, **changes).name

    assert folder(names=("fox", "wolf")) != folder(names=("wolf", "fox"))
    assert folder() == folder(names=())
    assert folder() != folder(names=("fox",))
