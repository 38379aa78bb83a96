"""What columns of Arrow hold, whichever of its types a program chose for them.

pandas 3 writes texts as `large_string`, polars as `string_view`, and both write categories as
dictionaries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import types

if TYPE_CHECKING:
    from collections.abc import Callable


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column holds texts, or nothing but nulls."""
    return _holds(kind, types.is_string, types.is_large_string, types.is_string_view)


def is_bytes(kind: pa.DataType) -> bool:
    """Return whether a column holds bytes, or nothing but nulls."""
    return _holds(
        kind,
        types.is_binary,
        types.is_large_binary,
        types.is_binary_view,
        types.is_fixed_size_binary,
    )


def is_whole_numbers(kind: pa.DataType) -> bool:
    """Return whether a column holds lists of whole numbers, or nothing but nulls."""
    kind = _plain(kind)
    if types.is_null(kind):
        return True
    are_lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    if not any(is_list(kind) for is_list in (*are_lists, types.is_list_view)):
        return types.is_large_list_view(kind) and types.is_integer(kind.value_type)
    return types.is_integer(kind.value_type)


def fits(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Return whether a column holds what `wanted`, a type of our own schemas, stands for."""
    if types.is_string(wanted):
        return is_text(kind)
    if types.is_binary(wanted):
        return is_bytes(kind)
    if types.is_list(wanted):
        return is_whole_numbers(kind)
    return kind.equals(wanted)


def _holds(kind: pa.DataType, *checks: Callable[[pa.DataType], bool]) -> bool:
    kind = _plain(kind)
    return types.is_null(kind) or any(check(kind) for check in checks)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values, without the wrappings of dictionaries and extensions."""
    while isinstance(kind, pa.BaseExtensionType) or types.is_dictionary(kind):
        is_extension = isinstance(kind, pa.BaseExtensionType)
        kind = kind.storage_type if is_extension else kind.value_type
    return kind
