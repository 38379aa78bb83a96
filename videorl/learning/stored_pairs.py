"""Offline DPO: the learner of the online loop, on preference pairs that exist already.

No generator and no reward, and a VAE only to encode pairs of video files: pairs come from disk in a
seeded order, and stay the same however the policy moves (OnlineVPO, arXiv 2412.15159, compares with
this).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from videorl.config import Recipe, SamplingConfig
from videorl.data.pair_encoding import PairEncoding, Part
from videorl.data.preference_videos import has_videos, read_video_pairs
from videorl.data.preferences import Preferences, read_preferences
from videorl.errors import ArchiveError
from videorl.learning.usable import Usable
from videorl.policies import WITH_SOUND, load_family, load_policy, takes_images
from videorl.run.folder import RunFolder
from videorl.run.progress import progress
from videorl.seeds import derive_seed
from videorl.types import (
    BLANK,
    Candidate,
    Condition,
    Media,
    PreferencePair,
    Prompt,
    Score,
    ScoredCandidate,
    WeightVersion,
)

logger = logging.getLogger(__name__)

_OF_LATENTS = ("policy.family", "sampling.num_frames", "sampling.height", "sampling.width")
"""Settings that latents of one archive share with the recipe that learns from them."""

PROBE = Prompt(0, "", image=BLANK)
"""Of a video whose shape is all that matters; no encoder finds its text too long."""

_PROMPTS_KEPT = 256
"""Embeddings kept; those of a large encoder take megabytes."""

_STORED = WeightVersion(0, "stored")
"""What sampled a stored video is not known."""


class PairStream:
    """An endless, seeded, random-access sequence of stored pairs; each epoch visits all once.

    The place of a pair whose prompt cannot be encoded, or whose latents are damaged, is taken by
    the next in the epoch that can be used.

    Args:
        preferences: The pairs.
        encode: Prompt -> `Embedding`, or a handle to it.
        seed: Of the order.
        put: Latents -> what stands for them in the pairs: themselves, or a handle.
    """

    def __init__(
        self,
        preferences: Preferences,
        encode: Callable[[Condition], Media],
        seed: int,
        put: Callable[[Tensor], Media] = lambda latents: latents,
    ) -> None:
        self._preferences = preferences
        self._encode = lru_cache(_PROMPTS_KEPT)(encode)
        self._seed = seed
        self._put = put
        self._usable = Usable(self._opened)

    @property
    def num_skipped(self) -> int:
        """How many pairs could not be used so far."""
        return self._usable.num_skipped

    def __getitem__(self, position: int) -> PreferencePair:
        """Return the pair at a position (>= 0), equal on every call and resume.

        Raises:
            PromptError: No pair can be used.
        """
        size = len(self._preferences)
        epoch, place = divmod(position, size)
        rng = np.random.default_rng(derive_seed(self._seed, "pairs", epoch))
        order = rng.permutation(size).tolist()
        index, embeds, both = self._usable.first(order[place:] + order[:place])
        prompt = self._prompt(index, position)
        chosen, rejected = (
            ScoredCandidate(
                Candidate(0, prompt, role, 0, _STORED, self._put(latents), None), Score({}, total)
            )
            for role, (latents, total) in enumerate(zip(both, (1.0, 0.0), strict=True))
        )
        return PreferencePair(prompt, embeds, chosen, rejected, margin=1.0)

    def _opened(self, index: int) -> tuple[int, Media, tuple[Tensor, Tensor]]:
        """Return a pair's index, its prompt's embedding, and the latents of both videos."""
        prompt = self._prompt(index, 0)
        return index, self._encode(prompt.condition), self._preferences.latents(index)

    def _prompt(self, index: int, position: int) -> Prompt:
        """Return the prompt of a pair."""
        image = self._preferences.images[index] if self._preferences.images else ""
        return Prompt(position, self._preferences.prompts[index], image=image)


def check_archive(recipe: Recipe, folder: RunFolder) -> None:
    """Refuse what can be seen to be wrong with an archive before a model or a cluster starts.

    Raises:
        ArchiveError: There is none, its table cannot be learned from, or it is of another model.
    """
    check_origin(recipe)
    if recipe.policy.family in WITH_SOUND and has_videos(Path(recipe.offline.archive)):
        raise ArchiveError(
            f"offline.archive={recipe.offline.archive} has videos in files, whose sound is not "
            f"read, but policy.family={recipe.policy.family} learns from picture and sound: give "
            "the archive of a run with this model, which keeps the latents of both"
        )
    if not has_videos(archive := Path(recipe.offline.archive)):
        images = read_preferences(archive).images
    elif folder.latents.exists():
        images = read_preferences(folder.latents).images
    else:
        images = [pair.image for pair in read_video_pairs(archive)]
    wanted = takes_images(recipe.policy.family)
    if (all(images) and bool(images) == wanted) or (not wanted and not any(images)):
        return
    raise ArchiveError(
        f"offline.archive={archive}: policy.family={recipe.policy.family} needs "
        + ("an `image` with every prompt" if wanted else "prompts without an `image`")
        + ", and it has pairs of the other kind"
    )


def check_origin(recipe: Recipe) -> None:
    """Compare the recipe with that of the run whose archive it learns from, if it is one.

    A warning names another `policy.path`: copies of one model are fine, other models are not, and
    equal shapes of latents do not tell them apart.

    Raises:
        ArchiveError: The run sampled another family of models, or videos of another size.
    """
    path = Path(recipe.offline.archive)
    config = path.parent / "config.yaml"
    if not ((path / "pairs").is_dir() and config.is_file()):
        return
    origin = OmegaConf.load(config)
    # As many latents of another rate may be picture and sound in other places.
    of_latents = _OF_LATENTS + (("sampling.fps",) if recipe.policy.family in WITH_SOUND else ())
    made = {key: OmegaConf.select(origin, key) for key in (*of_latents, "policy.path")}
    wanted = {key: OmegaConf.select(OmegaConf.structured(recipe), key) for key in made}
    if other := [key for key in of_latents if made[key] != wanted[key]]:
        raise ArchiveError(
            f"offline.archive={path} is of a run with "
            + ", ".join(f"{key}={made[key]}" for key in other)
            + ", but this recipe has "
            + ", ".join(f"{key}={wanted[key]}" for key in other)
            + ": latents of another model or size cannot be learned from"
        )
    if made["policy.path"] != wanted["policy.path"]:
        logger.warning(
            "offline.archive=%s was sampled with policy.path=%s, this recipe has %s: unless these "
            "are the same model, its latents mean nothing here",
            path,
            made["policy.path"],
            wanted["policy.path"],
        )


def probe_sampling(recipe: Recipe) -> SamplingConfig:
    """Return the cheapest sampling of the same size: of videos whose shape is all that matters.

    Guidance that is an input of the transformer stays, as learners predict with it.
    """
    family = load_family(recipe.policy.family)
    changes: dict[str, Any] = {
        family.negative_guidance: 1.0,
        "guidance_scale_2": None,
        "negative_prompt": "",
        "num_inference_steps": getattr(family, "fewest_steps", 1),
    }
    return replace(recipe.sampling, **changes)


def check_shape(preferences: Preferences, probe_BCTHW: Tensor) -> None:
    """Compare the shape of the stored latents with that of a video of the policy.

    Raises:
        ArchiveError: They differ.
    """
    wanted = tuple(probe_BCTHW.shape[1:])
    if preferences.shape != wanted:
        raise ArchiveError(
            f"offline.archive holds latents of shape {list(preferences.shape)}, but policy.path "
            f"with this recipe's sampling makes {list(wanted)}: they are of another model or size"
        )


def encode_archive(
    recipe: Recipe,
    folder: RunFolder,
    encode_parts: Callable[[Recipe, Sequence[Part]], Iterable[object]] | None = None,
) -> None:
    """Encode the videos of the recipe's archive with the policy's VAE, unless that is done.

    Args:
        recipe: The run.
        folder: Its folder, which has the latents then.
        encode_parts: Writes parts, perhaps several at once, and yields as each is written; None =
            `encode_here`.

    Raises:
        ArchiveError: The table is unusable, or a video is damaged or of another size than
            `sampling` says.
    """
    if folder.latents.exists():
        return
    encoding = PairEncoding(read_video_pairs(Path(recipe.offline.archive)), folder.latents)
    parts = encoding.missing()
    if parts:
        with progress("parts of the archive encoded", len(parts)) as reach:
            for done, _ in enumerate((encode_parts or encode_here)(recipe, parts), 1):
                reach(done)
    encoding.finish()


def encode_here(
    recipe: Recipe, parts: Sequence[Part], device: torch.device | None = None
) -> Iterator[None]:
    """Write parts in this process, with the VAE on a device; None = the GPU if there is one."""
    policy = load_policy(recipe.policy, recipe.sampling, parts=frozenset({"vae"}), device=device)
    for part in parts:
        yield part.write(policy.encode_video)
