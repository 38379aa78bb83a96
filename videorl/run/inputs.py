"""What a run rests on, by content: noted in its folder when it begins, compared when it goes on.

`inputs.json` says of every setting that names a place outside the run folder (a model, an adapter,
prompts, stored pairs, labels) what was there. The place itself does not matter: files may be
copied, moved and touched. Other content is refused, since one run's numbers would come from two.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from videorl.config import PolicyConfig, Recipe
from videorl.data.pair_content import table_content, video_content
from videorl.data.prompt_rows import PromptRow
from videorl.data.prompts import evaluation_prompts, fixed_prompt_rows, load_prompts
from videorl.errors import RunFolderError
from videorl.files import write_json
from videorl.files.content import (
    Content,
    content_of,
    content_of_checkpoint,
    content_of_code,
    digest_of,
    file_digest,
)
from videorl.files.inputs import CODE, Input, changes, from_json, inputs_now, to_json
from videorl.policies.checkpoints import SHIPPED
from videorl.recipes.fingerprint import RunRecipe, frozen_settings
from videorl.rewards.content import reward_inputs
from videorl.settings.plugins import source_of

logger = logging.getLogger(__name__)

FILE = "inputs.json"
_SAMPLED = ("policy.", "metrics.")
"""Before the settings that name code which samples, or measures what is sampled."""
_FORMAT = 1


def inputs_of(recipe: RunRecipe, *, fresh: bool = False) -> dict[str, Input]:
    """Return setting -> input, of those that are on this machine.

    Args:
        recipe: Any recipe; its prompts are read.
        fresh: Read every file, even where its size and times are those of a hash that is kept.

    Raises:
        RunFolderError: A file cannot be read.
        PromptError: The prompts cannot be read.
    """
    try:
        return inputs_now(_inputs(recipe, fresh))
    except OSError as error:
        if error.filename is None:
            raise
        raise RunFolderError(
            f"cannot read {error.filename}, which the run rests on: {error.strerror}"
        ) from error


def settings_of_samples(recipe: Recipe) -> dict[str, Any]:
    """Return what decides the samples of some weights, and their scores, by setting.

    These are the settings of policy, sampling and rewards; those that name a place have its content
    as their value, where it is here. Code of the user's own counts by its content too, that of
    unseen metrics as well.
    """
    sections = ("policy.", "sampling.", "rewards.")
    settings = {
        key: value for key, value in frozen_settings(recipe).items() if key.startswith(sections)
    }
    code = [found for found in _own_code(recipe, False) if found[0].startswith(_SAMPLED)]
    found = inputs_now((*_policy(recipe.policy, False), *reward_inputs(recipe.rewards), *code))
    return settings | {key: there.content.digest for key, there in found.items()}


_Found = Iterator[tuple[str, str, Content | None]]
"""Setting, place, content."""


def _inputs(recipe: Any, fresh: bool) -> _Found:
    """Yield the inputs of a recipe of any schema, by the sections that it has."""
    if (policy := getattr(recipe, "policy", None)) is not None:
        yield from _policy(policy, fresh)
    if (model := getattr(recipe, "model", None)) is not None and hasattr(model, "base"):
        yield "model.base", model.base, content_of_checkpoint(model.base, {}, fresh=fresh)
    if (labels := getattr(recipe, "labels", None)) is not None:
        for name in ("train", "held_out"):
            if (file := Path(getattr(labels, name))).is_file():
                yield f"labels.{name}", str(file), content_of(file, fresh=fresh)
    if isinstance(recipe, Recipe):
        yield from _own_code(recipe, fresh)
        yield from reward_inputs(recipe.rewards, fresh=fresh)
        if archive := recipe.offline.archive:
            yield "offline.archive", archive, table_content(Path(archive), fresh=fresh)
            yield "offline.archive (videos)", archive, video_content(Path(archive), fresh=fresh)
        else:
            config = recipe.prompts
            rows = load_prompts(config.source, "train", config.column)
            yield _prompts("prompts", config.source, rows, fresh)
        if source := recipe.evaluation.source:
            yield _prompts("evaluation", source, evaluation_prompts(recipe), fresh)
        if recipe.fixed_prompts.interval and (source := recipe.fixed_prompts.source):
            yield _prompts("fixed_prompts", source, fixed_prompt_rows(recipe), fresh)


def _policy(policy: PolicyConfig, fresh: bool) -> _Found:
    yield "policy.path", policy.path, content_of_checkpoint(policy.path, SHIPPED, fresh=fresh)
    if policy.lora.initial is not None:
        content = content_of_checkpoint(policy.lora.initial, {}, fresh=fresh)
        yield "policy.lora.initial", policy.lora.initial, content


def _own_code(recipe: Recipe, fresh: bool) -> _Found:
    named = {
        "policy.family": recipe.policy.family,
        "objective.name": recipe.objective.name,
        "selection.rule": recipe.selection.rule,
        **{f"metrics.unseen.{n}": name for n, name in enumerate(recipe.metrics.unseen)},
    }
    for key, name in named.items():
        yield f"{key}{CODE}", name, content_of_code(name, source_of(name), fresh=fresh)


def _prompts(
    section: str, source: str, rows: Sequence[PromptRow], fresh: bool
) -> tuple[str, str, Content]:
    """Return the content of prompts as they are read: how their file writes them does not count.

    Of pictures the bytes count, and not where they lie.
    """
    pictures = [
        f"{number} {file_digest(Path(row.image), fresh=fresh)}"
        for number, row in enumerate(rows)
        if row.image
    ]
    digest = digest_of([*rows, *pictures])
    return f"{section}.source", source, Content(digest, f"{len(rows)} prompts")


def read_inputs(root: Path) -> dict[str, Input]:
    """Return setting -> input as the run folder `root` has them; empty if it is older than that.

    Raises:
        RunFolderError: The record is damaged, or of a later version of videorl.
    """
    path = root / FILE
    if not path.exists():
        return {}
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["format"] > _FORMAT:
            raise RunFolderError(f"{path} was written by a newer version: upgrade videorl")
        return from_json(saved["inputs"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{path} is damaged ({error}); remove it to go on with the inputs as they are now"
        ) from error


def check_unchanged(root: Path, recipe: RunRecipe) -> None:
    """Refuse to evaluate what a run trained on top of something else; other changes are logged.

    Args:
        root: The run folder.
        recipe: Its recipe, perhaps with other settings.

    Raises:
        RunFolderError: The policy, or the adapter that the run began with, has changed.
    """
    changed = changes(read_inputs(root), inputs_of(recipe))
    below = [
        text
        for key, text in changed.items()
        if key.startswith("policy.") and not key.endswith(CODE)
    ]
    if below:
        raise RunFolderError(
            f"the weights in {root} were trained on top of what has changed since: "
            f"{'; '.join(below)}. Put back what was there"
        )
    for text in changed.values():
        logger.warning("%s: both policies are judged by what is there now", text)


def keep_inputs(root: Path, now: Mapping[str, Input], *, is_new: bool) -> None:
    """Note the inputs of a run, or compare them with those that it began with.

    Code of the user's own may change, as a mended mistake is a reason to go on; that is logged.

    Args:
        root: The run folder.
        now: What `inputs_of` found.
        is_new: Whether the run begins; otherwise a missing record is mentioned.

    Raises:
        RunFolderError: An input has changed since.
    """
    then = read_inputs(root)
    changed = changes(then, now)
    for key in [key for key in changed if key.endswith(CODE)]:
        logger.warning("%s: the run goes on with it", changed.pop(key))
    if changed:
        raise RunFolderError(
            f"what the run in {root} rests on has changed: {'; '.join(changed.values())}. Numbers "
            "from before and after would be mixed. Put back what was there, or set another "
            f"run_dir to start afresh; to go on all the same, remove {root / FILE}"
        )
    if not then and not is_new:
        logger.warning("%s has no %s: from now on its inputs must stay as they are", root, FILE)
    if now.keys() - then.keys():
        write_json(root / FILE, {"format": _FORMAT, "inputs": to_json({**now, **then})})
