"""Several processes share every video: context parallel as diffusers has it (Ulysses or ring).

Each process holds all weights, and a share of the tokens of each video. Inside attention it has all
tokens, but a share of the heads (Ulysses, arXiv 2309.14509); or it keeps its queries with all heads
and meets one share of the keys and values after the other, whose results are put together by the
normalisers of their softmax (ring, arXiv 2310.01889; diffusers gathers keys and values first, so
that each process holds those of a layer whole). What goes into the transformer and what comes
out of it is whole, and the same in every process of a group. So is the gradient that comes in; each
process then finds a part of the gradient of every weight, and the *sum* of the parts over the group
is the gradient that one process alone finds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh

from videorl.config import PolicyConfig, SamplingConfig
from videorl.errors import ConfigError
from videorl.policies import load_family
from videorl.policies.experts import models_of
from videorl.policies.family import Family, latent_size
from videorl.policies.ring import prepare_ring

_NAMED = 12
"""Possible numbers of processes that an error names."""


def check_sharing(
    family_name: str,
    configs: Mapping[str, Mapping[str, Any]],
    sampling: SamplingConfig,
    degree: int,
    setting: str,
    *,
    by_ring: bool = False,
) -> None:
    """Check that so many processes can share a video, before any weights are read.

    Args:
        family_name: `policy.family`.
        configs: `config.json` of `transformer` and `vae`.
        sampling: The size of the videos.
        degree: Processes that share a video, >= 1.
        setting: Where the degree was set, for errors.
        by_ring: `policy.context_parallel` is `ring`.

    Raises:
        ConfigError: The family cannot be shared, or `degree` does not divide heads or tokens.
    """
    if degree == 1:
        return
    family = load_family(family_name)
    if not _has_plan(family):
        raise ConfigError(
            f"{setting}={degree}, but videos of policy.family={family_name} cannot be shared: "
            f"{family.model_classes['transformer'].__name__} has no `_cp_plan` in diffusers that "
            "fits, and the family no `context_parallel_plan` (docs/extending.md); set "
            f"{setting}=1"
        )
    if by_ring and not getattr(family, "shares_by_ring", False):
        raise ConfigError(
            f"policy.context_parallel must be ulysses for policy.family={family_name}, got ring: "
            "its attention is not shared as diffusers' ring attention needs it"
        )
    transformer = configs["transformer"]
    tokens = num_tokens(transformer, latent_size(family, configs["vae"], sampling))
    heads = None if by_ring else transformer["num_attention_heads"]
    if problem := problem_of_degree(degree, heads, tokens):
        raise ConfigError(f"{setting}={degree} {problem}")


def num_tokens(transformer: Mapping[str, Any], latents: tuple[int, int, int]) -> int:
    """Return the tokens of a video, from the transformer's configuration and its latents' T, H, W.

    Of latent frames that do not fill a patch one more is made (CogVideoX 1.5 pads them).
    """
    patch = transformer["patch_size"]
    if isinstance(patch, int):
        patch = (transformer.get("patch_size_t") or 1, patch, patch)
    return math.ceil(latents[0] / patch[0]) * (latents[1] // patch[1]) * (latents[2] // patch[2])


def problem_of_degree(degree: int, num_heads: int | None, tokens: int) -> str | None:
    """Return why so many processes cannot share a video, and how many can; None if they can.

    Args:
        degree: Number of processes.
        num_heads: Heads of attention; None = they are not divided, as in a ring.
        tokens: Of a video.
    """
    common = tokens if num_heads is None else math.gcd(num_heads, tokens)
    if common % degree == 0:
        return None
    divisors = [count for count in range(1, common + 1) if common % count == 0]
    possible = ", ".join(str(count) for count in divisors[:_NAMED])
    more = " ..." if len(divisors) > _NAMED else ""
    heads = "" if num_heads is None else f"the {num_heads} heads of the transformer and "
    return (
        f"must divide {heads}the {tokens} tokens of a video of this size: one of {possible}{more}"
    )


def share_videos(policy: Any, config: PolicyConfig, degree: int) -> None:
    """Have each group of `degree` consecutive ranks of torch.distributed share every video.

    All ranks call it, once, with torch.distributed initialised. Then all ranks of a group must
    predict and sample the same.

    Args:
        policy: A `PipelinePolicy` with its transformer.
        config: What it was loaded from.
        degree: Ranks that share a video; 1 = none do, and nothing is changed.

    Raises:
        ConfigError: The number of ranks is no multiple of `degree`, or the attention back end
            cannot be shared, or not in this way on this device.
    """
    if degree == 1:
        return
    num_ranks = torch.distributed.get_world_size()
    if num_ranks % degree:
        raise ConfigError(
            f"{degree} processes are to share a video, but the group has {num_ranks}: their "
            "number must be a multiple"
        )
    from diffusers import ContextParallelConfig

    family = load_family(config.family)
    # By identity: a frozen expert may be part of the networks of several roles.
    networks = {
        id(model): model for each in policy.networks() for model in models_of(each).values()
    }.values()
    way = config.context_parallel
    degrees = {"ring": 1, "ulysses": 1} | {way: degree}
    device = next(policy.trainable_module().parameters()).device
    mesh = init_device_mesh(
        device.type,
        (num_ranks // degree, *degrees.values()),
        mesh_dim_names=("data", *degrees),
    )
    parallel = ContextParallelConfig(
        ring_degree=degrees["ring"], ulysses_degree=degrees["ulysses"], mesh=mesh
    )
    for network in networks:
        plan = _plan(family, network, mesh[way].get_group())
        try:
            with _some_accelerator():
                network.enable_parallelism(config=parallel, cp_plan=plan)
        except ValueError as error:  # names the attention back ends that can
            raise ConfigError(f"{degree} processes cannot share a video: {error}") from error
    if way == "ring":
        prepare_ring(config, parallel, device)


def _has_plan(family: Family) -> bool:
    if not getattr(family, "shares_videos", True):
        return False
    has_own = hasattr(family, "context_parallel_plan")
    return has_own or getattr(family.model_classes["transformer"], "_cp_plan", None) is not None


def _plan(family: Any, network: Any, group: Any) -> Any:
    """Return what diffusers is to split and to gather, None = as the transformer's class says."""
    if hasattr(family, "context_parallel_plan"):
        return family.context_parallel_plan(network, group)
    return None


@contextmanager
def _some_accelerator() -> Iterator[None]:
    """Let diffusers find a device: it divides by the number of accelerators, 0 on a CPU."""
    counted = torch.accelerator.device_count
    if counted() == 0:
        torch.accelerator.device_count = lambda: 1
    try:
        yield
    finally:
        torch.accelerator.device_count = counted
