"""The pictures of stored pairs: of every file, known by content, and no reason to crash."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from videorl.data.pair_content import table_content
from videorl.data.preferences import images_of


def tables(folder: Path) -> Path:
    """Write a file without pictures, and then one with a picture."""
    pq.write_table(pa.table({"prompt": ["a", "b"]}), folder / "a.parquet")
    pq.write_table(pa.table({"prompt": ["c"], "image": ["cat.png"]}), folder / "b.parquet")
    (folder / "cat.png").write_bytes(b"a cat")
    return folder


def test_files_with_and_without_pictures_stand_beside_each_other(tmp_path: Path) -> None:
    assert images_of(tables(tmp_path)) == ["", "", str(tmp_path / "cat.png")]


def test_another_picture_is_another_content(tmp_path: Path) -> None:
    before = table_content(tables(tmp_path), fresh=True)
    (tmp_path / "cat.png").write_bytes(b"a dog")
    after = table_content(tmp_path, fresh=True)
    assert before is not None and after is not None
    assert before.digest != after.digest


def test_a_damaged_table_is_left_to_who_reads_it(tmp_path: Path) -> None:
    (tables(tmp_path) / "b.parquet").write_bytes(b"torn")
    assert table_content(tmp_path, fresh=True) is not None
