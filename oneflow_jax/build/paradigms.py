"""The paradigms by name, each made from its part of the configuration."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from oneflow_jax.codecs.base import Codec
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.errors import UserError
from oneflow_jax.flows import predictions, tasks, time_couplings, time_samplers
from oneflow_jax.paradigms import (
    base,
    chameleon,
    edit_flow,
    lmfusion,
    mask_flow,
    objectives,
    oneflow,
    transfusion,
)
from oneflow_jax.samplers import ar_state, edit

USES_IMAGE_TOKENS = ("chameleon", "dalle")
"""Paradigms whose pictures are codes."""

TWO_TOWER = ("language", "lmfusion")
"""Paradigms with weights of their own for words and for pictures."""

TEXT_PRETRAINING = ("language", "lmfusion")
"""The paradigm of a text model, and the one that begins from it and adds pictures."""

AUTOREGRESSIVE = ("transfusion", *TWO_TOWER, *USES_IMAGE_TOKENS)
"""Paradigms that must be told in so many tokens where pictures begin and documents end."""

TEXT_FIRST = ("dalle",)
"""Paradigms whose words all stand before their pictures."""

VARIABLE_LENGTH = ("edit_flow", *AUTOREGRESSIVE)
"""Paradigms whose text has no slots laid out for it."""


def paradigm(
    config: ml_collections.ConfigDict, vocab: vocabs.IdRanges, codec: Codec
) -> base.Paradigm:
    """The configured paradigm.

    Raises:
        UserError: a name that is none of those there are, or shares that do not add up.
    """
    name = config.paradigm.name
    maker = choose("paradigm.name", name, BUILDERS)
    slots = config.data.text_slots
    if (name in VARIABLE_LENGTH) != (slots == 0) or slots < 0:
        raise UserError(
            f"data.text_slots={slots} does not go with paradigm.name={name!r}: 0, for text of any "
            f"length, is for {', '.join(VARIABLE_LENGTH)}; the others need runs of 1 slot or more."
        )
    if (name in USES_IMAGE_TOKENS) != (codec.codes > 0):
        raise UserError(
            f"codec.name={config.codec.name!r} does not go with paradigm.name={name!r}: 'codes' is "
            f"for {', '.join(USES_IMAGE_TOKENS)}; the others need 'patches' or 'learned'."
        )
    return maker(config, vocab, codec)


def choose(field: str, name: str, choices: Mapping[str, Any]) -> Any:  # noqa: ANN401 - of `choices`
    """The choice of that name.

    Raises:
        UserError: there is none; the message names the field and the choices.
    """
    if name not in choices:
        raise UserError(f"{field}={name!r} is none of {', '.join(choices)}.")
    return choices[name]


def _oneflow(
    config: ml_collections.ConfigDict, vocab: vocabs.IdRanges, codec: Codec
) -> oneflow.OneFlow:
    makers: dict[str, Callable[[], objectives.TextObjective]] = {
        "endpoint": lambda: objectives.CrossEntropyObjective(vocab.padded_size()),
        "velocity": lambda: objectives.VelocityObjective(config.model.embed_width),
        "literal": lambda: objectives.NaiveObjective(config.model.embed_width),
    }
    name = config.paradigm.objective
    objective = choose("paradigm.objective", name, makers)()
    return oneflow.OneFlow(
        objective=objective,
        weights=loss_weights(config, "text", "image"),
        **flow_kwargs(config, codec),
    )


def _mask_flow(
    config: ml_collections.ConfigDict, vocab: vocabs.IdRanges, codec: Codec
) -> mask_flow.MaskFlow:
    return mask_flow.MaskFlow(
        vocab=vocab.padded_size(),
        legal=((vocabs.END, vocabs.END + 1), (vocab.text.start, vocab.text.stop)),
        cap=config.paradigm.cap,
        weights=loss_weights(config, "text", "image"),
        **flow_kwargs(config, codec),
    )


def _edit_flow(
    config: ml_collections.ConfigDict, vocab: vocabs.IdRanges, codec: Codec
) -> edit_flow.EditFlow:
    given = flow_kwargs(config, codec)
    return edit_flow.EditFlow(
        alphabet=edit.TokenSpace(
            vocab=vocab.padded_size(),
            words=(vocab.text.start, vocab.text.stop),
            image_token=vocabs.IMAGE,
            grid=codec.grid,
        ),
        schedules=time_couplings.TimeCoupling(
            _probabilities(config, time_couplings.NAMES), given.pop("clock")
        ),
        text_clock=config.paradigm.text_clock,
        weights=loss_weights(config, *edit_flow.LOSS_TERMS),
        **given,
    )


def _transfusion(
    flow_class: type[transfusion.Transfusion],
    config: ml_collections.ConfigDict,
    vocab: vocabs.IdRanges,
    codec: Codec,
) -> transfusion.Transfusion:
    return flow_class(
        alphabet=_token_space(vocab, codec),
        weights=loss_weights(config, "text", "image"),
        **flow_kwargs(config, codec),
    )


def _language(
    config: ml_collections.ConfigDict, vocab: vocabs.IdRanges, codec: Codec
) -> lmfusion.Language:
    flow = _transfusion(lmfusion.Language, config, vocab, codec)
    return dataclasses.replace(flow, mix=tasks.ALL_TARGETS)


def _chameleon(
    config: ml_collections.ConfigDict, vocab: vocabs.IdRanges, codec: Codec
) -> chameleon.Chameleon:
    return chameleon.Chameleon(
        alphabet=_token_space(vocab, codec),
        codes=(vocab.codes.start, vocab.codes.stop),
        mix=_task_mixture(config),
        weights=loss_weights(config, *chameleon.LOSS_TERMS),
    )


def _token_space(vocab: vocabs.IdRanges, codec: Codec) -> ar_state.TokenSpace:
    return ar_state.TokenSpace(
        vocab=vocab.padded_size(),
        words=(vocab.text.start, vocab.text.stop),
        image_token=vocabs.IMAGE,
        end=vocabs.END,
        grid=codec.grid,
    )


def loss_weights(config: ml_collections.ConfigDict, *terms: str) -> tuple[tuple[str, float], ...]:
    """The weight of each loss term, by name."""
    return tuple((term, config.paradigm[f"{term}_weight"]) for term in terms)


def _probabilities(config: ml_collections.ConfigDict, names: Sequence[str]) -> tuple[float, ...]:
    shares = tuple(config.paradigm[name] for name in names)
    if min(shares) < 0 or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
        raise UserError(
            f"paradigm: the shares of {', '.join(names)} are {shares}; they must add up to 1."
        )
    return shares


def _task_mixture(config: ml_collections.ConfigDict) -> tasks.TaskMixture:
    return tasks.TaskMixture(_probabilities(config, tasks.NAMES), config.paradigm.drop)


def flow_kwargs(config: ml_collections.ConfigDict, codec: Codec) -> dict[str, Any]:
    """What all paradigms that flow pictures have in common."""
    given = config.paradigm
    images: dict[str, Callable[[], predictions.PredictionType]] = {
        "clean": lambda: predictions.X1Prediction(given.floor),
        "velocity": predictions.VelocityPrediction,
    }
    return {
        "image": choose("paradigm.image", given.image, images)(),
        "channels": codec.channels,
        "mix": _task_mixture(config),
        "clock": choose("paradigm.clock", given.clock[0], time_samplers.TIME_SAMPLERS)(
            *given.clock[1:]
        ),
    }


Builder = Callable[[ml_collections.ConfigDict, vocabs.IdRanges, Codec], base.Paradigm]

BUILDERS: dict[str, Builder] = {
    "oneflow": _oneflow,
    "mask_flow": _mask_flow,
    "edit_flow": _edit_flow,
    "transfusion": functools.partial(_transfusion, transfusion.Transfusion),
    "language": _language,
    "lmfusion": functools.partial(_transfusion, lmfusion.LMFusion),
    "chameleon": _chameleon,
    "dalle": _chameleon,
}
"""By the name of each paradigm what makes it of a configuration, a vocabulary and a codec.

One of yours is named here to be trained like the others: docs/add_a_paradigm.md.
"""
