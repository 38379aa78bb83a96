"""Make the embedded Moving Shapes checkpoint from nothing: VAE, then policy, then measure it.

    python -m jobs.workshop.pretrain all --out runs/moving_shapes_wan --seed 0

Every stage goes on where it was stopped: its state is kept in the work directory.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import command
from videorl.errors import CheckpointError
from videorl.run.progress import progress

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

    from videorl.pretraining.policy_training import LatentData


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("python -m jobs.workshop.pretrain", __doc__)
    text = "vae, then policy, which writes the checkpoint; all: both; measure: what it can do"
    parser.add_argument("stage", choices=("vae", "policy", "all", "measure"), help=text)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--work-dir", type=Path, help="folder of the states (default: OUT-work)")
    command.add_option(parser, "--seed", 0, "seed of weights, clips and noise")
    command.add_option(parser, "--vae-steps", 2100, "VAE steps in all")
    command.add_option(parser, "--vae-batch", 6, "clips per VAE step")
    command.add_option(parser, "--policy-steps", 9000, "policy steps in all")
    command.add_option(parser, "--policy-batch", 24, "clips per policy step")
    command.add_option(parser, "--clips", 8192, "clips encoded for the policy")
    command.add_option(parser, "--threads", 1, "CPU threads")
    command.add_option(parser, "--prompts", 32, "measure: train prompts")
    command.add_option(parser, "--samples", 16, "measure: samples per prompt")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage, or all of them."""
    options = _parser().parse_args(argv)
    if options.work_dir is None:
        options.work_dir = options.out.with_name(options.out.name + "-work")
    command.output_folder(options.work_dir, "--work-dir")
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    import torch

    torch.set_num_threads(options.threads)
    if options.stage in ("vae", "all"):
        train_vae_stage(options)
    if options.stage in ("policy", "all"):
        train_policy_stage(options)
    if options.stage == "measure":
        measure_stage(options)
    return 0


def train_vae_stage(options: argparse.Namespace) -> None:
    """Train the VAE; its state, and so its weights, stay in the work directory."""
    from videorl.pretraining.checkpoint import build_components
    from videorl.pretraining.training_state import TrainingPlan
    from videorl.pretraining.vae_training import train_vae

    plan = TrainingPlan(options.vae_steps, options.vae_batch, options.seed, options.work_dir)
    with progress("VAE", plan.steps) as reach:
        train_vae(build_components(options.seed)["vae"], plan, reach)


def train_policy_stage(options: argparse.Namespace) -> None:
    """Encode the clips, train the transformer on them and write the checkpoint."""
    from videorl.pretraining.checkpoint import build_components, save_checkpoint
    from videorl.pretraining.policy_training import train_policy
    from videorl.pretraining.training_state import TrainingPlan, TrainingState

    components = build_components(options.seed)
    path = options.work_dir / "vae.pt"
    if TrainingState(path, {"model": components["vae"]}).restore() == 0:
        raise CheckpointError(f"no trained VAE at {path}: run the vae stage first")
    data = _encoded(components["vae"], options)
    plan = TrainingPlan(options.policy_steps, options.policy_batch, options.seed, options.work_dir)
    with progress("policy", plan.steps) as reach:
        train_policy(components, data, plan, reach)
    save_checkpoint(components, options.out)
    print(f"wrote {options.out}")


def measure_stage(options: argparse.Namespace) -> None:
    """Print the VAE's round trip per defect and the policy's best-of-K on train prompts."""
    import torch
    from diffusers import WanPipeline

    from videorl.pretraining.measuring import best_of, policy_scores, round_trip

    if not (options.out / "model_index.json").is_file():
        raise CheckpointError(f"{options.out} is not a diffusers checkpoint: no model_index.json")
    pipeline = WanPipeline.from_pretrained(str(options.out), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    report: dict[str, Any] = {"round_trip": round_trip(pipeline.vae, num_clips=64, seed=0)}
    with progress("sampling", options.prompts) as reach:
        scores = policy_scores(
            pipeline,
            num_prompts=options.prompts,
            num_samples=options.samples,
            seed=options.seed,
            on_step=reach,
        )
    report["policy_mean"] = {name: float(values.mean()) for name, values in scores.items()}
    counts = [k for k in (1, 2, 4, 8, 16, 32) if k <= options.samples]
    report["policy_best_of"] = {str(k): best_of(scores["total"], k) for k in counts}
    print(json.dumps(report, indent=2))


def _encoded(vae: AutoencoderKLWan, options: argparse.Namespace) -> LatentData:
    """Return the clips as latents, from the work directory if they were encoded before."""
    import torch

    from videorl.pretraining.checkpoint import set_latent_statistics
    from videorl.pretraining.policy_training import LatentData, encode_clips

    path = options.work_dir / "latents.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True)
        set_latent_statistics(vae, saved["mean"], saved["std"])
        return LatentData(saved["latents"], saved["prompt_rows"])
    with progress("encoding", options.clips) as reach:
        data = encode_clips(vae, num_clips=options.clips, seed=options.seed, on_step=reach)
    saved = {
        "latents": data.latents,
        "prompt_rows": data.prompt_rows,
        "mean": list(vae.config["latents_mean"]),
        "std": list(vae.config["latents_std"]),
    }
    temporary = path.with_suffix(".tmp")
    torch.save(saved, temporary)
    os.replace(temporary, path)
    return data


if __name__ == "__main__":
    raise SystemExit(command.run(main))
