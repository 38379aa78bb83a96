"""Train the tiny Wan transformer by flow matching on pre-encoded clips of the imperfect data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from videorl.pretraining.checkpoint import Components, set_latent_statistics
from videorl.pretraining.training_state import TrainingPlan, TrainingState, warmup_cosine
from videorl.pretraining.vae_training import clip_batch
from videorl.worlds.grammar import prompts

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

PEAK_LR = 1.5e-3
SHIFT = 3.0
"""Training times are shifted towards noise as in sampling: t = s u / (1 + (s - 1) u)."""
PROMPT_DROPOUT = 0.1
"""Share of examples trained with the empty prompt, for classifier-free guidance."""
TEXT_TOKENS = 24
OTHER_LENGTH_SHARE = 0.1
"""Share of steps padded to another length, so that the model ignores padding of any length."""
MIN_TEXT_TOKENS = 7
MAX_TEXT_TOKENS = 512
EMA_DECAY = 0.999


@dataclass(frozen=True, slots=True)
class LatentData:
    """Encoded clips: normalised latents [N, C, T, H, W] and the row of each clip's prompt [N]."""

    latents: Tensor
    prompt_rows: Tensor


@torch.no_grad()
def encode_clips(
    vae: AutoencoderKLWan,
    *,
    num_clips: int,
    seed: int,
    on_step: Callable[[int, float], None],
    batch_size: int = 32,
) -> LatentData:
    """Encode random training clips, and set the VAE's latent statistics from them.

    Args:
        vae: A trained autoencoder; only its `latents_mean` and `latents_std` are changed.
        num_clips: Rounded up to whole batches.
        seed: Seed of the clips.
        on_step: Called with (clips done, 0.0) after each batch.
        batch_size: Clips encoded at once.
    """
    row_of = {text: row for row, text in enumerate(prompts("train"))}
    latents, rows = [], []
    for step in range(-(-num_clips // batch_size)):
        x_BCFHW, texts = clip_batch(seed + 1, step, batch_size)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z_BCTHW = vae.encode(x_BCFHW, return_dict=False)[0].mode()
        latents.append(z_BCTHW.float())
        rows.extend(row_of[text] for text in texts)
        on_step(len(rows), 0.0)
    z_NCTHW = torch.cat(latents)
    mean_C, std_C = z_NCTHW.mean(dim=(0, 2, 3, 4)), z_NCTHW.std(dim=(0, 2, 3, 4))
    set_latent_statistics(vae, mean_C.tolist(), std_C.tolist())
    view = (1, -1, 1, 1, 1)
    return LatentData((z_NCTHW - mean_C.view(view)) / std_C.view(view), torch.tensor(rows))


@torch.no_grad()
def embed_prompts(components: Components, texts: Sequence[str]) -> Tensor:
    """Return embeddings [N, L, D] exactly like `WanPipeline`: zeros after the last token."""
    batch = components["tokenizer"](
        list(texts), padding="max_length", max_length=TEXT_TOKENS, return_tensors="pt"
    )
    mask = batch["attention_mask"]
    return components["text_encoder"](batch["input_ids"], mask).last_hidden_state * mask[..., None]


def train_policy(
    components: Components,
    data: LatentData,
    plan: TrainingPlan,
    on_step: Callable[[int, float], None],
) -> None:
    """Train the transformer in place; at the end it holds the averaged (EMA) weights.

    Continues from the state in the plan's work directory if there is one.

    Args:
        components: The checkpoint's parts; only the transformer is trained.
        data: Clips that were encoded with the VAE of `components`.
        plan: How long to train, and where to keep the state.
        on_step: Called with (step, loss) after each step.
    """
    model = components["transformer"].train()
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.01
    )
    parts = {"model": model, "average": average, "optimizer": optimizer}
    state = TrainingState(plan.work_dir / "policy.pt", parts)
    embeds_NLD = embed_prompts(components, [*prompts("train"), ""])
    for step in range(state.restore(), plan.steps):
        generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + step)
        optimizer.param_groups[0]["lr"] = PEAK_LR * warmup_cosine(step, plan.steps, warmup=200)
        loss = flow_matching_loss(model, data, embeds_NLD, plan.batch_size, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        _update_average(average, model, step)
        if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
            state.save(step + 1)
        on_step(step + 1, float(loss.detach()))
    model.load_state_dict(average.state_dict())
    model.eval()


def flow_matching_loss(
    model: Any, data: LatentData, embeds_NLD: Tensor, batch_size: int, generator: torch.Generator
) -> Tensor:
    """Return the mean squared error of the predicted velocity (noise - x_0) on a random batch.

    Args:
        model: The transformer.
        data: Clips to choose the batch from.
        embeds_NLD: One embedding per prompt row, the empty prompt last.
        batch_size: Clips in the batch.
        generator: Source of the batch, the times and the noise.
    """
    picks_B = torch.randint(len(data.latents), (batch_size,), generator=generator)
    x_0 = data.latents[picks_B]
    rows_B = data.prompt_rows[picks_B]
    dropped_B = torch.rand(batch_size, generator=generator) < PROMPT_DROPOUT
    text_BLD = embeds_NLD[rows_B.masked_fill(dropped_B, len(embeds_NLD) - 1)]
    u_B = torch.rand(batch_size, generator=generator)
    t_B = SHIFT * u_B / (1.0 + (SHIFT - 1.0) * u_B)
    noise = torch.randn(x_0.shape, generator=generator)
    x_t = torch.lerp(x_0, noise, t_B.view(-1, 1, 1, 1, 1))
    velocity = model(
        hidden_states=x_t,
        timestep=t_B * 1000.0,
        encoder_hidden_states=_repad(text_BLD, generator),
        return_dict=False,
    )[0]
    return F.mse_loss(velocity, noise - x_0)


def _repad(text_BLD: Tensor, generator: torch.Generator) -> Tensor:
    """In a share of the steps, change the zero padding to a random length of 7 to 512 tokens."""
    share, size = torch.rand(2, generator=generator).tolist()
    if share >= OTHER_LENGTH_SHARE:
        return text_BLD
    length = int(MIN_TEXT_TOKENS * (MAX_TEXT_TOKENS / MIN_TEXT_TOKENS) ** size)
    return F.pad(text_BLD, (0, 0, 0, length - text_BLD.shape[1]))


@torch.no_grad()
def _update_average(average: Any, model: Any, step: int) -> None:
    decay = min(EMA_DECAY, (step + 1) / (step + 10))
    for kept, live in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(live, 1.0 - decay)
