"""The paradigm that a configuration names, and what does not go together."""

import dataclasses

import pytest

from configs import common, digits, quickstart
from oneflow_jax.build import paradigms
from oneflow_jax.codecs.autoencoder.codec import VQCodec
from oneflow_jax.errors import UserError
from oneflow_jax.flows import tasks
from oneflow_jax.nn import two_tower
from oneflow_jax.paradigms import chameleon, edit_flow, lmfusion, mask_flow, oneflow, transfusion
from tests import tiny
from tests.codecs.autoencoder import small_models

SHARES = {"joint": 0.2, "text_to_image": 0.3, "image_to_text": 0.1, "spans": 0.0, "scattered": 0.4}


def made(config):
    return paradigms.paradigm(config, tiny.vocabulary(), tiny.CODEC)


def on_codes(config):
    """Of a paradigm whose pictures are codes."""
    config.codec = common.vq_codec("anywhere", pixels=4)
    codec = VQCodec(small_models.random_autoencoder(small_models.VQ), pixels=4)
    vocab = dataclasses.replace(tiny.vocabulary(), code_count=codec.codes)
    return paradigms.paradigm(config, vocab, codec)


@pytest.mark.parametrize("config", [digits.get_config, quickstart.get_config])
def test_each_by_its_name(config):
    assert isinstance(made(config("mask_flow")), mask_flow.MaskFlow)
    assert isinstance(made(config("edit_flow")), edit_flow.EditFlow)
    assert isinstance(made(config()), oneflow.OneFlow)


def test_the_text_model_and_what_is_made_of_it():
    """Alike but for their class, and what is frozen: together all, and nothing twice."""
    kinds = {
        "transfusion": transfusion.Transfusion,
        "language": lmfusion.Language,
        "lmfusion": lmfusion.LMFusion,
    }
    for name, kind in kinds.items():
        config = quickstart.get_config(name)
        assert type(made(config)) is kind
        usual = made(quickstart.get_config("transfusion"))
        # Words are learned in all documents, never left out.
        expected = (
            dataclasses.replace(usual, mix=tasks.ALL_TARGETS) if name == "language" else usual
        )
        assert dataclasses.asdict(made(config)) == dataclasses.asdict(expected)
        assert (config.paradigm.name in paradigms.TWO_TOWER) == (name != "transfusion")
    text, both = (quickstart.get_config(name) for name in paradigms.TEXT_PRETRAINING)
    assert (text.optimizer.frozen, both.optimizer.frozen) == (
        two_tower.IMAGE_PARAMS,
        two_tower.TEXT_PARAMS,
    )
    assert both.start.endswith(text.name)
    assert not text.start


def test_tasks_of_chameleon_are_those_of_the_configuration():
    for name in paradigms.USES_IMAGE_TOKENS:
        config = common.document_model_config("any")
        common.set_paradigm(config, name)
        config.paradigm.update(SHARES | {"drop": 0.25})
        paradigm = on_codes(config)
        assert isinstance(paradigm, chameleon.Chameleon)
        assert paradigm.mix == tasks.TaskMixture((0.2, 0.3, 0.1, 0.0, 0.4), 0.25)
        assert paradigm.in_step.mix == tasks.ALL_TARGETS
        assert dict(paradigm.weights).keys() == set(chameleon.LOSS_TERMS)
        config.paradigm.joint = 0.9
        with pytest.raises(UserError, match=r"joint, text_to_image, .* must add up to 1"):
            on_codes(config)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"paradigm.name": "large"}, "paradigm.name='large' is none of oneflow, mask_flow"),
        ({"paradigm.name": "edit_flow"}, "data.text_slots=8 does not go with"),
        ({"paradigm.name": "language"}, "data.text_slots=8 does not go with"),
        ({"paradigm.name": "lmfusion"}, "data.text_slots=8 does not go with"),
        ({"data.text_slots": 0}, "data.text_slots=0 does not go with"),
        ({"data.text_slots": -1}, "data.text_slots=-1 does not go with"),
        ({"paradigm.joint": 0.9}, "they must add up to 1"),
        (
            {"paradigm.name": "edit_flow", "data.text_slots": 0, "paradigm.together": 0.9},
            "interleaved, independent, together, revised are",
        ),
        ({"paradigm.objective": "guess"}, "paradigm.objective='guess' is none of endpoint"),
        ({"paradigm.image": "noise"}, "paradigm.image='noise' is none of clean"),
        ({"paradigm.clock": ("sundial",)}, "paradigm.clock='sundial' is none of power"),
    ],
)
def test_what_makes_no_sense_is_told(change, told):
    config = common.document_model_config("any")
    with config.ignore_type():
        config.update_from_flattened_dict(change)
    with pytest.raises(UserError) as raised:
        made(config)
    assert told in str(raised.value)
