import pytest

from oneflow_jax.runtime import storage


@pytest.mark.parametrize("name", ["plain", "a[1]b", "x*?"])
def test_wildcards_are_read_in_the_pattern_only(tmp_path, name):
    folder = tmp_path / name
    for path in ("metadata/process_0", "metadata/process_1", "metadata/other", "process_2"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    literal = storage.LiteralPath(folder)
    assert {path.name for path in literal.glob("process_*")} == {"process_2"}
    # Orbax reads which arrays are random keys with a pattern of several parts.
    nested = sorted(literal.glob("metadata/process_*"))
    assert [path.relative_to(folder).as_posix() for path in nested] == [
        "metadata/process_0",
        "metadata/process_1",
    ]
    assert list(literal.glob("nowhere/*")) == []
