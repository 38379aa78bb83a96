"""How the settings of a recipe reach the stock pipeline and the solver of its checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videorl.config import SamplingConfig
from videorl.errors import CheckpointError, ConfigError
from videorl.policies.checkpoints import read_json


def read_scheduler(folder: Path, index: Mapping[str, Any], sampling: SamplingConfig) -> Any:
    """Return the scheduler of a checkpoint.

    Args:
        folder: The checkpoint.
        index: Content of its `model_index.json`.
        sampling: Its `flow_shift` replaces the checkpoint's, unless it is None.

    Raises:
        CheckpointError: It is none of diffusers' schedulers.
        ConfigError: A shift is set, but the scheduler has none.
    """
    import diffusers

    kind = getattr(diffusers, index["scheduler"][1], None)
    # Pipelines of diffusers, which have a `from_pretrained` too, run code that lies in the folder.
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise CheckpointError(
            f"{folder / 'model_index.json'}: scheduler must be one of diffusers' schedulers, got "
            f"{index['scheduler'][1]!r}"
        )
    shift: dict[str, Any] = (
        {} if sampling.flow_shift is None else _shift(folder, kind, sampling.flow_shift)
    )
    return kind.from_pretrained(folder / "scheduler", **shift)


def _shift(folder: Path, kind: Any, shift: float) -> dict[str, Any]:
    config = read_json(folder / "scheduler/scheduler_config.json")
    known = inspect.signature(kind).parameters
    if "flow_shift" in known and config.get("use_flow_sigmas"):
        return {"flow_shift": shift}
    if "shift" in known and not config.get("use_dynamic_shifting"):
        return {"shift": shift}
    raise ConfigError(
        f"sampling.flow_shift must be null for this checkpoint, whose {kind.__name__} has no fixed "
        f"shift of its noise levels, got {shift:g}"
    )


_JOINT_GUIDANCE: Mapping[str, Any] = {
    "audio_guidance_scale": None,
    "stg_scale": 0.0,
    "stg_blocks": [],
    "modality_scale": 1.0,
    "guidance_rescale": 0.0,
}
"""Setting that only LTX-2 has -> its value for all other models."""


def _refuse_joint_guidance(sampling: SamplingConfig) -> None:
    for name, off in _JOINT_GUIDANCE.items():
        if (value := getattr(sampling, name)) != off:
            wanted = "null" if off is None else f"{off}"
            raise ConfigError(
                f"sampling.{name} must be {wanted} for this model: only LTX-2 "
                f"(policy.family=ltx_2) has it, got {value}"
            )


def call_options(pipeline_class: Any, sampling: SamplingConfig) -> dict[str, Any]:
    """Return what of the settings every call of the stock pipeline takes.

    Raises:
        ConfigError: A kind of guidance is on that this pipeline does not have.
    """
    options: dict[str, Any] = {
        "num_frames": sampling.num_frames,
        "height": sampling.height,
        "width": sampling.width,
        "num_inference_steps": sampling.num_inference_steps,
        "guidance_scale": sampling.guidance_scale,
    }
    known = inspect.signature(pipeline_class.__call__).parameters
    if "true_cfg_scale" in known:
        options["true_cfg_scale"] = sampling.true_guidance_scale
    elif sampling.true_guidance_scale != 1:
        raise ConfigError(
            "sampling.true_guidance_scale must be 1 for this model, whose guidance by the negative "
            f"prompt is sampling.guidance_scale, got {sampling.true_guidance_scale:g}"
        )
    if sampling.guidance_scale_2 is not None:
        raise ConfigError(
            "sampling.guidance_scale_2 must be null for this model: only Wan 2.2 A14B "
            f"(policy.family=wan_2_2) has a second transformer, got {sampling.guidance_scale_2}"
        )
    if "modality_scale" not in known:
        _refuse_joint_guidance(sampling)
    if not sampling.dynamic_guidance:
        return options
    if "use_dynamic_cfg" not in known:
        raise ConfigError(
            "sampling.dynamic_guidance must be false for this model: only the pipeline of "
            f"CogVideoX has it, and this is a {pipeline_class.__name__}"
        )
    return {**options, "use_dynamic_cfg": True}
