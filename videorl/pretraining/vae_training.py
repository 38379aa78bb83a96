"""Train the tiny Wan VAE to preserve defects: what it smooths away cannot be aligned."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from videorl.pretraining.training_state import TrainingPlan, TrainingState, warmup_cosine
from videorl.worlds.grammar import parse, prompts
from videorl.worlds.moving_shapes import training_clip

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

PEAK_LR = 2e-3
KL_WEIGHT = 5e-5
"""Just enough to keep latents near unit scale and the decoder tolerant of small errors in them."""
FOREGROUND_WEIGHT = 8.0
"""Extra weight of a pixel on or next to the object; without it the VAE collapses to black."""
CHROMA_WEIGHT = 4.0
"""Extra weight of the error in hue: the VAE finds shapes hundreds of steps before colours."""
DIFFERENCE_WEIGHT = 2.0
"""Weight of the error of frame-to-frame changes, where flicker and jitter show."""


def clip_batch(seed: int, step: int, num_clips: int) -> tuple[Tensor, list[str]]:
    """Return training clips [B, 3, F, H, W] in [-1, 1] and prompts; a function of seed and step."""
    rng = np.random.default_rng([seed, step])
    texts = [str(text) for text in rng.choice(prompts("train"), num_clips)]
    clips = np.stack([training_clip(rng, parse(text)).frames for text in texts])
    return torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0, texts


def foreground_weights(x_BCFHW: Tensor) -> Tensor:
    """Return pixel weights [B, 1, F, H, W] of mean 1: high on the object and a pixel around it."""
    brightest = x_BCFHW.amax(dim=1, keepdim=True)
    background = brightest.amin(dim=(3, 4), keepdim=True)
    mask = (brightest - background > 0.12).float()
    mask = F.max_pool3d(mask, (1, 3, 3), stride=1, padding=(0, 1, 1))
    weights = 1.0 + FOREGROUND_WEIGHT * mask
    return weights / weights.mean()


def reconstruction_loss(y_BCFHW: Tensor, x_BCFHW: Tensor) -> Tensor:
    """Return foreground-weighted MSE (hue more) + L1/2 + MSE of frame changes."""
    weights = foreground_weights(x_BCFHW)
    error = y_BCFHW - x_BCFHW
    pixel = (weights * error.square()).mean() + 0.5 * (weights * error.abs()).mean()
    chroma = error - error.mean(dim=1, keepdim=True)
    pixel = pixel + CHROMA_WEIGHT * (weights * chroma.square()).mean()
    change = error.diff(dim=2)
    return pixel + DIFFERENCE_WEIGHT * (weights[:, :, 1:] * change.square()).mean()


def train_vae(
    vae: AutoencoderKLWan,
    plan: TrainingPlan,
    on_step: Callable[[int, float], None],
) -> None:
    """Train in place, continuing from the state in the plan's work directory if there is one.

    Args:
        vae: Changed in place; its latent statistics are not set here.
        plan: How long to train, and where to keep the state.
        on_step: Called with (step, loss) after each step.
    """
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK_LR, betas=(0.9, 0.99), weight_decay=0.0)
    state = TrainingState(plan.work_dir / "vae.pt", {"model": vae, "optimizer": optimizer})
    vae.train()
    for step in range(state.restore(), plan.steps):
        optimizer.param_groups[0]["lr"] = PEAK_LR * warmup_cosine(step, plan.steps, warmup=50)
        torch.manual_seed(plan.seed * 1_000_003 + step)
        x_BCFHW, _ = clip_batch(plan.seed, step, plan.batch_size)
        # bfloat16 halves the time on CPUs that have it; the loss stays in float32.
        with torch.autocast("cpu", dtype=torch.bfloat16):
            posterior = vae.encode(x_BCFHW, return_dict=False)[0]
            y_BCFHW = vae.decode(posterior.sample(), return_dict=False)[0]
        loss = reconstruction_loss(y_BCFHW.float(), x_BCFHW)
        total = loss + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
            state.save(step + 1)
        on_step(step + 1, float(loss.detach()))
    vae.eval()
