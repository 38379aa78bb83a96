"""Make the embedded Moving Shapes checkpoint from nothing: VAE, then policy, then measure it.

    python -m jobs.workshop.pretrain all --out runs/moving_shapes_wan --seed 0

Every stage goes on where it was stopped: its state is kept in the work directory.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videorl.errors import CheckpointError, VideorlError

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

    from videorl.pretraining.policy_training import LatentData

OnStep = Callable[[int, float], None]


def build_parser() -> argparse.ArgumentParser:
    """The command line; importing this module loads nothing heavy."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.workshop.pretrain",
        description="Train the tiny Wan checkpoint that the default recipe aligns.",
    )
    parser.add_argument(
        "stage",
        choices=("vae", "policy", "all", "measure"),
        help="vae, then policy, which writes the checkpoint; all: both; measure: what it can do",
    )
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--work-dir", type=Path, default=None, help="states (default: OUT-work)")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of weights, clips and noise (default: %(default)s)",
    )
    parser.add_argument(
        "--vae-steps", type=int, default=2100, help="VAE steps in all (default: %(default)s)"
    )
    parser.add_argument(
        "--vae-batch", type=int, default=6, help="clips per VAE step (default: %(default)s)"
    )
    parser.add_argument(
        "--policy-steps", type=int, default=9000, help="policy steps in all (default: %(default)s)"
    )
    parser.add_argument(
        "--policy-batch", type=int, default=24, help="clips per policy step (default: %(default)s)"
    )
    parser.add_argument(
        "--clips",
        type=int,
        default=8192,
        help="clips encoded for the policy (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument(
        "--prompts", type=int, default=32, help="measure: train prompts (default: %(default)s)"
    )
    parser.add_argument(
        "--samples", type=int, default=16, help="measure: samples per prompt (default: %(default)s)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one stage and return the exit code; 2 for an error that the user can mend."""
    options = build_parser().parse_args(argv)
    if options.work_dir is None:
        options.work_dir = options.out.with_name(options.out.name + "-work")
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    import torch

    torch.set_num_threads(options.threads)
    try:
        if options.stage in ("vae", "all"):
            train_vae_stage(options)
        if options.stage in ("policy", "all"):
            train_policy_stage(options)
        if options.stage == "measure":
            measure_stage(options)
    except VideorlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def train_vae_stage(options: argparse.Namespace) -> None:
    """Train the VAE; its state, and so its weights, stay in the work directory."""
    from videorl.pretraining.checkpoint import build_components
    from videorl.pretraining.training_state import TrainingPlan
    from videorl.pretraining.vae_training import train_vae

    plan = TrainingPlan(options.vae_steps, options.vae_batch, options.seed, options.work_dir)
    with progress("VAE", plan.steps) as on_step:
        train_vae(build_components(options.seed)["vae"], plan, on_step)


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
    with progress("policy", plan.steps) as on_step:
        train_policy(components, data, plan, on_step)
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
    with progress("sampling", options.prompts) as on_step:
        scores = policy_scores(
            pipeline,
            num_prompts=options.prompts,
            num_samples=options.samples,
            seed=options.seed,
            on_step=on_step,
        )
    report["policy_mean"] = {name: float(values.mean()) for name, values in scores.items()}
    counts = [k for k in (1, 2, 4, 8, 16, 32) if k <= options.samples]
    report["policy_best_of"] = {str(k): best_of(scores["total"], k) for k in counts}
    print(json.dumps(report, indent=2))


def _encoded(vae: AutoencoderKLWan, options: argparse.Namespace) -> LatentData:
    """The clips as latents, from the work directory if they were encoded before."""
    import torch

    from videorl.pretraining.checkpoint import set_latent_statistics
    from videorl.pretraining.policy_training import LatentData, encode_clips

    path = options.work_dir / "latents.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True)
        set_latent_statistics(vae, saved["mean"], saved["std"])
        return LatentData(saved["latents"], saved["prompt_rows"])
    with progress("encoding", options.clips) as on_step:
        data = encode_clips(vae, num_clips=options.clips, seed=options.seed, on_step=on_step)
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


@contextmanager
def progress(name: str, total: int) -> Iterator[OnStep]:
    """A progress bar with the last value, and its callback; a line now and then in a log file."""
    if not sys.stderr.isatty():
        every = max(1, total // 50)
        yield (
            lambda step, value: (
                print(f"{name} {step}/{total} {value:.4f}", flush=True)
                if step % every == 0
                else None
            )
        )
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[value]:.4f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=total, value=0.0)
        yield lambda step, value: bar.update(task, completed=step, value=value)


if __name__ == "__main__":
    raise SystemExit(main())
