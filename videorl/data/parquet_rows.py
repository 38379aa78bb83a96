"""Parquet files as tables, with columns of any type of Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videorl.data.table_rows import BadRow, Columns, Row, Rows, unreadable
from videorl.errors import TableError

if TYPE_CHECKING:
    import pyarrow as pa


def parquet_schema(path: Path) -> pa.Schema:
    """Return the names and types of a Parquet file's columns.

    Raises:
        TableError: It is no Parquet file, or cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise unreadable(path, error) from error


def _damaged(path: Path, error: Exception) -> TableError:
    return TableError(f"{path} is not a readable Parquet file: {error}")


def parquet_rows(path: Path, columns: Columns) -> Rows:
    """Yield the rows of a Parquet file; only the columns that are asked for are read.

    Raises:
        TableError: It is no Parquet file, is damaged, or lacks a column.
        OSError: It cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        # Not `read_table`: other columns may hold whole videos.
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if problem := columns.problem(names):
                raise TableError(f"{path} {problem}")
            there = [name for name in columns.names if name in names]
            for batch in file.iter_batches(columns=there):
                values = [values_of(batch.column(name)) for name in there]
                for row in zip(*values, strict=True):
                    number += 1
                    yield f"row {number}", _parquet_row(there, row)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error


@dataclass(frozen=True)
class Unreadable:
    """A value that is damaged, or that Python has no type for."""

    reason: str


def values_of(column: Any) -> list[Any]:
    """Return the values of an Arrow array, of any type; strings that are not UTF-8 are marked."""
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return Unreadable(f"is not UTF-8 (byte {error.start + 1}: {error.reason})")
    except (ValueError, OverflowError) as error:
        return Unreadable(f"cannot be read ({error})")


def _parquet_row(names: Sequence[str], values: Sequence[Any]) -> Row | BadRow:
    row = dict(zip(names, values, strict=True))
    bad = {name: value for name, value in row.items() if isinstance(value, Unreadable)}
    if not bad:
        return row
    reasons = [f"{name} {value.reason}" for name, value in bad.items()]
    return BadRow("; ".join(reasons), {name: row[name] for name in row.keys() - bad.keys()})
