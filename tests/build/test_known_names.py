"""Tests of the names that a model knows."""

import pytest

from configs import digits, own, quickstart
from oneflow_jax.build import custom_data, known_names
from tests.data.custom import examples


def test_emoji_of_the_training_split_are_names():
    config = quickstart.get_config()
    names = known_names.list_names(config)
    assert names[:2] == ("tiger", "cactus")
    assert len(names) == config.source.concepts
    assert known_names.list_names(digits.get_config())[0] == "zero"


@pytest.fixture
def own_config(tmp_path):
    """Return a configuration with own data: two captions in thirds, and one that is no name."""
    folder = tmp_path / "own"
    folder.mkdir()
    for n in range(12):
        text = "long " * 40 if n == 0 else ("a red square", "a blue dot", "a red square")[n % 3]
        files = {f"{n}.png": examples.png(f"rgb({6 * n}, 0, 0)"), f"{n}.txt": text.encode()}
        examples.write_files(folder, files)
    config = own.get_config()
    config.source.path = str(folder)
    config.data.dir = str(tmp_path / "data")
    return config


def test_frequent_captions_of_own_data_are_names(own_config):
    assert known_names.list_names(own_config) == ()  # The function does not prepare the data.
    custom_data.open_prepared(own_config)
    assert known_names.list_names(own_config) == ("a red square", "a blue dot")
