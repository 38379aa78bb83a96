"""Several processes share every video: context parallel as diffusers has it (Ulysses).

Each process holds all weights, and a share of the tokens of each video; inside attention it has all
tokens, but a share of the heads (arXiv 2309.14509). What goes into the transformer and what comes
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


def check_sharing(
    family_name: str,
    configs: Mapping[str, Mapping[str, Any]],
    sampling: SamplingConfig,
    degree: int,
    setting: str,
) -> None:
    """Check that so many processes can share a video, before any weights are read.

    Args:
        family_name: `policy.family`.
        configs: `config.json` of `transformer` and `vae`.
        sampling: The size of the videos.
        degree: Processes that share a video, >= 1.
        setting: Where the degree was set, for errors.

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
    transformer = configs["transformer"]
    tokens = num_tokens(transformer, latent_size(family, configs["vae"], sampling))
    if problem := problem_of_degree(degree, transformer["num_attention_heads"], tokens):
        raise ConfigError(f"{setting}={degree} {problem}")


def num_tokens(transformer: Mapping[str, Any], latents: tuple[int, int, int]) -> int:
    """Return the tokens of a video, from the transformer's configuration and its latents' T, H, W.

    Of latent frames that do not fill a patch one more is made (CogVideoX 1.5 pads them).
    """
    patch = transformer["patch_size"]
    if isinstance(patch, int):
        patch = (transformer.get("patch_size_t") or 1, patch, patch)
    return math.ceil(latents[0] / patch[0]) * (latents[1] // patch[1]) * (latents[2] // patch[2])


def problem_of_degree(degree: int, num_heads: int, tokens: int) -> str | None:
    """Return why so many processes cannot share a video, and how many can; None if they can."""
    if num_heads % degree == 0 and tokens % degree == 0:
        return None
    common = math.gcd(num_heads, tokens)
    possible = ", ".join(str(count) for count in range(1, common + 1) if common % count == 0)
    return (
        f"must divide the {num_heads} heads of the transformer and the {tokens} tokens of a video "
        f"of this size: one of {possible}"
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
            cannot be shared.
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
    mesh = init_device_mesh(
        next(policy.trainable_module().parameters()).device.type,
        (num_ranks // degree, 1, degree),
        mesh_dim_names=("data", "ring", "ulysses"),
    )
    parallel = ContextParallelConfig(ulysses_degree=degree, mesh=mesh)
    for network in networks:
        plan = _plan(family, network, mesh["ulysses"].get_group())
        try:
            with _some_accelerator():
                network.enable_parallelism(config=parallel, cp_plan=plan)
        except ValueError as error:  # names the attention back ends that can
            raise ConfigError(f"{degree} processes cannot share a video: {error}") from error


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
