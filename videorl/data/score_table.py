"""Scores of videos in one Parquet file, written so that a kill loses nothing that was added.

    scores.parquet            one row per video: video, prompt, total, dimensions, raw, error
    scores.parquet.parts/     rows added since, until they are merged

Models and videos are known by content, not by path: a table holds no scores of a model that its
folder no longer has, and a video that has changed is scored again. The last column, `content`, is
the SHA-256 of the video that was scored.

Columns may come back as other types of Arrow, from pandas or polars: they are read all the same.
Every part is written whole and renamed into place. Merging rewrites the file and then removes the
parts; after a kill between the two, rows that are in both are taken once.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from videorl.config import RewardConfig
from videorl.data.clips import Clip, ClipSource, Key
from videorl.data.score_rows import (
    FIRST,
    LAST,
    TEXTS,
    content_of,
    keys_of,
    row_of,
    rows_at,
    schema_of,
)
from videorl.errors import ConfigError
from videorl.files import locked
from videorl.files.inputs import Input, changes, from_json, inputs_now, moved, to_json
from videorl.files.pins import pin_settings
from videorl.rewards.content import reward_inputs
from videorl.rewards.hub_places import reward_settings
from videorl.rewards.scoring import Result

_MODELS, _INPUTS = b"videorl.rewards", b"videorl.inputs"
"""Keys of the schema's metadata under which the models are noted, and what they are loaded from."""
_MAX_PARTS = 256
_SHOWN = 3
"""Changed videos that the log names."""

logger = logging.getLogger(__name__)


class ScoreTable:
    """The scores of a set of reward models; made by `open_scores`."""

    def __init__(self, path: Path, rewards: Sequence[RewardConfig]) -> None:
        self._path = path
        self._parts = path.with_name(f"{path.name}.parts")
        self._rewards = copy.deepcopy(rewards)  # with hub ids as they were asked for
        asked = pin_settings(reward_settings(rewards), self._noted_inputs())
        self._inputs = {
            key: replace(found, place=asked.get(key, found.place))
            for key, found in inputs_now(reward_inputs(rewards)).items()
        }
        self._metadata = {
            _MODELS: _description(self._rewards).encode(),
            _INPUTS: json.dumps(to_json(self._inputs)).encode(),
        }
        self._stale: set[tuple[Key, str | None]] = set()
        """Clips with contents that they no longer have."""
        self._contents: dict[Key, str] = {}
        """What is known to have been scored where a row does not say it."""
        table = self._read()
        self.scored: set[Key] = {
            key
            for key, error in zip(keys_of(table), table["error"].to_pylist(), strict=True)
            if error is None
        }
        """Keys of the clips that have a score; those with an error may be tried again."""

    def forget_changed(self, source: ClipSource) -> None:
        """Forget the scores of clips whose video is another one now, and say so.

        Rows of versions that noted no content are taken to be of the present one. A video that is
        not here keeps its score.
        """
        table = self._read()
        scores = table.filter(table["error"].is_null())
        known: dict[Key, set[str | None]] = {}
        for key, content in zip(keys_of(scores), scores["content"].to_pylist(), strict=True):
            known.setdefault(key, set()).add(content)
        changed: list[str] = []
        for clip in source.read(self.scored.intersection(source.keys)):
            if (now := content_of(clip)) is None:
                continue
            self._contents[clip.key] = now
            self._stale |= {(clip.key, then) for then in known[clip.key] - {now, None}}
            if not known[clip.key] & {now, None}:
                changed.append(clip.id)
                self.scored.remove(clip.key)
        if changed:
            more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
            logger.warning(
                "scored again, since these videos have changed: %s%s",
                ", ".join(changed[:_SHOWN]),
                more,
            )

    def add(self, clips: Sequence[Clip], results: Mapping[str, Sequence[Result]]) -> None:
        """Write one part.

        Args:
            clips: The clips that were scored.
            results: `RewardConfig.key` -> one result per clip, in order.
        """
        rows = [
            row_of(clip, {key: results[key][n] for key in results}, self._rewards)
            for n, clip in enumerate(clips)
        ]
        names = dict.fromkeys(name for row in rows for name in row if name not in LAST)
        schema = schema_of([*names, *LAST]).with_metadata(self._metadata)
        self._contents |= {clip.key: row["content"] for clip, row in zip(clips, rows, strict=True)}
        self._parts.mkdir(exist_ok=True)
        number = 1 + max((int(part.stem) for part in self._written()), default=-1)
        _write(pa.Table.from_pylist(rows, schema), self._parts / f"{number:06d}.parquet")
        self.scored |= {(row["video"], row["prompt"]) for row in rows if row["error"] is None}
        if len(self._written()) >= _MAX_PARTS:
            self.merge()

    def refuse(self, reasons: Mapping[Key, str]) -> None:
        """Note clips that cannot be scored, by key, and why."""
        if clips := [Clip(*key, "") for key in reasons]:
            results = {reward.key: list(reasons.values()) for reward in self._rewards[:1]}
            self.add(clips, results)

    def merge(self, order: Sequence[Key] = ()) -> pa.Table:
        """Merge the parts into the file, one row per clip, and return the table.

        Args:
            order: Keys in the wanted order of rows; rows that are not named come last, and errors
                of videos that have another prompt there are left out.
        """
        table = self._current()
        # A score wins over an error: parts that a kill left here may be older than the file.
        errors = table["error"].to_pylist()
        tries = sorted(enumerate(keys_of(table)), key=lambda numbered: errors[numbered[0]] is None)
        latest = {key: row for row, key in tries}
        places = {key: place for place, key in enumerate(order)}
        named = {video for video, _ in order}
        latest = {
            key: row
            for key, row in latest.items()
            if key in places or key[0] not in named or errors[row] is None
        }
        keys = sorted(latest, key=lambda key: (places.get(key, len(places)), latest[key]))
        table = rows_at(table, [latest[key] for key in keys])
        if table["content"].null_count == len(table):
            table = table.drop_columns(["content"])
        _write(table, self._path)
        shutil.rmtree(self._parts, ignore_errors=True)
        return table

    def _current(self) -> pa.Table:
        """Return the rows whose clips are what they were, each with its content if it is known."""
        table = self._read()
        rows = zip(keys_of(table), table["content"].to_pylist(), strict=True)
        contents = [(key, content) for key, content in rows]
        kept = [number for number, row in enumerate(contents) if row not in self._stale]
        filled = [contents[row][1] or self._contents.get(contents[row][0]) for row in kept]
        place = table.column_names.index("content")
        return rows_at(table, kept).set_column(place, "content", pa.array(filled, pa.string()))

    def _written(self) -> list[Path]:
        return sorted(self._parts.glob("[0-9]*.parquet"))

    def _read(self) -> pa.Table:
        tables = [self._checked(file) for file in self._files()]
        empty = pa.table({name: pa.array([], pa.string()) for name in TEXTS})
        tables = tables or [empty.add_column(2, "total", [pa.array([], pa.float64())])]
        table = pa.concat_tables(tables, promote_options="default")
        if "content" not in table.column_names:  # an older file, or one of videos that are gone
            table = table.append_column("content", pa.nulls(len(table), pa.string()))
        between = [name for name in table.column_names if name not in (*FIRST, *LAST)]
        return table.select([*FIRST, *between, *LAST]).replace_schema_metadata(self._metadata)

    def _noted_inputs(self) -> dict[str, Input]:
        """Return what the scores so far are from; what cannot be read says so elsewhere."""
        for file in self._files():
            with suppress(pa.ArrowException, OSError, ValueError, KeyError, TypeError):
                noted = (pq.read_schema(file).metadata or {}).get(_INPUTS, b"{}")
                return from_json(json.loads(noted))
        return {}

    def _files(self) -> list[Path]:
        return [*([self._path] if self._path.exists() else []), *self._written()]

    def _checked(self, file: Path) -> pa.Table:
        try:
            with pq.ParquetFile(file) as opened:
                table = opened.read()
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{file} is not a Parquet file that can be read ({error}); give another --out"
            ) from error
        metadata = table.schema.metadata or {}
        noted = metadata.get(_MODELS, b"something else").decode()
        then = from_json(json.loads(metadata.get(_INPUTS, b"{}")))
        if noted != _description(self._rewards, moved(self._inputs, then), then):
            raise ConfigError(
                f"{file} holds scores of {noted}, but those of "
                f"{self._metadata[_MODELS].decode()} were asked for; give another --out"
            )
        if changed := changes(then, self._inputs):
            raise ConfigError(
                f"{file} holds scores of what the models were: {'; '.join(changed.values())}. "
                "Put back what was there, or give another --out; to score everything again, "
                f"remove {self._path} and {self._parts}"
            )
        try:
            return table.cast(schema_of(table.column_names)).replace_schema_metadata(metadata)
        except (pa.ArrowException, KeyError) as error:
            raise ConfigError(
                f"{file} holds no scores any more ({error}); give another --out"
            ) from error


@contextmanager
def open_scores(path: Path, rewards: Sequence[RewardConfig]) -> Iterator[ScoreTable]:
    """Open the scores in `path`, new or begun, and lock them against other processes.

    Hub ids in `rewards` get their commit, in place: that which the scores there are from, if any.

    Raises:
        RunFolderError: Another process is writing them.
        ConfigError: `path` holds something else, or scores of other models or settings.
        CheckpointError: The hub does not know an id or its revision, refuses it, or does not
            answer.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock"), f"another process is writing {path}"):
        yield ScoreTable(path, rewards)


def _description(
    rewards: Sequence[RewardConfig],
    moved: Collection[str] = (),
    then: Mapping[str, Input] | None = None,
) -> str:
    """Return the settings that scores depend on, as JSON.

    Args:
        rewards: The models.
        moved: Settings that name another place than `then`, with the same content.
        then: Where that was; the description has the places of these.
    """
    fields = ("label", "name", "path", "weight", "dimension_weights", "options")
    facts: list[dict[str, Any]] = [
        {name: value for name in fields if (value := getattr(reward, name))} for reward in rewards
    ]
    for key in moved:
        _, number, *where = key.split(".", 3)
        found = facts[int(number)]
        if where[0] == "options":
            if where[1] in (options := found.get("options", {})):  # not a default that it has
                found["options"] = {**options, where[1]: (then or {})[key].place}
        else:
            found["path"] = (then or {})[key].place
    return json.dumps(facts, sort_keys=True, default=str)


def _write(table: pa.Table, path: Path) -> None:
    """Write the file whole or not at all, and to disk, as a power cut may empty a renamed file."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
