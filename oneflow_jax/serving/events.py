"""Events of a request, in the order in which its listener gets them."""

import dataclasses
from collections.abc import Callable, Sequence

from oneflow_jax.api.document import Document
from oneflow_jax.api.state import SamplingStep


@dataclasses.dataclass(frozen=True)
class Queued:
    """The request waits, and `position` requests are before it."""

    position: int


@dataclasses.dataclass(frozen=True)
class Compiling:
    """The worker compiles a program for the request, or loads it from the compilation cache."""


@dataclasses.dataclass(frozen=True)
class State:
    """The documents of the request before step `step` of `steps`; the first step is 0."""

    step: int
    steps: int
    documents: Sequence[SamplingStep]


@dataclasses.dataclass(frozen=True)
class Done:
    """The finished documents.

    Attributes:
        documents: one document per sample, or one `EditResult`.
        nfe: number of forward passes of the batch in which the documents were generated.
        seconds: seconds of the computation, with compilation and without the time in the queue.
    """

    documents: Sequence[Document]
    nfe: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Failed:
    """The request failed.

    Attributes:
        message: what went wrong.
        is_bug: whether the failure is an error of the server, and not of the request.
    """

    message: str
    is_bug: bool


Event = Queued | Compiling | State | Done | Failed

Listener = Callable[[Event], None]
"""Function that the service calls with each event of a request, from its own threads."""
