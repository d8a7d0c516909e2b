"""Tests of building the configured paradigm, and of combinations that are not supported."""

import dataclasses

import pytest

from configs import common, digits, quickstart
from oneflow_jax.build import paradigms
from oneflow_jax.codecs.autoencoder.codec import VQCodec
from oneflow_jax.errors import UserError
from oneflow_jax.flows import tasks, time_samplers
from oneflow_jax.nn import two_tower
from oneflow_jax.paradigms import chameleon, edit_flow, lmfusion, mask_flow, oneflow, transfusion
from tests import tiny
from tests.codecs.autoencoder import small_models

SHARES = {"joint": 0.2, "text_to_image": 0.3, "image_to_text": 0.1, "spans": 0.0, "scattered": 0.4}


def build_paradigm(config):
    return paradigms.paradigm(config, tiny.vocabulary(), tiny.CODEC)


def build_code_paradigm(config):
    """Build a paradigm that models images as codes."""
    config.codec = common.vq_codec("anywhere", pixels=4)
    codec = VQCodec(small_models.random_autoencoder(small_models.VQ), pixels=4)
    vocab = dataclasses.replace(tiny.vocabulary(), code_count=codec.num_codes)
    return paradigms.paradigm(config, vocab, codec)


@pytest.mark.parametrize("config", [digits.get_config, quickstart.get_config])
def test_paradigms_are_built_by_name(config):
    assert isinstance(build_paradigm(config("mask_flow")), mask_flow.MaskFlow)
    assert isinstance(build_paradigm(config("edit_flow")), edit_flow.EditFlow)
    assert isinstance(build_paradigm(config()), oneflow.OneFlow)


def test_lmfusion_differs_from_its_text_model_in_class_and_frozen_parameters():
    """Compare `language` and `lmfusion` with `transfusion`: apart from the class, settings agree.

    `language` and `lmfusion` freeze opposite towers, so exactly one of them trains each parameter.
    """
    kinds = {
        "transfusion": transfusion.Transfusion,
        "language": lmfusion.Language,
        "lmfusion": lmfusion.LMFusion,
    }
    for name, kind in kinds.items():
        config = quickstart.get_config(name)
        assert type(build_paradigm(config)) is kind
        usual = build_paradigm(quickstart.get_config("transfusion"))
        # The text model trains on the text of all documents, without task sampling.
        expected = (
            dataclasses.replace(usual, task_mixture=tasks.ALL_TARGETS)
            if name == "language"
            else usual
        )
        assert dataclasses.asdict(build_paradigm(config)) == dataclasses.asdict(expected)
    text, both = (quickstart.get_config(name) for name in paradigms.TEXT_PRETRAINING)
    assert (text.optimizer.freeze, both.optimizer.freeze) == (
        two_tower.IMAGE_PARAMS,
        two_tower.TEXT_PARAMS,
    )
    assert both.init_from.endswith(text.name)
    assert not text.init_from


def test_captions_have_the_times_of_other_tasks_unless_configured():
    config = quickstart.get_config()
    assert build_paradigm(config).text_time_sampler is None
    config.paradigm.text_time_sampler = ("information", 4.97, 1.22, 0.75, 1.5)
    config.paradigm.text_lead = 4.0
    built = build_paradigm(config)
    assert built.text_lead == 4.0
    assert built.time_sampler == time_samplers.PowerTimeSampler(1.5)
    assert built.text_time_sampler == time_samplers.InformationTimeSampler(4.97, 1.22, 0.75, 1.5)


def test_tasks_of_chameleon_are_those_of_the_configuration():
    for name in paradigms.USES_IMAGE_TOKENS:
        config = common.document_model_config("any")
        common.set_paradigm(config, name)
        config.paradigm.tasks.update(SHARES)
        config.paradigm.cond_drop_prob = 0.25
        paradigm = build_code_paradigm(config)
        assert isinstance(paradigm, chameleon.Chameleon)
        probs = tuple(SHARES.get(task, 0.0) for task in tasks.NAMES)
        assert paradigm.task_mixture == tasks.TaskMixture(probs, 0.25)
        assert paradigm.at_shared_time.task_mixture == tasks.ALL_TARGETS
        assert dict(paradigm.weights).keys() == set(chameleon.LOSS_TERMS)
        config.paradigm.tasks.joint = 0.9
        with pytest.raises(UserError, match=r"'joint': .*'text_to_image': .* add up to 1"):
            build_code_paradigm(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"paradigm.name": "large"},
            "paradigm.name='large': unknown value. Choose one of oneflow, mask_flow",
        ),
        ({"paradigm.name": "edit_flow"}, "data.text_slot_multiple=8: it does not fit"),
        ({"paradigm.name": "language"}, "data.text_slot_multiple=8: it does not fit"),
        ({"paradigm.name": "lmfusion"}, "data.text_slot_multiple=8: it does not fit"),
        ({"data.text_slot_multiple": 0}, "data.text_slot_multiple=0: it does not fit"),
        ({"data.text_slot_multiple": -1}, "data.text_slot_multiple=-1: it does not fit"),
        ({"paradigm.tasks.joint": 0.9}, "must be probabilities that add up to 1"),
        (
            {
                "paradigm.name": "edit_flow",
                "data.text_slot_multiple": 0,
                "paradigm.time_coupling.together": 0.9,
            },
            "paradigm.time_coupling={'interleaved': ",
        ),
        (
            {"paradigm.name": "mask_flow", "paradigm.text_lead": 8.0},
            "paradigm.text_lead=8.0: only in oneflow",
        ),
        (
            {"paradigm.objective": "guess"},
            "paradigm.objective='guess': unknown value. Choose one of cross_entropy",
        ),
        (
            {"paradigm.image_prediction": "noise"},
            "paradigm.image_prediction='noise': unknown value. Choose one of x1",
        ),
        (
            {"paradigm.time_sampler": ("sundial",)},
            "paradigm.time_sampler='sundial': unknown value. Choose one of power",
        ),
    ],
)
def test_unsupported_combinations_are_reported(change, message):
    config = common.document_model_config("any")
    with config.ignore_type():
        config.update_from_flattened_dict(change)
    with pytest.raises(UserError) as raised:
        build_paradigm(config)
    assert message in str(raised.value)
