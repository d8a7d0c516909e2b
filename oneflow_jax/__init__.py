"""Text and images generated at the same time, by one flow from noise to data.

    import oneflow_jax as of

    model = of.load("runs/quickstart")
    (document,) = model.generate("a picture of a tiger: <image>")

Each public name is imported when it is first used: data loader workers import this package too, and
must not initialize an accelerator.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oneflow_jax.api.document import DOCUMENT, IMAGE, TEXT, Document, EditResult, image, text
    from oneflow_jax.api.info import ModelInfo
    from oneflow_jax.api.model import Model, load
    from oneflow_jax.api.options import SamplingOptions
    from oneflow_jax.api.slides import TrajectoryViewer
    from oneflow_jax.api.state import SamplingStep
    from oneflow_jax.data.document import Gap
    from oneflow_jax.errors import UserError
    from oneflow_jax.shipped import PRETRAINED

__version__ = "0.1.0"

__all__ = [
    "DOCUMENT",
    "IMAGE",
    "PRETRAINED",
    "TEXT",
    "Document",
    "EditResult",
    "Gap",
    "Model",
    "ModelInfo",
    "SamplingOptions",
    "SamplingStep",
    "TrajectoryViewer",
    "UserError",
    "image",
    "load",
    "text",
]

_LAZY_EXPORTS = {
    "oneflow_jax.api.document": (
        "DOCUMENT",
        "IMAGE",
        "TEXT",
        "Document",
        "EditResult",
        "image",
        "text",
    ),
    "oneflow_jax.api.info": ("ModelInfo",),
    "oneflow_jax.api.model": ("Model", "load"),
    "oneflow_jax.api.options": ("SamplingOptions",),
    "oneflow_jax.api.slides": ("TrajectoryViewer",),
    "oneflow_jax.api.state": ("SamplingStep",),
    "oneflow_jax.data.document": ("Gap",),
    "oneflow_jax.errors": ("UserError",),
    "oneflow_jax.shipped": ("PRETRAINED",),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    for home, names in _LAZY_EXPORTS.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
