"""Tests that cost schedules list the forward passes that the samplers take."""

import pytest

from oneflow_jax.costs import generation, model_sizes

DOCUMENT = generation.DocumentShape(
    num_text_tokens=5, num_images=2, patches_per_image=4, codes_per_image=3
)


def list_passes(schedule, passes, document=DOCUMENT):
    """Return the (slots, cached slots) of each pass."""
    return [
        (one.num_slots, one.context_length)
        for one in schedule(document, passes)
        for _ in range(one.repeats)
    ]  # fmt: skip


def test_concurrent_passes_process_all_slots():
    assert list_passes(generation.all_slot_passes, 3) == [(5 + 2 * 4, 0)] * 3


def test_insertion_doubles_the_nfe_only_with_images():
    assert list_passes(generation.insertion_passes, 3) == [(13, 0)] * 6
    assert (
        list_passes(generation.insertion_passes, 3, generation.DocumentShape(5, 0, 4, 3))
        == [(5, 0)] * 3
    )


def test_image_codes_take_one_pass_each():
    assert list_passes(generation.token_passes, 3) == [(1, n) for n in range(5 + 2 * 3)]


def test_image_flows_follow_text_runs():
    assert list_passes(generation.token_and_image_flow_passes, 2) == [
        *((1, n) for n in range(2)), *[(4, 2)] * 3,
        *((1, n) for n in range(6, 9)), *[(4, 9)] * 3,
    ]  # fmt: skip


def test_text_documents_take_one_pass_per_token():
    words = generation.DocumentShape(
        num_text_tokens=5, num_images=0, patches_per_image=4, codes_per_image=3
    )
    tokens = [(1, n) for n in range(5)]
    assert list_passes(generation.token_and_image_flow_passes, 2, words) == tokens
    assert list_passes(generation.token_passes, 2, words) == tokens


def test_passes_equal_those_of_the_sampler():
    """Compare with the sampler's test, `tests/samplers/test_autoregressive.py`.

    The passes there are BOS, 10, 11, <image>, an image flow of 2 steps, its cache update, and
    <end>.
    """
    document = generation.DocumentShape(
        num_text_tokens=5, num_images=1, patches_per_image=4, codes_per_image=4
    )
    assert (
        len(list_passes(generation.token_and_image_flow_passes, 2, document)) == 1 + 3 + (2 + 1) + 1
    )


@pytest.mark.parametrize("words", [0, 1, 7, 256])
@pytest.mark.parametrize("pictures", [0, 1, 3, 4])
def test_text_runs_are_about_equal_and_sum_to_all_tokens(words, pictures):
    runs = list(generation.DocumentShape(words, pictures, 4, 4).text_run_lengths())
    assert sum(runs) == words
    assert max(runs) - min(runs) <= 1


def test_passes_count_their_modalities():
    def num_modalities(name, document=DOCUMENT):
        return {one.num_modalities for one in generation.PROFILES[name].schedule(document, 2)}

    assert num_modalities("oneflow") == num_modalities("edit_flow") == {2}
    assert num_modalities("oneflow", generation.DocumentShape(5, 0, 4, 3)) == {1}
    assert num_modalities("lmfusion") == num_modalities("chameleon") == {1}


def test_profiles_set_heads_and_towers():
    plain = model_sizes.ONE_BILLION
    assert generation.PROFILES["oneflow"].network(plain) == plain
    assert generation.PROFILES["edit_flow"].network(plain).outputs == 2 * 8_192 + 48
    assert generation.PROFILES["lmfusion"].network(plain).towers == 2
