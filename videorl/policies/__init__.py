"""The models that can be aligned: one file per diffusers family, one line each in `FAMILIES`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from videorl.config import PolicyConfig, SamplingConfig
from videorl.errors import ConfigError
from videorl.policies.checkpoints import PARTS
from videorl.settings.plugins import find, is_plugin, lacks, unknown

if TYPE_CHECKING:
    import torch

    from videorl.policies.family import Family
    from videorl.protocols import DifferentiablePolicy, Role


FAMILIES: dict[str, str] = {
    "wan": "videorl.policies.wan:Wan",
    "wan_2_2": "videorl.policies.wan_2_2:Wan22",
    "cogvideox": "videorl.policies.cogvideox:CogVideoX",
    "ltx_2": "videorl.policies.ltx_2:LTX2",
    "ltx_video": "videorl.policies.ltx_video:LTXVideo",
    "hunyuan_video": "videorl.policies.hunyuan_video:HunyuanVideo",
    "wan_i2v": "videorl.policies.wan_i2v:WanImageToVideo",
    "mochi": "videorl.policies.mochi:Mochi",
    "hunyuan_video_1_5": "videorl.policies.hunyuan_video_1_5:HunyuanVideo15",
    "open_sora": "videorl.policies.open_sora:OpenSora",
}
"""Name in `policy.family` -> the family, imported when it is used, as diffusers is heavy;
`module:attribute` there names one of your own."""


FROM_IMAGES = frozenset({"wan_i2v"})
"""Built-in families whose prompts carry a picture; one of your own says it by `takes_images`."""


WITH_SOUND = frozenset({"ltx_2"})
"""Built-in families whose candidates are picture and sound of one length in seconds."""


def takes_images(name: str) -> bool:
    """Return whether the prompts of a family carry a picture; loads no family that is built in."""
    if not is_plugin(name):
        return name in FROM_IMAGES
    return bool(getattr(find(name, FAMILIES, "policy.family"), "takes_images", False))


def load_family(name: str) -> Family:
    """Return a family of models.

    Raises:
        ConfigError: There is none of this name, or its module cannot be imported.
    """
    return find(name, FAMILIES, "policy.family")()


def problem_of_family(where: str, name: str) -> str | None:
    """Return what can be seen to be wrong with a family that a recipe names."""
    if not is_plugin(name):
        return None if name in FAMILIES else unknown(name, FAMILIES, where)
    try:
        family = find(name, FAMILIES, where)
    except ConfigError as error:
        return str(error)
    from videorl.policies.family import Family

    missing = lacks(family, Family) if callable(family) else ["it cannot be called"]
    return f"{where}={name} is no family: {', '.join(missing)}" if missing else None


def load_policy(
    config: PolicyConfig,
    sampling: SamplingConfig,
    *,
    parts: frozenset[str],
    device: torch.device | None = None,
    seed: int = 0,
    trainable: bool = False,
    keep_base: bool = False,
) -> DifferentiablePolicy:
    """Load a policy, reading from disk only the parts that this process needs.

    Args:
        config: Which model, and what of it is trained.
        sampling: How candidates are sampled.
        parts: Some of `transformer`, `vae`, `text_encoder`. A learner needs the first, a generator
            the first two, an encoder the last, which brings the second where prompts have images.
        device: Where to put them; None = the GPU if there is one.
        seed: Of newly initialised adapters; every process of a run must use the same.
        trainable: Hold trained weights in float32 with gradients, and a reference beside them.
        keep_base: Of a trainable policy all of whose weights are trained, keep a frozen copy for
            the role `base`; with adapters, it is the model without them and costs nothing.

    Raises:
        ConfigError: The family, a part or a setting is unknown or does not fit the model.
        CheckpointError: The checkpoint is missing, half-written or of another kind.
    """
    if not parts or parts - PARTS:
        raise ConfigError(f"parts must be some of {sorted(PARTS)}, got {sorted(parts)}")
    if trainable and "transformer" not in parts:
        raise ConfigError("a trainable policy needs its transformer among the parts")
    roles: set[Role] = {"policy"}
    if trainable:
        roles |= {"reference", "base"} if keep_base else {"reference"}
    family = load_family(config.family)
    if family.takes_images and "text_encoder" in parts:
        parts |= {"vae"}
    from videorl.policies.loading import load_pipeline_policy

    return load_pipeline_policy(
        family,
        config,
        sampling,
        parts=parts,
        device=device,
        seed=seed,
        roles=frozenset(roles),
    )
