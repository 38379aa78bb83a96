"""Tables of an archive read by DuckDB, where a damaged file costs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import duckdb

from videorl.data.archive_tables import SCHEMAS

TYPES = {"int64": "BIGINT", "double": "DOUBLE", "string": "VARCHAR", "list<": "VARCHAR[]"}
"""Arrow's names of the types that our tables have -> DuckDB's."""


THREADS = 2
"""The run works beside us: DuckDB would take every core for the length of a query."""
_PATTERN = re.compile(r"[*?[]")


def connect() -> duckdb.DuckDBPyConnection:
    """Return a database in memory that leaves the machine to the run, and the network alone."""
    settings = {"threads": THREADS, "autoinstall_known_extensions": False}
    return duckdb.connect(config=settings)  # pyright: ignore[reportArgumentType]


def literal(path: str) -> str:
    """Return a path for DuckDB, which takes every path for a pattern: `lr[0.1]` too."""
    return _PATTERN.sub(r"[\g<0>]", path)


def load(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    columns: Sequence[str],
    files: Sequence[Path],
    steps: Collection[int],
) -> dict[str, str]:
    """Make a temporary table `staged_NAME` with columns of an archive's table; return what is lost.

    Columns that a file lacks, as it is of an older version, are null where the schema allows that;
    columns that are unknown are left alone.

    Args:
        connection: Gets the table; one of that name is replaced.
        name: A key of `archive_tables.SCHEMAS`.
        columns: Some of its columns.
        files: Those that are not there count as empty.
        steps: Rows of others, which the files may have too, are left out.

    Returns:
        File -> why it cannot be read. Its rows are missing, those of all others are not.
    """
    schema = SCHEMAS[name]
    made = ", ".join(
        f"{column} {_type(name, column)}{'' if schema.field(column).nullable else ' NOT NULL'}"
        for column in columns
    )
    connection.execute(f"CREATE OR REPLACE TEMP TABLE staged_{name} ({made})")
    present = [str(file) for file in files if file.exists()]
    if not present or not steps:
        return {}
    try:
        _insert(connection, name, columns, present, steps)
        return {}
    except duckdb.Error as error:
        if len(present) == 1:
            return {present[0]: str(error).splitlines()[0]}
    lost: dict[str, str] = {}
    for file in present:
        try:
            _insert(connection, name, columns, [file], steps)
        except duckdb.Error as error:
            lost[file] = str(error).splitlines()[0]
    return lost


def _insert(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    columns: Sequence[str],
    files: Sequence[str],
    steps: Collection[int],
) -> None:
    """Add rows of files; all or none.

    Raises:
        duckdb.Error: A file is damaged, or lacks a column that every version has.
    """
    listed = ", ".join(columns)
    # The second part of the union is empty: it adds the columns that no file has, as nulls.
    connection.execute(
        f"INSERT INTO staged_{name} BY NAME SELECT {listed} FROM ("
        "SELECT * FROM read_parquet(?, union_by_name = true, hive_partitioning = false) "
        f"UNION ALL BY NAME (SELECT * FROM staged_{name} LIMIT 0)) "
        # By the bounds, row groups of a partition are left out unread.
        "WHERE step BETWEEN ? AND ? AND list_contains(?, step)",
        [[literal(file) for file in files], min(steps), max(steps), list(steps)],
    )


def _type(name: str, column: str) -> str:
    arrow = str(SCHEMAS[name].field(column).type)
    return next(made for start, made in TYPES.items() if arrow.startswith(start))
