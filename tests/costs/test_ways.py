"""Ways make the passes that the samplers of `paradigms` make."""

import pytest

from oneflow_jax.costs import sizes, ways

DOCUMENT = ways.DocumentShape(words=5, pictures=2, patches=4, codes=3)


def spread(schedule, passes, document=DOCUMENT):
    """Slots of each pass, and those before them, one by one."""
    return [
        (one.slots, one.before)
        for one in schedule(document, passes)
        for _ in range(one.times)
    ]  # fmt: skip


def test_at_once_all_slots_go_through_every_pass():
    assert spread(ways.all_slot_passes, 3) == [(5 + 2 * 4, 0)] * 3


def test_growing_takes_twice_the_passes_for_pictures_alone():
    assert spread(ways.insertion_passes, 3) == [(13, 0)] * 6
    assert spread(ways.insertion_passes, 3, ways.DocumentShape(5, 0, 4, 3)) == [(5, 0)] * 3


def test_codes_are_tokens():
    assert spread(ways.token_passes, 3) == [(1, n) for n in range(5 + 2 * 3)]


def test_flows_come_after_runs_of_words():
    assert spread(ways.token_and_image_flow_passes, 2) == [
        *((1, n) for n in range(2)), *[(4, 2)] * 3,
        *((1, n) for n in range(6, 9)), *[(4, 9)] * 3,
    ]  # fmt: skip


def test_words_alone_are_words_alone():
    words = ways.DocumentShape(words=5, pictures=0, patches=4, codes=3)
    tokens = [(1, n) for n in range(5)]
    assert spread(ways.token_and_image_flow_passes, 2, words) == tokens
    assert spread(ways.token_passes, 2, words) == tokens


def test_as_many_passes_as_the_sampler_makes():
    """`tests/samplers/test_autoregressive.py` counts BOS, 10, 11, <image>, its flow of 2, <end>."""
    document = ways.DocumentShape(words=5, pictures=1, patches=4, codes=4)
    assert len(spread(ways.token_and_image_flow_passes, 2, document)) == 1 + 3 + (2 + 1) + 1


@pytest.mark.parametrize("words", [0, 1, 7, 256])
@pytest.mark.parametrize("pictures", [0, 1, 3, 4])
def test_runs_are_equal_and_all_words(words, pictures):
    runs = list(ways.DocumentShape(words, pictures, 4, 4).runs())
    assert sum(runs) == words
    assert max(runs) - min(runs) <= 1


def test_kinds_are_those_in_a_pass():
    def kinds(name, document=DOCUMENT):
        return {one.kinds for one in ways.PROFILES[name].schedule(document, 2)}

    assert kinds("oneflow") == kinds("edit_flow") == {2}
    assert kinds("oneflow", ways.DocumentShape(5, 0, 4, 3)) == {1}
    assert kinds("lmfusion") == kinds("chameleon") == {1}


def test_networks_of_the_ways():
    plain = sizes.ONE_BILLION
    assert ways.PROFILES["oneflow"].network(plain) == plain
    assert ways.PROFILES["edit_flow"].network(plain).outputs == 2 * 8_192 + 48
    assert ways.PROFILES["lmfusion"].network(plain).towers == 2
