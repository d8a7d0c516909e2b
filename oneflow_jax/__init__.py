"""Text and images generated at the same time, by one flow from corrupted to clean documents.

    import oneflow_jax as of

    model = of.load("runs/quickstart")
    (document,) = model.generate("a picture of a tiger: <image>")

What is named here is imported when it is first asked for: processes that only read data import
this package too, and must not start an accelerator.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oneflow_jax.api.document import DOCUMENT, IMAGE, TEXT, Document, Revision, text
    from oneflow_jax.api.model import Model, load
    from oneflow_jax.api.options import Options
    from oneflow_jax.api.slides import Slides
    from oneflow_jax.api.state import State
    from oneflow_jax.data.document import Gap
    from oneflow_jax.errors import UserError
    from oneflow_jax.shipped import SHIPPED

__version__ = "0.1.0"

__all__ = [
    "DOCUMENT",
    "IMAGE",
    "SHIPPED",
    "TEXT",
    "Document",
    "Gap",
    "Model",
    "Options",
    "Revision",
    "Slides",
    "State",
    "UserError",
    "load",
    "text",
]

_HOMES = {
    "oneflow_jax.api.document": ("DOCUMENT", "IMAGE", "TEXT", "Document", "Revision", "text"),
    "oneflow_jax.api.model": ("Model", "load"),
    "oneflow_jax.api.options": ("Options",),
    "oneflow_jax.api.slides": ("Slides",),
    "oneflow_jax.api.state": ("State",),
    "oneflow_jax.data.document": ("Gap",),
    "oneflow_jax.errors": ("UserError",),
    "oneflow_jax.shipped": ("SHIPPED",),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever is asked for
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
