"""Sampling options as keyword arguments that have the names of the keys of `config.sampling`."""

from collections.abc import Mapping
from typing import Any, TypedDict

import ml_collections
import numpy as np

from oneflow_jax.build import values
from oneflow_jax.errors import UserError
from oneflow_jax.runtime.renamed_keys import RENAMED
from oneflow_jax.samplers import ode


class SamplingOptions(TypedDict, total=False):
    """Options of one sampling call; the run's configuration has the defaults.

    The options are keys of `config.sampling`, see configs/common.py.

    Attributes:
        steps: number of solver steps. A solver with several stages uses several forward passes per
            step.
        solver: an ODE solver ("euler", "heun", "midpoint", "tsit5" or "dopri5"), or "renoise"
            (docs/oneflow.md). Paradigms with discrete text support only "euler".
        time_grid: spacing of the steps: "uniform", "cosine", "sine", "quadratic", "cubic" or
            "learned". The first call with "learned" derives the spacing from losses on training
            documents.
        image_guidance_scale: scale of classifier-free guidance of images by text. 1 disables
            guidance; any other value adds one forward pass to each step.
        text_guidance_scale: scale of classifier-free guidance of text by images.
        confidence_threshold: probability above which oneflow no longer changes a token, for
            "renoise" and "consistency"; 1 means that every token can change until the last step.
            An option `solver` that cannot keep tokens changes the default to 1.
        temperature, top_p, top_k: parameters of token sampling, for paradigms that sample tokens.
        unmask_order: order in which mask_flow unmasks tokens, "random" or "confidence".
        remask_prob: probability that mask_flow masks an unmasked token again in one step.
        seed: RNG seed of the call, 0 to 2**31 - 1.
    """

    steps: int
    solver: str
    time_grid: str
    image_guidance_scale: float
    text_guidance_scale: float
    confidence_threshold: float
    temperature: float
    top_p: float
    top_k: int
    unmask_order: str
    remask_prob: float
    seed: int


def override_config(
    config: ml_collections.ConfigDict, overrides: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """Return a copy of the configuration with some values replaced.

    Args:
        config: configuration to copy.
        overrides: new values by full key, such as "sampling.steps".

    Raises:
        UserError: the overrides are not a mapping, a key does not exist, or a value has the wrong
            type.
    """
    if not isinstance(overrides, Mapping):
        raise UserError(
            f"config={overrides!r}: not a dictionary. Give values by key, as in "
            "{'sampling.steps': 8}."
        )
    copy = config.copy_and_resolve_references().lock()
    for name, value in overrides.items():
        # The checks below are needed because ml_collections accepts None for every type, and a
        # bool for a number.
        plain = _to_plain(value)
        try:
            before = _get_value(copy, str(name))
            if isinstance(before, ml_collections.ConfigDict):
                key = next(iter(value if isinstance(value, Mapping) and value else before))
                raise TypeError(f"a section. Give one of its keys: {{'{name}.{key}': ...}}.")
            values.validate_key(name, plain)
            if plain is None or isinstance(plain, bool) != isinstance(before, bool):
                raise TypeError(f"must be of type {type(before).__name__}, like {before!r}.")
            copy.update_from_flattened_dict({name: plain})
        except (KeyError, AttributeError) as error:
            hint = f"It is now called {RENAMED[name]}. " if name in RENAMED else ""
            raise UserError(
                f"{name}={value!r}: unknown key. {hint}configs/common.py lists all keys."
            ) from error
        except (TypeError, ValueError) as error:
            raise UserError(f"{name}={value!r}: {error}") from error
    return copy


def apply_options(
    config: ml_collections.ConfigDict, options: SamplingOptions, start: float | None = None
) -> ml_collections.ConfigDict:
    """Return the configuration with the options of one call.

    Args:
        config: configuration of the run.
        options: options of the call.
        start: value of `sampling.edit_start`; None leaves it unchanged.

    Raises:
        UserError: an option does not exist, or its value has the wrong type.
    """
    unknown = options.keys() - SamplingOptions.__annotations__.keys()
    if unknown:
        keys = {name: f"sampling.{name}" for name in sorted(unknown)}
        raise UserError(
            f"Unknown option{'s' * (len(keys) > 1)}: {', '.join(keys)}. "
            + "".join(
                f"{name} is now called {RENAMED[key].removeprefix('sampling.')}. "
                for name, key in keys.items()
                if key in RENAMED
            )
            + f"The options are {', '.join(SamplingOptions.__annotations__)}."
        )
    chosen = dict(options) | ({} if start is None else {"edit_start": start})
    if options.get("solver", ode.RENOISE) not in ode.RENOISING_SOLVERS:
        chosen.setdefault("confidence_threshold", 1.0)
    return override_config(config, {f"sampling.{name}": value for name, value in chosen.items()})


def _to_plain(value: object) -> object:
    """Convert NumPy numbers to Python numbers, also within tuples and lists."""
    if isinstance(value, np.generic):
        return value.item()
    return type(value)(map(_to_plain, value)) if type(value) in (tuple, list) else value


def _get_value(config: ml_collections.ConfigDict, name: str) -> Any:  # noqa: ANN401 - any type
    *sections, key = name.split(".")
    for section in sections:
        config = config[section]
        if not isinstance(config, ml_collections.ConfigDict):
            raise KeyError(name)
    return config[key]
