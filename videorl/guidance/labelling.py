"""Labelled pairs of latents: sampled from a policy and labelled by reward models."""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from videorl.config import RewardConfig
from videorl.errors import ConfigError, PromptError
from videorl.files import write_csv, write_json
from videorl.files.content import content_of_checkpoint, digest_of
from videorl.guidance.latent_files import ScoredVideo, read_video, write_latents
from videorl.policies.checkpoints import SHIPPED
from videorl.protocols import Policy, RewardModel
from videorl.reward_training.pairs import COLUMNS, IMAGE
from videorl.rewards.scoring import named, score_each
from videorl.seeds import derive_seed
from videorl.types import Condition, Score, Video

logger = logging.getLogger(__name__)

SETTINGS_FILE = "made_with.json"
VAE = "policy.path/vae"
"""Key there of `vae_digest`."""
SAME_BAND = 0.1
"""Default of `same_band`: scores that differ by less are labelled `same`."""


def label(score_a: float, score_b: float, same_band: float) -> str:
    """Return `A`, `B` or `same`; `invalid` if a score is NaN."""
    margin = score_a - score_b
    if math.isnan(margin):
        return "invalid"
    return "same" if abs(margin) < same_band else "A" if margin > 0 else "B"


def dimension_scores(
    models: Mapping[str, RewardModel], rewards: Sequence[RewardConfig]
) -> Callable[[Sequence[Video], str], list[dict[str, float]]]:
    """Return a function that scores videos of a prompt on every dimension of every model.

    Dimensions are named as in a run; a video that a model cannot score gets NaN.

    Args:
        models: `RewardConfig.key` -> model.
        rewards: Configurations of the models, in the order in which dimensions are to be named.
    """

    def score(videos: Sequence[Video], prompt: str) -> list[dict[str, float]]:
        found = {
            key: score_each(model, videos, [prompt] * len(videos)) for key, model in models.items()
        }
        rows: list[dict[str, float]] = []
        for index in range(len(videos)):
            row: dict[str, Score] = {}
            for key, model in models.items():
                scored = found[key][index]
                nothing = Score(dict.fromkeys(model.dimensions, math.nan), math.nan)
                row[key] = scored if isinstance(scored, Score) else nothing
            rows.append(named(row, rewards)[0])
        return rows

    return score


def check_settings(folder: Path, settings: Mapping[str, object]) -> None:
    """Note what the labels in a folder are made with, or compare it with what was noted.

    Args:
        folder: Is created.
        settings: Whatever decides samples and scores; of models their content, not their place.

    Raises:
        ConfigError: The folder was begun with other settings.
    """
    path = folder / SETTINGS_FILE
    now = json.loads(json.dumps(settings))
    if not path.exists():
        write_json(path, now)
        return
    then = json.loads(path.read_text())
    if changed := sorted(key for key in then.keys() | now.keys() if then.get(key) != now.get(key)):
        said = "; ".join(f"{key}: {then.get(key)} -> {now.get(key)}" for key in changed)
        raise ConfigError(
            f"{folder} holds latents that were made with other settings ({said}); a digest stands "
            "for the content of a model. Give another --out, or the settings that it was begun with"
        )


def vae_digest(policy: str) -> str | None:
    """Return what tells the latents of policies apart: a digest of the VAE, if it is here as files.

    Args:
        policy: As `policy.path`.
    """
    content = content_of_checkpoint(policy, SHIPPED)
    parts = content.parts if content else {}
    of_vae = [(name, digest) for name, digest in parts.items() if name.startswith("vae/")]
    return digest_of(of_vae) if of_vae else None


def check_origin(labels: Path, policy: str) -> None:
    """Refuse labels whose latents another VAE made, where that is noted and both are known.

    Args:
        labels: A file of labels that `label_latents` wrote, or another one.
        policy: As `policy.path`.

    Raises:
        ConfigError: It is so.
    """
    path = labels.parent / SETTINGS_FILE
    then = json.loads(path.read_text()).get(VAE) if path.exists() else None
    if then and (now := vae_digest(policy)) and then != now:
        raise ConfigError(
            f"the latents of {labels} were made with another VAE than that of policy.path={policy} "
            "(vae/ holds something else): use the policy that they were made with, or make others"
        )


def sample_scored_latents(
    folder: Path,
    policy: Policy,
    score: Callable[[Sequence[Video], str], Sequence[Mapping[str, float]]],
    prompts: Sequence[Condition],
    num_candidates: int,
    seed: int,
    on_prompt: Callable[[int], None] = lambda done: None,
) -> list[list[Path]]:
    """Sample and score candidates of every prompt, and write their latents; return the files.

    Prompts whose files exist already are skipped, so that a stopped call can be repeated; files
    of another prompt are replaced. Prompts that the policy cannot encode are logged and left out.

    Args:
        folder: Is created.
        policy: Must have all of its parts; the negative prompt is empty.
        score: Returns the scores by dimension of videos of a prompt; NaN for a missing score.
        prompts: Texts to sample for, with pictures if the policy takes them.
        num_candidates: Number of candidates of each prompt.
        seed: Seed of the samples.
        on_prompt: Called with the number of prompts done.

    Raises:
        PromptError: No prompt can be encoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups: list[list[Path]] = []
    refused: PromptError | None = None
    for number, prompt in enumerate(prompts):
        paths = [folder / f"{number:06d}-{k:02d}.safetensors" for k in range(num_candidates)]
        text, image = (prompt, "") if isinstance(prompt, str) else (prompt.text, prompt.image)
        if not all(path.is_file() and read_video(path).condition == prompt for path in paths):
            seeds = [derive_seed(seed, "latents", text, k) for k in range(num_candidates)]
            try:
                embeds, negative = policy.encode([prompt, ""])
            except PromptError as error:
                logger.warning("left out: %s", error)
                refused = error
                continue
            latents_BCTHW = policy.sample(embeds, negative, seeds)
            scored = score(policy.decode(latents_BCTHW), text)
            for path, latents_CTHW, scores in zip(paths, latents_BCTHW, scored, strict=True):
                write_latents(path, latents_CTHW, ScoredVideo(text, scores, image))
        groups.append(paths)
        on_prompt(number + 1)
    if refused and not groups:
        raise PromptError(f"no prompt can be used; the last problem was: {refused}") from refused
    return groups


def write_pairs(path: Path, groups: Sequence[Sequence[Path]], same_band: float = SAME_BAND) -> int:
    """Label every two videos of each prompt on every dimension; return how many labels are invalid.

    Args:
        path: CSV to write atomically, with the columns that `read_pairs` reads. The files must be
            in its folder or below.
        groups: Files of each prompt, from `sample_scored_latents`.
        same_band: See `label`.
    """
    rows: list[tuple[str, ...]] = []
    dimensions: tuple[str, ...] = ()
    scored = [[read_video(file) for file in files] for files in groups]
    has_images = any(video.image for videos in scored for video in videos)
    for files, videos in zip(groups, scored, strict=True):
        dimensions = dimensions or tuple(videos[0].scores)
        names = [file.relative_to(path.parent).as_posix() for file in files]
        for (name_a, a), (name_b, b) in itertools.combinations(zip(names, videos, strict=True), 2):
            labels = [label(a.scores[name], b.scores[name], same_band) for name in dimensions]
            rows.append((name_a, name_b, a.prompt, *labels, *([a.image] if has_images else [])))
    num_invalid = sum(row.count("invalid") for row in rows)
    if num_invalid:
        total = len(rows) * len(dimensions)
        logger.warning("%s: %d of %d labels invalid: a score is missing", path, num_invalid, total)
    write_csv(path, [(*COLUMNS, *dimensions, *([IMAGE] if has_images else [])), *rows])
    return num_invalid
