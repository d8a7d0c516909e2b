"""The paradigm that a configuration names, and what does not go together."""

import pytest

from configs import common, digits, quickstart
from oneflow_jax import registry
from oneflow_jax.errors import UserError
from oneflow_jax.paradigms import edit_flow, mask_flow, oneflow
from tests import tiny


def made(config):
    return registry.paradigm(config, tiny.vocabulary(), tiny.CODEC)


@pytest.mark.parametrize("config", [digits.get_config, quickstart.get_config])
def test_each_by_its_name(config):
    assert isinstance(made(config("mask_flow")), mask_flow.MaskFlow)
    assert isinstance(made(config("edit_flow")), edit_flow.EditFlow)
    assert isinstance(made(config()), oneflow.OneFlow)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"paradigm.name": "large"}, "paradigm.name='large' is none of oneflow, mask_flow"),
        ({"paradigm.name": "edit_flow"}, "data.text_slots=8 does not go with"),
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
    config = common.base("any")
    with config.ignore_type():
        config.update_from_flattened_dict(change)
    with pytest.raises(UserError) as raised:
        made(config)
    assert told in str(raised.value)
