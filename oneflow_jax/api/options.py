"""How to sample, as keywords: each is the value of the same name in the configuration."""

from collections.abc import Mapping
from typing import Any, TypedDict

import ml_collections
import numpy as np

from oneflow_jax.errors import UserError

NUM_SEEDS = 2**31


class SamplingOptions(TypedDict, total=False):
    """What may be said of a call; what is not said is as the run's configuration has it.

    The keys of `config.sampling`, which configs/common.py explains.

    Attributes:
        steps: of the solver. A solver of several stages asks the network several times a step.
        solver: "euler", "heun", "midpoint", "tsit5" or "dopri5" of the ODE, or "renoise" in its
            place (docs/oneflow.md); where words jump, "euler".
        grid: where the steps lie: "uniform", "cosine", "sine" or "learned", which is measured on
            documents of training at the first call.
        guidance: of pictures by words; 1 is none, and else each step asks once more.
        text_guidance: of words by pictures.
        temperature, top_p, top_k: how words are drawn, where they are.
        order, remask: in which order mask_flow reads words, and how often it hides them again.
        seed: of all randomness, 0 to 2**31 - 1.
    """

    steps: int
    solver: str
    grid: str
    guidance: float
    text_guidance: float
    temperature: float
    top_p: float
    top_k: int
    order: str
    remask: float
    seed: int


def override_config(
    config: ml_collections.ConfigDict, overrides: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """A copy of the configuration with other values, given under their full names.

    Raises:
        UserError: there is no such key, or a value is of another type.
    """
    copy = config.copy_and_resolve_references().lock()
    for name, value in overrides.items():
        # ml_collections would take None for anything, and a truth for a number.
        plain = value.item() if isinstance(value, np.generic) else value
        try:
            before = _get_value(copy, name)
            if plain is None or isinstance(plain, bool) != isinstance(before, bool):
                raise TypeError(f"it must be a {type(before).__name__}, as {before!r} is")
            copy.update_from_flattened_dict({name: plain})
        except (KeyError, AttributeError) as error:
            raise UserError(
                f"There is no {name!r} in the configuration: configs/common.py has all keys."
            ) from error
        except (TypeError, ValueError) as error:
            raise UserError(f"{name}={value!r}: {error}") from error
    return copy


def apply_options(
    config: ml_collections.ConfigDict, options: SamplingOptions, start: float | None = None
) -> ml_collections.ConfigDict:
    """The configuration with what is said of one call.

    Raises:
        UserError: there is no such option, or its value is of another type.
    """
    unknown = options.keys() - SamplingOptions.__annotations__.keys()
    if unknown:
        raise UserError(
            f"There is no option {', '.join(sorted(unknown))}: there are "
            f"{', '.join(SamplingOptions.__annotations__)}."
        )
    values = dict(options) | ({} if start is None else {"start": start})
    new = override_config(config, {f"sampling.{name}": value for name, value in values.items()})
    if not 0 <= new.sampling.seed < NUM_SEEDS:
        raise UserError(f"sampling.seed={new.sampling.seed} must be from 0 to {NUM_SEEDS - 1}.")
    return new


def _get_value(config: ml_collections.ConfigDict, name: str) -> Any:  # noqa: ANN401 - of any key
    *sections, key = name.split(".")
    for section in sections:
        config = config[section]
        if not isinstance(config, ml_collections.ConfigDict):
            raise KeyError(name)
    return config[key]
