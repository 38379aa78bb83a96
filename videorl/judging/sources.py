"""Which pairs a study asks about: candidates of a run, or videos of several folders."""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from videorl.data.archive import read_table, video_path
from videorl.errors import ArchiveError, ConfigError, DatasetError, VideoError
from videorl.judging.folders import PLAYABLE, matches
from videorl.judging.study import Side, StudyPair
from videorl.seeds import derive_seed
from videorl.videos.opening import open_frames

logger = logging.getLogger(__name__)

KINDS = ("chosen", "random", "held_out")
_SHOWN = 5
"""So many pairs that are left out are logged one by one."""


@dataclass(frozen=True)
class Wanted:
    """Which pairs, of those that there are."""

    num_pairs: int
    """At most; drawn by the seed."""
    seed: int
    pairs: str = "chosen"
    """Of a run: a kind of `KINDS`."""
    from_step: int = 0
    to_step: int | None = None
    """The last step; None = the newest. Both are ignored where nothing has a step."""


@dataclass(frozen=True)
class _Found:
    prompt: str
    first: Side
    second: Side


def pairs_of(places: Sequence[Path], wanted: Wanted) -> tuple[StudyPair, ...]:
    """Return pairs of one run, or of all combinations of several folders, in a random order.

    - `chosen`: what a run learned from. `random`: two candidates of a prompt, the one with the
      higher total against the one with the lower. `held_out`: the held-out prompts before and
      after training.
    - Folders: see `videorl.judging.folders`.

    Videos that are missing or damaged, or that browsers do not play, cost their pairs; those, and
    whatever else has no pair, are logged and counted.

    Raises:
        ConfigError: A place is no folder, or there is only one and it is no run.
        ArchiveError: The run's archive cannot be read.
        DatasetError: No pair is left.
    """
    if wanted.pairs not in KINDS:
        raise ConfigError(f"--pairs must be one of {', '.join(KINDS)}, got {wanted.pairs!r}")
    for place in places:
        if not place.is_dir():
            raise ConfigError(f"there is no folder {place}; name a run, or folders of videos")
    places = [place.absolute() for place in places]
    if not (found := _find(places, wanted)):
        raise DatasetError(_nothing(places, wanted))
    rng = np.random.default_rng(derive_seed(wanted.seed, "study"))
    drawn = _playable([found[place] for place in rng.permutation(len(found))], wanted.num_pairs)
    pairs: list[StudyPair] = []
    for number, pair in enumerate(drawn):
        # The sides are shuffled here too, so that A is no hint in the label tables.
        a, b = (pair.first, pair.second) if rng.random() < 0.5 else (pair.second, pair.first)
        pairs.append(StudyPair(f"p{number:05d}", pair.prompt, a, b))
    return tuple(pairs)


def _find(places: Sequence[Path], wanted: Wanted) -> list[_Found]:
    """Return all pairs that there are, in an order that depends on nothing but the files."""
    if len(places) > 1:
        return [
            _Found(
                match.prompt, Side(match.first, match.names[0]), Side(match.second, match.names[1])
            )
            for match in matches(places)
        ]
    if not (archive := _archive(places[0])):
        raise ConfigError(
            f"{places[0]} holds neither a run nor a study; name a run folder, or two or more "
            "folders of videos that are to be compared"
        )
    if wanted.pairs == "held_out":
        return list(_held_out(archive.parent / "evaluation"))
    return list((_chosen if wanted.pairs == "chosen" else _random)(archive, wanted))


def _archive(place: Path) -> Path | None:
    for path in (place / "archive", place):
        if (path / "candidates").is_dir():
            return path
    return None


def _nothing(places: Sequence[Path], wanted: Wanted) -> str:
    if len(places) > 1:
        return (
            f"{' and '.join(map(str, places))} have nothing in common: pairs need files of the "
            "same name, or of the same prompt (prompts.csv, or clip.txt beside clip.mp4)"
        )
    if wanted.pairs == "held_out":
        return f"{places[0]} has no held-out videos before and after; they come at a run's end"
    last = "the newest" if wanted.to_step is None else wanted.to_step
    return (
        f"{places[0]} has no pair of {wanted.pairs} candidates with videos from step "
        f"{wanted.from_step} to {last}; widen the steps, try --pairs random, or see whether "
        "archive.videos of the run was none"
    )


def _candidates(archive: Path, wanted: Wanted) -> dict[str, dict[str, Any]]:
    columns = ["candidate_id", "step", "prompt_index", "prompt", "total", "video"]
    rows = [
        row
        for row in read_table(archive, "candidates", columns).to_pylist()
        if _is_within(row["step"], wanted)
    ]
    kept = {row["candidate_id"]: row for row in rows if row["video"] is not None}
    _tell(len(rows) - len(kept), "candidates without a video (archive.videos)")
    return kept


def _tell(num_left_out: int, why: str) -> None:
    if num_left_out:
        logger.warning("left out: %d %s", num_left_out, why)


def _is_within(step: int, wanted: Wanted) -> bool:
    return wanted.from_step <= step and (wanted.to_step is None or step <= wanted.to_step)


def _chosen(archive: Path, wanted: Wanted) -> Iterator[_Found]:
    known = _candidates(archive, wanted)
    num_left_out = 0
    for row in read_table(archive, "pairs").to_pylist():
        chosen, rejected = known.get(row["chosen_id"]), known.get(row["rejected_id"])
        if chosen and rejected:
            yield _pair(archive, chosen, rejected, ("chosen", "rejected"))
        else:
            num_left_out += _is_within(row["step"], wanted)
    _tell(num_left_out, "pairs that the run learned from, without both videos")


def _random(archive: Path, wanted: Wanted) -> Iterator[_Found]:
    """One pair of each prompt, drawn by the seed, so that no prompt counts for more than others."""
    groups: defaultdict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for row in _candidates(archive, wanted).values():
        groups[row["step"], row["prompt_index"]].append(row)
    _tell(sum(len(rows) < 2 for rows in groups.values()), "prompts with a single video")
    for (step, prompt), rows in sorted(groups.items()):
        if len(rows) < 2:
            continue
        rng = np.random.default_rng(derive_seed(wanted.seed, "random", step, prompt))
        first, second = (rows[place] for place in rng.choice(len(rows), 2, replace=False))
        low, high = sorted((first, second), key=lambda row: row["total"])
        is_tie = low["total"] == high["total"]
        yield _pair(archive, high, low, ("equal", "equal") if is_tie else ("higher", "lower"))


def _pair(
    archive: Path, first: dict[str, Any], second: dict[str, Any], groups: tuple[str, str]
) -> _Found:
    sides = [
        Side(str(video_path(archive, row["video"])), group)
        for row, group in zip((first, second), groups, strict=True)
    ]
    return _Found(first["prompt"], *sides)


def _held_out(evaluation: Path) -> Iterator[_Found]:
    path = evaluation / "videos.json"
    if not path.is_file():
        return
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        num_left_out = sum(not (row["before"] and row["after"]) for row in rows)
        _tell(num_left_out, "held-out prompts without a video before or after")
        for row in rows:
            if row["before"] and row["after"]:
                after, before = (
                    Side(str(video_path(evaluation, row[name])), name)
                    for name in ("after", "before")
                )
                yield _Found(row["prompt"], after, before)
    except (ValueError, KeyError, TypeError) as error:
        raise ArchiveError(f"{path} is damaged: {error!r:.100}") from error


def _playable(found: Sequence[_Found], count: int) -> list[_Found]:
    """Return the first pairs whose videos can be shown, up to a number of them."""
    kept: list[_Found] = []
    reasons: Counter[str] = Counter()
    for pair in found:
        if len(kept) == count:
            break
        problems = (problem_of_video(Path(side.video)) for side in (pair.first, pair.second))
        problem = next(filter(None, problems), "")
        if not problem:
            kept.append(pair)
            continue
        reasons[problem] += 1
        if len(reasons) <= _SHOWN:
            logger.warning("a pair is left out: %s", problem)
    if not kept:
        raise DatasetError(
            f"none of {sum(reasons.values())} pairs can be shown: {next(iter(reasons))}"
        )
    if reasons:
        logger.warning("%d pairs are left out, %d are kept", sum(reasons.values()), len(kept))
    _warn_of_kinds(kept)
    return kept


def _warn_of_kinds(pairs: Sequence[_Found]) -> None:
    """Say so where the kind of a file, which a browser can show, tells whose video it is."""
    kinds: defaultdict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        for side in (pair.first, pair.second):
            kinds[side.group].add(Path(side.video).suffix.lower())
    if len(set(map(frozenset, kinds.values()))) > 1:
        said = "; ".join(f"{group}: {' '.join(sorted(kinds[group]))}" for group in sorted(kinds))
        logger.warning("kinds of files tell the groups apart (%s): convert all to one kind", said)


def problem_of_video(video: Path) -> str:
    """Return why a file cannot be shown in a browser; empty if it can."""
    if video.is_dir():
        return f"{video}: browsers play no folders of pictures; convert it, e.g. to mp4"
    if video.suffix.lower() not in PLAYABLE:
        return f"{video}: browsers play {', '.join(sorted(PLAYABLE))}; convert it, e.g. to mp4"
    try:
        open_frames(video).read([0])
    except VideoError as error:
        return str(error)
    return ""
