"""Description of a model for the page: what it knows, its prompts and its default settings."""

from typing import Any

from oneflow_jax.api.model import Model
from oneflow_jax.data import image_shapes, sources
from oneflow_jax.data import prompt as prompts

MAX_WORDS = 400
"""Maximum number of words of the tokenizer that the page lists for a model without names."""

DEFAULT_PROMPTS = ("<text> <image>",)
"""Prompts to start from if the configuration of the run has none."""


def describe(name: str, model: Model) -> dict[str, Any]:
    """Describe a model that the page calls `name`, as JSON for viewer/demo/prompt_form.js."""
    info, config = model.info(), model.config
    data_sets = [config.source.name]
    if "finetune" in config:
        start = config.finetune["start_source"]
        data_sets.append(start.name)
    return {
        "name": name,
        "can_edit": info.can_edit,
        "any_parts": info.chooses_parts,
        "shapes": [ratio for ratio in info.aspect_ratios if ratio != image_shapes.SQUARE],
        "names": info.names,
        "words": () if info.names else info.words[:MAX_WORDS],
        "prompts": list_prompts(config.sampling.prompts) or DEFAULT_PROMPTS,
        "steps": config.sampling.steps,
        "guidance": config.sampling.image_guidance_scale,
        "edit_start": config.sampling.edit_start,
        "summary": f"{info.paradigm}, {info.parameters:,} parameters, images of {info.pixels} x "
        f"{info.pixels} pixels",
        "credits": [credit for name in data_sets for credit in sources.list_attribution(name)],
    }


def list_prompts(given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the prompts of a run that name no image file, which the page does not have."""
    return tuple(
        prompt
        for prompt in given
        if not any(isinstance(part, prompts.ImageTag) for part in prompts.split(prompt))
    )
