"""Stored preference pairs: two layouts, and everything that cannot be learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.unit.data.test_archive import group, write
from videorl.data.archive import Archive
from videorl.data.archive_tables import pack_latents
from videorl.data.preferences import PREFERENCES, read_preferences
from videorl.errors import ArchiveError


def row(number: int, **changed: Any) -> dict[str, Any]:
    """Return a pair whose chosen latents are `number` everywhere, the rejected ones 0."""
    latents = {
        "chosen": torch.full((2, 3, 2, 2), float(number)),
        "rejected": torch.zeros(2, 3, 2, 2),
    }
    columns = {
        f"{role}_{name}": value
        for role, tensor in latents.items()
        for name, value in pack_latents(tensor).items()
    }
    return {"prompt": f"prompt {number}", **columns, **changed}


LOOSE = pa.schema([field.with_nullable(True) for field in PREFERENCES])


def save(path: Path, *rows: dict[str, Any], schema: pa.Schema = PREFERENCES) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path)
    return path


def test_files_that_others_made(tmp_path: Path) -> None:
    save(tmp_path / "a.parquet", row(1), row(2))
    save(tmp_path / "b.parquet", row(3))
    found = read_preferences(tmp_path)
    assert (list(found.prompts), found.shape) == (
        ["prompt 1", "prompt 2", "prompt 3"],
        (2, 3, 2, 2),
    )
    for index in range(3):
        chosen, rejected = found.latents(index)
        assert torch.equal(chosen, torch.full((2, 3, 2, 2), index + 1.0))
        assert torch.equal(rejected, torch.zeros(2, 3, 2, 2))
    assert len(read_preferences(tmp_path / "b.parquet")) == 1
    (tmp_path / "README.md").write_text("Who made this.")
    assert len(read_preferences(tmp_path)) == 3


def test_the_archive_of_a_run(tmp_path: Path) -> None:
    for step in (0, 1):
        write(tmp_path, step)
    found = read_preferences(tmp_path)
    assert list(found.prompts) == [group(step).prompt.text for step in (0, 1)]
    for step in (0, 1):
        candidates = group(step).candidates
        chosen, rejected = found.latents(step)
        assert torch.equal(chosen, candidates[2].candidate.latents)
        assert torch.equal(rejected, candidates[0].candidate.latents)


def test_an_archive_without_latents(tmp_path: Path) -> None:
    write(tmp_path, 0)
    Archive(tmp_path, "none", keep_latents=False).truncate(0)
    with pytest.raises(ArchiveError, match="holds no preference pair"):
        read_preferences(tmp_path)
    write(tmp_path, 0)
    table = pq.read_table(tmp_path / "candidates/step-000000.parquet")
    place = table.schema.get_field_index("latents_shape")
    empty = pa.nulls(table.num_rows, table.schema.field(place).type)
    table = table.set_column(place, table.schema.field(place), empty)
    pq.write_table(table, tmp_path / "candidates/step-000000.parquet")
    with pytest.raises(ArchiveError, match=r"archive\.latents=true"):
        read_preferences(tmp_path)


def test_what_cannot_be_learned_from(tmp_path: Path) -> None:
    def refused(said: str, *rows: dict[str, Any], schema: pa.Schema = PREFERENCES) -> None:
        with pytest.raises(ArchiveError, match=said):
            read_preferences(save(tmp_path / "x.parquet", *rows, schema=schema))

    with pytest.raises(ArchiveError, match="there is no preference archive"):
        read_preferences(tmp_path / "none")
    (tmp_path / "text.parquet").write_text("not Parquet")
    with pytest.raises(ArchiveError, match="is not a readable Parquet file"):
        read_preferences(tmp_path / "text.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArchiveError, match=r"there is no file \*\.parquet in"):
        read_preferences(tmp_path / "empty")
    (tmp_path / "run/archive/pairs").mkdir(parents=True)
    with pytest.raises(ArchiveError, match=r"is the folder of a run: give .*run/archive"):
        read_preferences(tmp_path / "run")
    refused("can be used: pair 0 has no prompt", row(1, prompt=None), schema=LOOSE)
    refused("holds no preference pair")
    refused("the videos of pair 1 have different shapes", row(1), row(2, chosen_latents_shape=[24]))
    other = {"chosen_latents_shape": [4, 3, 2, 1], "rejected_latents_shape": [4, 3, 2, 1]}
    refused(r"pair 1 has latents of shape \[4, 3, 2, 1\], but pair 0", row(1), row(2, **other))
    fewer = PREFERENCES.remove(PREFERENCES.get_field_index("rejected_latents"))
    refused("has no column 'rejected_latents'; needed are prompt, chosen", row(1), schema=fewer)
    place = PREFERENCES.get_field_index("prompt")
    binary = PREFERENCES.set(place, pa.field("prompt", pa.binary()))
    refused("column 'prompt' must be string, got binary", row(1, prompt=b"x"), schema=binary)


def test_a_pair_that_cannot_be_used_costs_itself_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nothing = {f"chosen_latents{name}": None for name in ("", "_shape", "_dtype")}
    rows = row(1, prompt=None), row(2), row(3, **nothing), row(4)
    table = pa.Table.from_pylist(list(rows), LOOSE)
    broken = pa.array([None, b"two", b"three", b"caf\xe9"]).view(pa.string())
    pq.write_table(table.set_column(0, "prompt", broken), tmp_path / "x.parquet")
    found = read_preferences(tmp_path / "x.parquet")
    assert list(found.prompts) == ["two"]
    assert torch.equal(found.latents(0)[0], torch.full((2, 3, 2, 2), 2.0))
    assert "pair 0 left out: has no prompt" in caplog.text
    assert "pair 2 left out: has a video without latents" in caplog.text
    assert "pair 3 left out: has a prompt that is not UTF-8" in caplog.text
    assert "3 of 4 pairs are left out" in caplog.text


@pytest.mark.parametrize("kind", ["large", "view", "dictionary"])
def test_columns_may_be_other_types_of_arrow(kind: str, tmp_path: Path) -> None:
    types = {
        "large": (pa.large_string(), pa.large_binary(), pa.large_list(pa.int32())),
        "view": (pa.string_view(), pa.binary_view(), pa.list_view(pa.int64())),
        "dictionary": (
            pa.dictionary(pa.int32(), pa.large_string()),
            pa.large_binary(),
            pa.list_(pa.uint64(), 4),
        ),
    }
    text, binary, numbers = types[kind]
    table = pa.Table.from_pylist([row(1), row(2)], LOOSE)
    for place, field in enumerate(table.schema):
        wanted = {"string": text, "binary": binary}.get(str(field.type), numbers)
        column = pa.array(table[field.name].to_pylist(), wanted)
        table = table.set_column(place, field.name, column)
    pq.write_table(table, tmp_path / "a.parquet")
    save(tmp_path / "b.parquet", row(3))
    found = read_preferences(tmp_path)
    assert list(found.prompts) == ["prompt 1", "prompt 2", "prompt 3"]
    for index in range(3):
        assert torch.equal(found.latents(index)[0], torch.full((2, 3, 2, 2), index + 1.0))


@pytest.mark.parametrize(
    "damage",
    [
        {"chosen_latents": b"12"},
        {"chosen_latents_dtype": "float0"},
        {"chosen_latents_dtype": "load"},
        {"rejected_latents_dtype": None},
        {"rejected_latents": None},
        {"rejected_latents": pack_latents(torch.full((2, 3, 2, 2), torch.nan))["latents"]},
    ],
)
def test_damaged_latents(damage: dict[str, Any], tmp_path: Path) -> None:
    found = read_preferences(save(tmp_path / "x.parquet", row(1, **damage), schema=LOOSE))
    with pytest.raises(ArchiveError, match=r"the latents of pair 0 are (damaged|missing or not)"):
        found.latents(0)
