"""Held-out samples and their scores, kept as they come: an interrupted evaluation goes on."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from videorl.config import Recipe
from videorl.data.prompts import evaluation_prompts
from videorl.errors import WorkLostError
from videorl.evaluation.record import group_from_json, group_to_json
from videorl.files.content import digest_of, file_digest
from videorl.run.inputs import settings_of_samples
from videorl.run.node_facts import versions_here
from videorl.types import Condition, Media, Prompt, SampleRequest, ScoredGroup, WeightVersion

logger = logging.getLogger(__name__)

_MAKERS = ("diffusers", "transformers", "peft")
"""Libraries whose version may change samples or scores, beside PyTorch and our own."""

Save = Callable[[Mapping[Path, Media]], None]
"""Writes videos, or what their handles stand for, as mp4 files by path."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """Whose videos a report shows: the first of each of some prompts."""

    folder: Path
    """Of the mp4 files."""
    prompts: Collection[int]
    """Indices of the prompts."""
    save: Save

    def path(self, prompt: Prompt) -> Path | None:
        """Return the file of a prompt's video; None if it is not shown."""
        is_shown = prompt.index in self.prompts
        return self.folder / video_name(prompt) if is_shown else None


class KeptGroups:
    """Scored groups of one set of weights, in a file that is only appended to.

    A group is a line, written when its video is saved. A line that a kill has torn is ignored.

    Args:
        path: The file; see `path_of`. None = keep nothing.
        shown: Whose videos are saved; None = nobody's.
        shared: A second file, of several runs, that is read and appended to as well, with a folder
            of videos beside it; see `path_of_base`. None = there is none.
    """

    def __init__(
        self, path: Path | None, shown: Shown | None = None, shared: Path | None = None
    ) -> None:
        self._path = path
        self._shown = shown
        self._shared = shared
        files = [file for file in (shared, path) if file is not None and file.exists()]
        self._found = {key: group for file in files for key, group in _read(file).items()}

    def find(self, request: SampleRequest) -> ScoredGroup | None:
        """Return the group that was made for this prompt and these seeds, without media.

        One with more seeds gives its first candidates. None also if its video should have been
        saved, but is not there.
        """
        video = self._shown.path(request.prompt) if self._shown else None
        if video is not None and not video.exists() and not self._copied(request, video):
            return None
        group = self._found.get(_key(request)) or self._first_of_larger(request)
        return group and _of(request, group)

    def _copied(self, request: SampleRequest, video: Path) -> bool:
        """Take a video from the shared folder; return whether it was there."""
        if self._shared is None:
            return False
        if (source := _shared_video(self._shared, request)).exists():
            _copy(source, video)
        return source.exists()

    def _first_of_larger(self, request: SampleRequest) -> ScoredGroup | None:
        """Return the first candidates of a group with more seeds that lost none."""
        condition, wanted = _key(request)
        for (known, seeds), group in self._found.items():
            is_whole = len(group.candidates) == len(seeds)
            if known == condition and seeds[: len(wanted)] == wanted and is_whole:
                return dataclasses.replace(group, candidates=group.candidates[: len(wanted)])
        return None

    def add(self, request: SampleRequest, group: ScoredGroup) -> Path | None:
        """Keep a group whose video can still be fetched; return its first video if that is shown.

        Raises:
            OSError: It cannot be written.
        """
        saved = None
        if self._shown and group.candidates and (video := self._shown.path(group.prompt)):
            try:
                self._shown.save({video: group.candidates[0].candidate.video})
                saved = video
            except WorkLostError as error:
                logger.warning("the video of a held-out prompt is not kept: %s", error)
        row = {"seeds": request.seeds, "group": group_to_json(group)}
        if self._path is not None:
            _append(self._path, row)
        try:
            if self._shared is not None:
                _append(self._shared, row)
                if saved:
                    _copy(saved, _shared_video(self._shared, request))
        except OSError as error:  # other runs would be quicker with it, and this one needs it not
            logger.warning("evaluation.base_cache is not added to: %s", error)
            self._shared = None
        return saved


def path_of(evaluation: Path, recipe: Recipe, version: WeightVersion) -> Path:
    """Return the file of the groups that some weights make under the settings of a recipe.

    Args:
        evaluation: The folder of a run's evaluations.
        recipe: Its policy, sampling, rewards and unseen metrics decide; of places that they name,
            the content does.
        version: The weights.
    """
    settings = sorted(settings_of_samples(recipe).items())
    facts = [*settings, recipe.metrics.unseen, version.digest]
    return evaluation / "groups" / f"{digest_of(facts)[:32]}.jsonl"


def path_of_base(recipe: Recipe, version: WeightVersion) -> Path | None:
    """Return the file in `evaluation.base_cache` of the groups that a run's base makes.

    None where that is not set, or the weights are not those that a run begins with. A new adapter
    changes nothing of what is sampled, so neither its size nor the seed of its numbers counts. Runs
    with other versions of the libraries that make samples and scores share nothing.
    """
    if not recipe.evaluation.base_cache or version.step > 0:
        return None
    settings = settings_of_samples(recipe)
    if recipe.policy.lora.initial is None and recipe.policy.lora.rank > 0:
        settings = {
            key: value for key, value in settings.items() if not key.startswith("policy.lora.")
        }
    pictures = [file_digest(Path(row.image)) for row in evaluation_prompts(recipe) if row.image]
    versions = [*versions_here()[1].items(), *((name, metadata.version(name)) for name in _MAKERS)]
    facts = [*sorted(settings.items()), recipe.metrics.unseen, pictures, versions]
    return Path(recipe.evaluation.base_cache) / f"{digest_of(facts)[:32]}.jsonl"


def _shared_video(shared: Path, request: SampleRequest) -> Path:
    """Return the place of a video by what it was sampled from: runs number prompts differently."""
    name = digest_of([request.prompt.condition, request.seeds[0]])[:32]
    return shared.with_suffix("") / f"{name}.mp4"


def video_name(prompt: Prompt) -> str:
    """Return the name of the file of a prompt's video."""
    return f"{prompt.index:06d}.mp4"


def _of(request: SampleRequest, group: ScoredGroup) -> ScoredGroup:
    """Return a group as the answer to a request: of its prompt, and sampled with its version."""
    candidates = tuple(
        dataclasses.replace(
            scored,
            candidate=dataclasses.replace(
                scored.candidate, prompt=request.prompt, version=request.version
            ),
        )
        for scored in group.candidates
    )
    return dataclasses.replace(group, prompt=request.prompt, candidates=candidates)


def _copy(source: Path, target: Path) -> None:
    """Copy a file; another run may do the same at the same time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    shutil.copyfile(source, partial)
    os.replace(partial, target)


_Key = tuple[Condition, tuple[int, ...]]
"""A prompt, with its picture if it has one, and seeds: what a set of weights samples from."""


def _key(request: SampleRequest) -> _Key:
    return request.prompt.condition, request.seeds


def _read(path: Path) -> dict[_Key, ScoredGroup]:
    found: dict[_Key, ScoredGroup] = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            row = json.loads(line)
            group = group_from_json(row["group"])
        except (ValueError, KeyError, TypeError):  # torn
            continue
        found[group.prompt.condition, tuple(row["seeds"])] = group
    return found


def _append(path: Path, row: Mapping[str, Any]) -> None:
    """Append a line, after a line end: what is before it may be torn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{json.dumps(row)}\n")
        file.flush()
        os.fsync(file.fileno())
