import gc
import logging

import jax
import jax.numpy as jnp

from oneflow_jax.runtime import programs


def make_program(number):
    return jax.jit(lambda x: x * number)


def test_the_least_recently_used_program_is_dropped(caplog):
    cache = programs.ProgramCache(2)
    with caplog.at_level(logging.INFO):
        assert cache.get("a", lambda: make_program(1))[1]
        assert cache.get("b", lambda: make_program(2))[1]
        assert not cache.get("a", lambda: make_program(1))[1]
        assert not caplog.text
        assert cache.get("c", lambda: make_program(3))[1]
    assert "Dropped the least recently used of 3 compiled sampling programs" in caplog.text
    assert len(cache) == 2
    assert not cache.get("a", lambda: make_program(1))[1]
    assert cache.get("b", lambda: make_program(2))[1]


def test_a_dropped_program_is_freed():
    client = jax.devices()[0].client
    cache = programs.ProgramCache(1)
    counts = []
    for number in range(4):
        program, _ = cache.get(number, lambda number=number: make_program(number + 7))
        program(jnp.ones(3))
        del program
        gc.collect()
        counts.append(len(client.live_executables()))
    assert counts[-1] == counts[0]
