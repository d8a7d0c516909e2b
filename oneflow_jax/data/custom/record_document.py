"""Conversion of a record of any format to a document."""

from collections.abc import Sequence
from typing import Any

from oneflow_jax.data.custom import image_value, record
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.reader import RawDocument


def make_document(
    location: str,
    data: Any,  # noqa: ANN401 - any JSON value
    locate: image_value.Locate,
    columns: Sequence[str] = (),
    *,
    is_row: bool = False,
) -> RawDocument:
    """Convert a record to a document.

    If the record has neither text nor an image, the returned document has the error "unknown
    layout".

    Args:
        location: where the record comes from, for messages.
        data: the record.
        locate: function that returns the image at a path.
        columns: fields to use, in reading order. With (), fields are chosen by name.
        is_row: whether the record is a row of a table with typed columns.
    """
    try:
        parsed = record.parse(data, columns, is_row=is_row)
    except (AttributeError, TypeError, KeyError, ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        return RawDocument(location, error=DataError("unknown layout", reason))
    parts = tuple(
        value
        if kind == "text" or isinstance(value, DataError)
        else image_value.to_raw_image(value, locate)
        for kind, value in parsed.parts
    )
    return RawDocument(location, parts, None, parsed.used, parsed.unused, parsed.notes)
