import pytest

from tests.data import small_style_packages


@pytest.fixture(scope="session")
def packages_folder(tmp_path_factory):
    return small_style_packages.write(tmp_path_factory.mktemp("packages"))
