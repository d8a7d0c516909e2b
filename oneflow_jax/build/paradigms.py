"""Functions that build the paradigms from a configuration; `BUILDERS` lists them by name."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from oneflow_jax.codecs.base import Codec
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.errors import UserError, check_one_of
from oneflow_jax.flows import predictions, tasks, time_couplings, time_samplers
from oneflow_jax.paradigms import (
    base,
    chameleon,
    edit_flow,
    flow_map,
    lmfusion,
    mask_flow,
    objectives,
    oneflow,
    transfusion,
)
from oneflow_jax.samplers import token_sampling

USES_IMAGE_TOKENS = ("chameleon", "dalle")
"""Paradigms that represent images as tokens of a VQ model."""

TEXT_PRETRAINING = ("language", "lmfusion")
"""The paradigm of a text model, and the paradigm that adds images to this text model."""

AUTOREGRESSIVE = ("transfusion", *TEXT_PRETRAINING, *USES_IMAGE_TOKENS)
"""Autoregressive paradigms; their sequences have tokens that start images, and END tokens."""

IMAGES_LAST = ("dalle",)
"""Paradigms that place all text of a document before its images."""

VARIABLE_LENGTH = ("edit_flow", *AUTOREGRESSIVE)
"""Paradigms that generate text of any length instead of filling a fixed number of slots."""


def paradigm(
    config: ml_collections.ConfigDict, vocab: vocabs.IdRanges, codec: Codec
) -> base.Paradigm:
    """Build the configured paradigm.

    Raises:
        UserError: a name is unknown, settings do not fit the paradigm, or probabilities do not add
            up to 1.
    """
    name = config.paradigm.name
    maker = choose("paradigm.name", name, BUILDERS)
    if config.paradigm.flow_map and name != "oneflow":
        raise UserError(
            f"paradigm.name={name!r}: only oneflow has a flow map. Set paradigm.flow_map=False."
        )
    if config.paradigm.text_lead != 1 and name != "oneflow":
        raise UserError(
            f"paradigm.text_lead={config.paradigm.text_lead}: only in oneflow may text be ahead of "
            f"images. Set it to 1 for {name}."
        )
    slots = config.data.text_slot_multiple
    if (name in VARIABLE_LENGTH) != (slots == 0) or slots < 0:
        raise UserError(
            f"data.text_slot_multiple={slots}: it does not fit paradigm.name={name!r}. Set it to 0 "
            f"(text of any length) for {', '.join(VARIABLE_LENGTH)}, and to 1 or more for all "
            "other paradigms."
        )
    if (name in USES_IMAGE_TOKENS) != (codec.num_codes > 0):
        raise UserError(
            f"codec.name={config.codec.name!r}: it does not fit paradigm.name={name!r}. Use 'vq' "
            f"with {', '.join(USES_IMAGE_TOKENS)}, and 'patches' or 'vae' with the other paradigms."
        )
    return maker(config, vocab, codec)


def list_tasks(config: ml_collections.ConfigDict, paradigm: base.Paradigm) -> tuple[str, ...]:
    """List the names of the training tasks of a paradigm; ("text",) for a language model."""
    if config.paradigm.name == "language":  # Its one task is `joint`, without the images.
        return ("text",)
    return paradigm.task_mixture.names


def choose(field: str, name: str, choices: Mapping[str, Any]) -> Any:  # noqa: ANN401 - of `choices`
    """Return `choices[name]`, or raise an error that lists the names.

    Args:
        field: key of the configuration that contains the name, for the message.
        name: name to look up.
        choices: values by name.

    Raises:
        UserError: the name is unknown.
    """
    check_one_of(field, name, choices)
    return choices[name]


def _oneflow(
    config: ml_collections.ConfigDict, vocab: vocabs.IdRanges, codec: Codec
) -> oneflow.OneFlow:
    makers: dict[str, Callable[[], objectives.TextObjective]] = {
        "cross_entropy": lambda: objectives.CrossEntropyObjective(vocab.padded_size()),
        "likelihood": lambda: objectives.LikelihoodObjective(vocab.padded_size()),
        "velocity": lambda: objectives.VelocityObjective(config.model.embed_width),
        "naive": lambda: objectives.NaiveObjective(config.model.embed_width),
    }
    name = config.paradigm.objective
    objective = choose("paradigm.objective", name, makers)()
    weights, make = loss_weights(config, "text", "image"), oneflow.OneFlow
    if config.paradigm.flow_map:
        _check_flow_map(config)
        make = flow_map.FlowMap
        weights += tuple(
            (term, w) for term, (_, w) in zip(flow_map.MAP_TERMS, weights, strict=True)
        )
    return make(
        objective=objective,
        weights=weights,
        text_time_sampler=_time_sampler(config, "text_time_sampler"),
        text_lead=config.paradigm.text_lead,
        **flow_kwargs(config, codec),
    )


def _check_flow_map(config: ml_collections.ConfigDict) -> None:
    """Check that the objective fits a flow map.

    Raises:
        UserError: it does not.
    """
    if config.paradigm.objective != "cross_entropy":
        raise UserError(
            f"paradigm.objective={config.paradigm.objective!r}: paradigm.flow_map averages token "
            "probabilities, which only the objective 'cross_entropy' predicts. Use it, or set "
            "paradigm.flow_map=False."
        )


def _mask_flow(
    config: ml_collections.ConfigDict, vocab: vocabs.IdRanges, codec: Codec
) -> mask_flow.MaskFlow:
    return mask_flow.MaskFlow(
        vocab_size=vocab.padded_size(),
        allowed_ranges=((vocabs.END, vocabs.END + 1), (vocab.text.start, vocab.text.stop)),
        max_mask_weight=config.paradigm.max_mask_weight,
        weights=loss_weights(config, "text", "image"),
        **flow_kwargs(config, codec),
    )


def _edit_flow(
    config: ml_collections.ConfigDict, vocab: vocabs.IdRanges, codec: Codec
) -> edit_flow.EditFlow:
    kwargs = flow_kwargs(config, codec)
    return edit_flow.EditFlow(
        token_space=_make_token_space(vocab, codec),
        time_coupling=time_couplings.TimeCoupling(
            _probabilities(config, "time_coupling", time_couplings.NAMES),
            kwargs.pop("time_sampler"),
        ),
        condition_on_text_time=config.paradigm.condition_on_text_time,
        weights=loss_weights(config, *edit_flow.LOSS_TERMS),
        **kwargs,
    )


def _transfusion(
    flow_class: type[transfusion.Transfusion],
    config: ml_collections.ConfigDict,
    vocab: vocabs.IdRanges,
    codec: Codec,
) -> transfusion.Transfusion:
    return flow_class(
        token_space=_make_token_space(vocab, codec),
        weights=loss_weights(config, "text", "image"),
        **flow_kwargs(config, codec),
    )


def _language(
    config: ml_collections.ConfigDict, vocab: vocabs.IdRanges, codec: Codec
) -> lmfusion.Language:
    flow = _transfusion(lmfusion.Language, config, vocab, codec)
    return dataclasses.replace(flow, task_mixture=tasks.ALL_TARGETS)


def _chameleon(
    config: ml_collections.ConfigDict, vocab: vocabs.IdRanges, codec: Codec
) -> chameleon.Chameleon:
    return chameleon.Chameleon(
        token_space=_make_token_space(vocab, codec),
        code_id_range=(vocab.codes.start, vocab.codes.stop),
        task_mixture=_task_mixture(config),
        weights=loss_weights(config, *chameleon.LOSS_TERMS),
    )


def _make_token_space(vocab: vocabs.IdRanges, codec: Codec) -> token_sampling.TokenSpace:
    return token_sampling.TokenSpace(
        vocab_size=vocab.padded_size(),
        text_id_range=(vocab.text.start, vocab.text.stop),
        image_token_id=vocabs.IMAGE,
        end_token_id=vocabs.END,
        grid=codec.grid,
    )


def loss_weights(config: ml_collections.ConfigDict, *terms: str) -> tuple[tuple[str, float], ...]:
    """Return (term, weight) pairs; the weight of a term is `paradigm.<term>_weight`."""
    return tuple((term, config.paradigm[f"{term}_weight"]) for term in terms)


def _probabilities(
    config: ml_collections.ConfigDict, section: str, names: Sequence[str]
) -> tuple[float, ...]:
    """Read the probabilities `paradigm.<section>.<name>`, and check that they add up to 1."""
    probs = tuple(config.paradigm[section][name] for name in names)
    if min(probs) < 0 or not math.isclose(sum(probs), 1.0, abs_tol=1e-6):
        raise UserError(
            f"paradigm.{section}={dict(zip(names, probs, strict=True))}: the values must be "
            "probabilities that add up to 1."
        )
    return probs


def _task_mixture(config: ml_collections.ConfigDict) -> tasks.TaskMixture:
    return tasks.TaskMixture(
        _probabilities(config, "tasks", tasks.NAMES), config.paradigm.cond_drop_prob
    )


def flow_kwargs(config: ml_collections.ConfigDict, codec: Codec) -> dict[str, Any]:
    """Return the constructor arguments that all paradigms with a flow of images share."""
    section = config.paradigm
    prediction_types: dict[str, Callable[[], predictions.PredictionType]] = {
        "x1": lambda: predictions.X1Prediction(section.min_one_minus_t),
        "velocity": predictions.VelocityPrediction,
    }
    return {
        "image_prediction": choose(
            "paradigm.image_prediction", section.image_prediction, prediction_types
        )(),
        "channels": codec.channels,
        "task_mixture": _task_mixture(config),
        "time_sampler": _time_sampler(config, "time_sampler"),
    }


def _time_sampler(config: ml_collections.ConfigDict, key: str) -> time_samplers.TimeSampler | None:
    if not config.paradigm[key]:
        return None
    name, *numbers = config.paradigm[key]
    return choose(f"paradigm.{key}", name, time_samplers.TIME_SAMPLERS)(*numbers)


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
"""Builder of each paradigm, by name.

Add your own paradigm here to train it like the others: docs/add_a_paradigm.md.
"""
