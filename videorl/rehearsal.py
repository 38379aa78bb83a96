"""A rehearsal: before anything long, every part of a run does its work once, at full size.

What does not fit, or cannot work, ends the run within minutes. Nothing of a rehearsal is kept, and
no number of the run depends on it. What passed is noted in the run folder, and not done again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from videorl.config import Recipe
from videorl.errors import RehearsalError, VideoError
from videorl.files import write_json
from videorl.protocols import Generator, Scorer
from videorl.run.folder import RunFolder
from videorl.types import (
    BLANK,
    CandidateGroup,
    PreferencePair,
    Prompt,
    SampleRequest,
    Score,
    ScoredCandidate,
    TrainingExample,
    WeightedCandidate,
    WeightVersion,
)

logger = logging.getLogger(__name__)

REAL_MODEL = 500_000_000
"""With `rehearsal: auto`, transformers with more parameters are rehearsed."""
NUM_STEPS = 2
"""The solver's steps that are taken; memory does not depend on them."""

_SIZE = ("sampling.num_frames", "sampling.height", "sampling.width")
_ASKED = {
    "generator": ("sampling.batch_size", "prompts.candidates_per_prompt", *_SIZE),
    "rewards": ("prompts.candidates_per_prompt", *_SIZE),
    "learner": (
        "learner.micro_batch_size",
        "policy.gradient_checkpointing",
        "learner.zero_stage",
        "policy.lora.rank",
        *_SIZE,
    ),
    "checkpoint": ("checkpoint.location", "run_dir"),
}
"""Part -> the settings that decide what it needs, those to change first in front."""
_RESTS_ON = {
    "generator": ("policy", "sampling", "prompts", "evaluation", "generators", "encoder"),
    "rewards": ("sampling", "prompts", "evaluation", "rewards"),
    "learner": ("policy", "sampling", "prompts", "objective", "rewards", "learner"),
    "checkpoint": ("policy", "checkpoint", "learner"),
}
"""Part -> the sections that it is rehearsed again for."""

_OUT_OF_MEMORY = re.compile(r"out ?of ?memory|allocate memory|MemoryError", re.IGNORECASE)


class RehearsingLearner(Protocol):
    """What a learner does in a rehearsal, on all ranks; both return the peak of its GPU in GiB."""

    def num_parameters(self) -> int:
        """Return how many weights the policy's transformer has."""
        ...

    def rehearse_step(self, examples: Sequence[Any]) -> float:
        """Go forward and backward on the first micro-batch of a step, without an update."""
        ...

    def rehearse_checkpoint(self) -> float:
        """Write a checkpoint where those of the run will be, read it and remove it."""
        ...


class Examples(Protocol):
    """What a learner alone learns from."""

    def __getitem__(self, position: int, /) -> Any:
        """Return the example at a position."""
        ...


class Rehearsal:
    """The rehearsal of one run.

    Args:
        recipe: The run.
        folder: Its folder.
        devices: What it runs on; with others it is rehearsed again. None = what this process sees.
    """

    def __init__(
        self, recipe: Recipe, folder: RunFolder, devices: Sequence[str] | None = None
    ) -> None:
        self._recipe = recipe
        self._file = folder.rehearsal
        devices = own_devices() if devices is None else devices
        self._keys = {part: _key(recipe, part, devices) for part in _RESTS_ON}
        self._passed: dict[str, Any] = (
            json.loads(self._file.read_text()) if self._file.exists() else {}
        )

    def whole_run(
        self,
        generator: Generator,
        scorer: Scorer,
        learner: RehearsingLearner,
        version: WeightVersion,
        released: Callable[[str], float],
    ) -> None:
        """Rehearse an online run: sample, score, learn, save.

        Args:
            generator: Loads and proves the published weights, then samples.
            scorer: Scores what was sampled with every reward model.
            learner: Learns from it.
            version: The newest published weights.
            released: Empties the GPU caches of a part's workers (`generator` or `rewards`) and
                returns their largest peak in GiB, 0 without a GPU.

        Raises:
            RehearsalError: A part failed: which, what it was asked for, and what to change.
        """
        if not self._is_due(learner, version.step):
            return
        request = self._request(version)
        groups: list[CandidateGroup] = []

        def sample() -> float:
            groups.append(_whole(generator.submit(request).result()))
            return released("generator")

        def score() -> float:
            scorer.submit(groups[0]).result()
            return released("rewards")

        if not self._has_passed("generator", "rewards", "learner"):
            self._do("generator", sample)  # again, as the others need its videos
        if not self._has_passed("rewards"):
            self._do("rewards", score)
        if not self._has_passed("learner"):
            examples = [_example(self._recipe, groups[0])] * self._recipe.prompts.per_round
            self._do("learner", lambda: learner.rehearse_step(examples))
        self._save(learner)

    def learner_alone(self, learner: RehearsingLearner, examples: Examples, step: int) -> None:
        """Rehearse a run from stored pairs or from prompts alone: learn, save.

        Args:
            learner: Started.
            examples: Of which it gets the first, as often as a step has examples.
            step: That the run goes on from.

        Raises:
            RehearsalError: As above.
        """
        if not self._is_due(learner, step):
            return
        if not self._has_passed("learner"):
            several = [examples[0]] * self._recipe.prompts.per_round
            self._do("learner", lambda: learner.rehearse_step(several))
        self._save(learner)

    def _save(self, learner: RehearsingLearner) -> None:
        if not self._has_passed("checkpoint"):
            self._do("checkpoint", learner.rehearse_checkpoint)

    def _is_due(self, learner: RehearsingLearner, step: int) -> bool:
        if self._recipe.rehearsal == "never" or step >= self._recipe.num_steps:
            return False
        return self._recipe.rehearsal == "always" or learner.num_parameters() > REAL_MODEL

    def _has_passed(self, *parts: str) -> bool:
        return all(self._passed.get(part, {}).get("key") == self._keys[part] for part in parts)

    def _request(self, version: WeightVersion) -> SampleRequest:
        """Return a request for as many videos as are ever denoised at once."""
        recipe = self._recipe
        num = recipe.videos_denoised_at_once
        steps = min(NUM_STEPS, recipe.sampling.num_inference_steps)
        return SampleRequest(
            0, Prompt(0, "a rehearsal", image=BLANK), tuple(range(num)), version, steps
        )

    def _do(self, part: str, work: Callable[[], float]) -> None:
        logger.info("rehearsal of the %s begins: %s", part, self._asked(part))
        started = time.perf_counter()
        try:
            peak_gib = work()
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            is_memory = bool(_OUT_OF_MEMORY.search(said))
            seconds = time.perf_counter() - started
            explained = self._explained(part, said, seconds, is_memory=is_memory)
            raise RehearsalError(explained, is_memory=is_memory) from error
        seconds = time.perf_counter() - started
        peak = f", {peak_gib:.1f} GiB of GPU memory at most" if peak_gib else ""
        logger.info("rehearsal of the %s passed in %.1f s%s", part, seconds, peak)
        self._passed[part] = {"key": self._keys[part], "seconds": seconds, "peak_gib": peak_gib}
        write_json(self._file, self._passed)

    def _explained(self, part: str, said: str, seconds: float, *, is_memory: bool) -> str:
        what = "ran out of memory" if is_memory else "failed"
        advice = f"It was asked for {self._asked(part)}"
        if is_memory:
            advice += "; lower these, turn policy.gradient_checkpointing on, or use a larger device"
        return (
            f"rehearsal: the {part} {what} after {seconds:.0f} s: {said}. {advice}. Nothing was "
            "trained; start the same command again with other settings (rehearsal=never leaves "
            "the rehearsal out)"
        )

    def _asked(self, part: str) -> str:
        recipe = dataclasses.asdict(self._recipe)
        return ", ".join(f"{key}={_value(recipe, key)}" for key in _ASKED[part])


def release() -> float:
    """Empty this process's GPU cache; return its peak in GiB since the last call, 0 without."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0.0
    peak_gib = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return peak_gib


def own_devices() -> list[str]:
    """Return the names of the GPUs that this process sees."""
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _whole(group: CandidateGroup) -> CandidateGroup:
    """Refuse a group that lacks candidates.

    Raises:
        VideoError: Some were sampled in vain.
    """
    if group.dropped or not group.candidates:
        reasons = ", ".join(f"{number} x {reason}" for reason, number in group.dropped.items())
        raise VideoError(f"sampled videos cannot be used: {reasons}; try policy.dtype=float32")
    return group


def _example(recipe: Recipe, group: CandidateGroup) -> TrainingExample:
    """Return an example of the kind that the objective learns from, whatever the scores were."""
    first = ScoredCandidate(group.candidates[0], Score({}, 1.0))
    last = ScoredCandidate(group.candidates[-1], Score({}, 0.0))
    if recipe.objective.learns_from == "pairs":
        return PreferencePair(group.prompt, group.prompt_embeds, first, last, margin=1.0)
    return WeightedCandidate(group.prompt, group.prompt_embeds, first, weight=1.0)


def _key(recipe: Recipe, part: str, devices: Sequence[str]) -> str:
    settings = dataclasses.asdict(recipe)
    for reward in settings["rewards"]:
        del reward["runtime_env"]  # it may hold secrets
    kept = [settings[section] for section in _RESTS_ON[part]]
    text = json.dumps([kept, sorted(devices)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _value(settings: Any, key: str) -> Any:
    for name in key.split("."):
        settings = settings[name]
    return settings
