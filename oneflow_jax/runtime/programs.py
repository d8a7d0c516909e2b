"""Compiled programs in memory: a bounded number, of which the least recently used is dropped."""

import collections
import logging
import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import jax

Program = TypeVar("Program")
"""A group of jitted functions, such as `SamplerPrograms`."""


class ProgramCache(Generic[Program]):
    """Jitted functions by key, each for one set of shapes.

    Functions of its own for each program let the cache drop a single program: JAX frees a program
    when its function is freed.

    Attributes:
        max_programs: maximum number of programs that stay in memory.
    """

    def __init__(self, max_programs: int) -> None:
        """Create an empty cache."""
        self.max_programs = max_programs
        self._programs: collections.OrderedDict[Hashable, Program] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._programs)

    def get(self, key: Hashable, make: Callable[[], Program]) -> tuple[Program, bool]:
        """Return the program of a key, and whether it is new.

        Args:
            key: everything that the program depends on.
            make: function that returns the program if the cache does not have it.
        """
        with self._lock:
            is_new = key not in self._programs
            if is_new:
                self._programs[key] = make()
                self._drop_oldest()
            self._programs.move_to_end(key)
            return self._programs[key], is_new

    def clear(self) -> None:
        """Drop all programs."""
        with self._lock:
            self._programs.clear()

    def _drop_oldest(self) -> None:
        while len(self._programs) > self.max_programs:
            self._programs.popitem(last=False)
            logging.info(
                "Dropped the least recently used of %d compiled sampling programs. It is compiled "
                "again, or loaded from the compilation cache, when it is needed.",
                self.max_programs + 1,
            )


class SamplerPrograms:
    """The compiled programs of one sampler: `start`, `advance`, `frame` and `finish`.

    Attributes:
        used: names of the programs that were called, which are compiled.
    """

    def __init__(self, make: Callable[..., Any]) -> None:
        """Create the programs, which are compiled when they are called first.

        Args:
            make: function from the inputs of a batch to its `samplers.steps.Sampler`.
        """
        self.start = jax.jit(lambda inputs: make(*inputs).start())
        # `advance` reuses the memory of the state that it replaces, such as a KV cache.
        self.advance = jax.jit(
            lambda inputs, progress, stop: make(*inputs).advance(progress, stop), donate_argnums=1
        )
        self.frame = jax.jit(lambda inputs, progress: make(*inputs).frame(progress))
        self.finish = jax.jit(lambda inputs, progress: make(*inputs).finish(progress))
        self.used: set[str] = set()
