"""Reader of the values of a language model's `config.json`, whose messages name file and key."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from oneflow_jax.errors import UserError

ROPE_NUMBERS = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}
"""Supported types of rotary embeddings, with the keys of their numbers."""


@dataclasses.dataclass(frozen=True)
class ConfigReader:
    """Values of a `config.json`, or of a section of it.

    All methods but `get` raise UserError if a value is missing, has the wrong type, or is not
    supported.

    Attributes:
        values: the values by key.
        label: path of the file, and name of the section, for messages.
    """

    values: Mapping[str, Any]
    label: str

    def get(self, key: str, default: object) -> Any:  # noqa: ANN401 - any JSON value
        """Return a value; null stands for a missing key."""
        value = self.values.get(key)
        return default if value is None else value

    def architecture(self, supported: Collection[str]) -> str:
        """Return the only architecture, one of `supported`."""
        names = self.get("architectures", [])
        if not isinstance(names, list) or len(names) != 1 or names[0] not in supported:
            raise UserError(
                f"{self.label}: architectures={names!r}: not supported. Use a model of one of "
                f"{', '.join(supported)}."
            )
        return names[0]

    def check_values(self, supported: Mapping[str, Any]) -> None:
        """Check that each key has its only supported value, which a missing key has, too."""
        for key, only in supported.items():
            value = self.get(key, only)
            if value != only:
                raise UserError(
                    f"{self.label}: {key}={value!r}: not supported. Use a model with {only!r}."
                )

    def section(self, key: str) -> "ConfigReader":
        """Return a section, which is empty if it is missing."""
        found = self.get(key, {})
        if not isinstance(found, dict):
            raise UserError(f"{self.label}: {key}={found!r}: not an object. Correct the file.")
        return ConfigReader(found, f"{self.label}: {key}")

    def rope(self, default_theta: float = 10_000.0) -> tuple[float, tuple[str | float, ...]]:
        """Return theta and the scaling of the rotary embeddings.

        They are in the section `rope_parameters` of transformers 5, or beside and in the section
        `rope_scaling` of earlier versions.
        """
        is_new = self.get("rope_parameters", None) is not None
        inner = self.section("rope_parameters" if is_new else "rope_scaling")
        kind = inner.get("rope_type", inner.get("type", "default"))
        if kind not in ROPE_NUMBERS:
            raise UserError(
                f"{inner.label}.rope_type={kind!r}: not supported. Use a model with one of "
                f"{', '.join(ROPE_NUMBERS)}."
            )
        rotated = inner.get("partial_rotary_factor", 1.0)
        if rotated != 1.0:
            raise UserError(
                f"{inner.label}.partial_rotary_factor={rotated!r}: not supported. Use a model that "
                "rotates whole heads."
            )
        theta = inner.number("rope_theta", self.number("rope_theta", default_theta))
        numbers = tuple(inner.number(key) for key in ROPE_NUMBERS[kind])
        return theta, (kind, *numbers) if numbers else ()

    def strings(self, key: str, default: list[str]) -> list[str]:
        """Return a list of strings."""
        value = self.get(key, default)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UserError(
                f"{self.label}: {key}={value!r}: not a list of names. Correct the file."
            )
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """Return an integer above 0."""
        value = self.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(
                f"{self.label}: {key}={value!r}: not an integer above 0. Download the file again."
            )
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number above 0."""
        value = self.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise UserError(
                f"{self.label}: {key}={value!r}: not a number above 0. Download the file again."
            )
        return float(value)

    def token(self, key: str, default: int | None) -> int:
        """Return a token id; if the file has a list, the first one."""
        value = self.get(key, default)
        value = value[0] if isinstance(value, list) and value else value
        if not isinstance(value, int) or not 0 <= value < self.integer("vocab_size"):
            raise UserError(
                f"{self.label}: {key}={value!r}: not a token id. Download the file again."
            )
        return value

    def soft_cap(self, key: str, default: float | None) -> float:
        """Return the limit of a soft cap; 0 if it is null, `default` if the key is missing."""
        return 0.0 if self.values.get(key, default) is None else self.number(key, default)

    def switch(self, key: str, *, default: bool) -> bool:
        """Return a boolean."""
        return bool(self.get(key, default))
