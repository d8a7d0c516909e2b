import pytest

from tests.launch import cloud as clouds


@pytest.fixture
def cloud(tmp_path):
    return clouds.Cloud(tmp_path)
