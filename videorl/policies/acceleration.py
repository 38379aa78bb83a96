"""What makes a policy sample faster than its stock pipeline does, each part a setting."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from videorl.config import SamplingConfig
from videorl.errors import ConfigError
from videorl.policies.experts import denoiser, models_of
from videorl.policies.family import Family, is_guided

if TYPE_CHECKING:
    from videorl.policies.merged import MergedAdapter

NO_CACHE, TAYLORSEER = "none", "taylorseer"


class Acceleration:
    """Brings transformers into the state in which they sample, and back into that of `predict`.

    Args:
        family: Of the model.
        pipeline: Its pipeline; without a transformer there is nothing to do.
        sampling: Which parts are on.
        may_merge: The transformer has an adapter that is not trained here.

    Raises:
        ConfigError: A part that is on is not for this model.
    """

    def __init__(
        self, family: Family, pipeline: Any, sampling: SamplingConfig, *, may_merge: bool
    ) -> None:
        self._family = family
        self._models = (
            [] if pipeline.transformer is None else [*models_of(denoiser(pipeline)).values()]
        )
        self._sampling = sampling
        self._may_merge = may_merge
        self._merged: MergedAdapter | None = None
        if pipeline.transformer is not None:
            _check(family, pipeline.transformer, sampling)

    @contextmanager
    def sampling(self, negative: Mapping[str, Tensor] | None) -> Iterator[None]:
        """Inside the block, calls of the pipeline are fast; each begins with an empty step cache.

        Args:
            negative: What the transformer is given of the negative prompts; None = there is no
                guidance.
        """
        if self._sampling.merge_lora and self._may_merge:
            from videorl.policies.merged import MergedAdapter

            self._merged = self._merged or MergedAdapter(torch.nn.ModuleList(self._models))
            self._merged.merge()
        if self._sampling.step_cache != NO_CACHE:
            for model in self._models:
                if not model.is_cache_enabled:
                    model.enable_cache(_cache_config(self._sampling))
                model._reset_stateful_cache()  # an interrupted call leaves its state
        with self._guidance(negative):
            yield

    def use(self, sampling: SamplingConfig) -> None:
        """Accelerate as other settings ask from now on; what is merged stays so."""
        self._sampling = sampling

    def plain(self) -> None:
        """Bring back the transformers as they were loaded: no cache, nothing merged.

        Raises:
            WeightMismatchError: The base is not what it was; see `MergedAdapter.remove`.
        """
        if self._merged:
            self._merged.remove()
        for model in self._models:
            if getattr(model, "is_cache_enabled", False):
                model.disable_cache()

    def _guidance(self, negative: Mapping[str, Tensor] | None) -> AbstractContextManager[object]:
        is_halved = self._sampling.guidance_in_one_batch and not _guides_in_one_call(self._family)
        if negative is None or not is_halved or not is_guided(self._family, self._sampling):
            return nullcontext()
        each = ExitStack()
        for model in self._models:
            each.enter_context(guidance_in_one_batch(model, negative))
        return each


@contextmanager
def guidance_in_one_batch(transformer: Any, negative: Mapping[str, Tensor]) -> Iterator[None]:
    """Let a pipeline that calls its transformer twice per step compute both in the first call.

    The second call, of the negative prompt, is answered from what the first one computed.

    Args:
        transformer: Is called with keywords, for the prompt first, and returns a tuple.
        negative: Arguments of the second call by which it differs, of the shapes of the first.
    """
    forward, is_own = transformer.forward, "forward" in vars(transformer)
    waiting = list[Tensor]()

    def both(**given: Any) -> tuple[Tensor, ...]:
        if waiting:
            return (waiting.pop(),)
        for name in {"hidden_states", "timestep", "guidance", "image_embeds"} & given.keys():
            given[name] = torch.cat([given[name], given[name]])
        for name, other in negative.items():
            given[name] = torch.cat([given[name], other.to(given[name])])
        (found,) = forward(**given)
        prompt, second = found.chunk(2)
        waiting.append(second)
        return (prompt,)

    transformer.forward = both
    try:
        yield
    finally:
        if is_own:
            transformer.forward = forward
        else:
            del transformer.forward


def _guides_in_one_call(family: Family) -> bool | None:
    """Return whether the pipeline itself does so; None = the family does not say."""
    return getattr(family, "guides_in_one_call", None)


def _check(family: Family, transformer: Any, sampling: SamplingConfig) -> None:
    name = type(transformer).__name__
    if sampling.guidance_in_one_batch and _guides_in_one_call(family) is None:
        raise ConfigError(
            f"sampling.guidance_in_one_batch must be false for {type(family).__name__}: it does "
            "not say by `guides_in_one_call` how its pipeline calls the transformer"
        )
    if sampling.step_cache == NO_CACHE:
        return
    blocks = family.blocks(transformer)
    is_known = _has_output if sampling.step_cache == TAYLORSEER else _is_known
    is_fit = getattr(family, "caches_steps", True) and hasattr(transformer, "enable_cache")
    if not (is_fit and is_known(transformer, type(blocks[0]))):
        raise ConfigError(
            f"sampling.step_cache must be none for this model: diffusers cannot put its cache of "
            f"steps into a {name}, got {sampling.step_cache}"
        )
    if len(blocks) < 2:
        raise ConfigError(
            "sampling.step_cache must be none for a transformer of one block, which is computed "
            f"in every step, got {sampling.step_cache}"
        )


def _has_output(transformer: Any, block: type) -> bool:
    """Tell whether there are the layers that TaylorSeer skips, and the one that it extrapolates."""
    seer: Any = importlib.import_module("diffusers.hooks.taylorseer_cache")
    names = {name: type(module) for name, module in transformer.named_modules()}

    def found(patterns: tuple[str, ...]) -> list[type]:
        return [
            kind for name, kind in names.items() if any(re.fullmatch(p, name) for p in patterns)
        ]

    return block in found(seer._BLOCK_IDENTIFIERS) and bool(found(seer._PROJ_OUT_IDENTIFIERS))


def _is_known(transformer: Any, block: type) -> bool:
    helpers: Any = importlib.import_module("diffusers.hooks._helpers")
    try:
        helpers.TransformerBlockRegistry.get(block)
    except ValueError:
        return False
    return True


def _cache_config(sampling: SamplingConfig) -> Any:
    from diffusers.hooks import FirstBlockCacheConfig, TaylorSeerCacheConfig

    if sampling.step_cache == TAYLORSEER:
        # In bfloat16, its default, a difference of two steps would be lost.
        return TaylorSeerCacheConfig(
            sampling.step_cache_interval, taylor_factors_dtype=torch.float32, use_lite_mode=True
        )
    return FirstBlockCacheConfig(threshold=sampling.step_cache_threshold)
