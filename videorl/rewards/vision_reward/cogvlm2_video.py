"""CogVLM2-Video without remote code: a picture tower and a plain Llama, from published tensors.

A conversation is a *prefix* (begin of text, then for each frame its picture tokens and its second
as text) and a *suffix* (the question). Many suffixes are answered in one pass: they follow each
other in one sequence, but each sees only the prefix and itself, and its positions continue those of
the prefix. So every question gets the same answer as alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from videorl.errors import CheckpointError
from videorl.rewards.checkpoints import empty_parameters, load_strictly, read_json, read_tensors
from videorl.rewards.vision_reward.eva2_clip import EVA2CLIP, VisionSizes

if TYPE_CHECKING:
    from transformers import LlamaConfig

ROPE_THETA = 500_000.0
"""Base of the rotary frequencies in the authors' code; heads are rotated by halves."""

_FUSED = ".self_attn.language_expert_query_key_value.weight"
_FREQUENCIES = ".self_attn.rotary_emb.inv_freq"
_RENAMED = {
    ".self_attn.language_expert_dense.": ".self_attn.o_proj.",
    ".mlp.language_mlp.": ".mlp.",
    "model.vision.": "vision.",
    "model.": "language.",
}
"""Part of a published name -> name here; applied in this order."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """A video as the language model reads it: the embedding and the position of each token."""

    embeds_LD: Tensor
    positions_L: Tensor

    @property
    def next_position(self) -> int:
        """Position of the first token of a question."""
        return int(self.positions_L[-1]) + 1


class CogVLM2Video(nn.Module):
    """Reads frames and computes the first token of the answers to questions."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Build the network from the content of a `config.json`.

        Raises:
            CheckpointError: A size is missing.
        """
        from transformers import LlamaModel

        super().__init__()
        self.llama_config = _llama_config(config)
        width = self.llama_config.hidden_size
        self.language = LlamaModel(self.llama_config)
        self.vision = EVA2CLIP(_vision_sizes(config), width, self.llama_config.intermediate_size)
        self.lm_head = nn.Linear(width, self.llama_config.vocab_size, bias=False)

    def encode_frames(self, pixels_FCHW: Tensor) -> Tensor:
        """Return the picture tokens of each frame, [F, num_tokens, width]."""
        return self.vision(pixels_FCHW.to(self.lm_head.weight))

    def prefix(self, frames_FLD: Tensor, bos: int, frame_labels: Sequence[Sequence[int]]) -> Prefix:
        """Return everything before the question.

        Args:
            frames_FLD: What `encode_frames` returned.
            bos: Token that begins a text.
            frame_labels: For each frame, the tokens that follow it.
        """
        embed = self.language.embed_tokens
        device = frames_FLD.device
        parts = [embed(torch.tensor([bos], device=device))]
        for frame_LD, label in zip(frames_FLD, frame_labels, strict=True):
            parts += [frame_LD, embed(torch.tensor(label, device=device))]
        positions = prefix_positions(frames_FLD.shape[1], [len(label) for label in frame_labels])
        return Prefix(torch.cat(parts), positions.to(device))

    def answer_logits(self, prefix: Prefix, suffixes: Sequence[Sequence[int]]) -> Tensor:
        """Return float32 logits [suffixes, vocabulary] of the first token after each suffix.

        Args:
            prefix: What `prefix` returned for the video.
            suffixes: Tokens of each question, at least one.
        """
        device = prefix.embeds_LD.device
        lengths = torch.tensor([len(prefix.embeds_LD), *map(len, suffixes)], device=device)
        tokens = torch.tensor([token for suffix in suffixes for token in suffix], device=device)
        start = prefix.next_position
        own = [torch.arange(start, start + len(suffix), device=device) for suffix in suffixes]
        hidden_LD = self.language(
            inputs_embeds=torch.cat([prefix.embeds_LD, self.language.embed_tokens(tokens)])[None],
            attention_mask=shared_prefix_mask(lengths)[None, None],
            position_ids=torch.cat([prefix.positions_L, *own])[None],
            use_cache=False,
        ).last_hidden_state[0]
        return self.lm_head(hidden_LD[lengths.cumsum(0)[1:] - 1]).float()


def prefix_positions(num_tokens: int, label_lengths: Sequence[int]) -> Tensor:
    """Return the position of each prefix token; all patches of a frame have the same.

    Args:
        num_tokens: Tokens of a frame; the first and the last are begin and end of image.
        label_lengths: For each frame, the number of text tokens that follow it.
    """
    frame = [1, 1] + [0] * (num_tokens - 3) + [1]
    steps = [0]
    for length in label_lengths:
        steps += frame + [1] * length
    return torch.tensor(steps).cumsum(0)


def shared_prefix_mask(lengths: Tensor) -> Tensor:
    """Return which tokens each sees, bool [L, L]: earlier ones of the prefix and of its own part.

    Args:
        lengths: Number of tokens of the prefix, then of each suffix.
    """
    part = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    mask = (part[:, None] == part[None, :]) | (part[None, :] == 0)
    return mask.tril()


def load(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> CogVLM2Video:
    """Load a published checkpoint; on the CPU, tensors already in `dtype` stay memory-mapped.

    Args:
        folder: Has `config.json` and safetensors, whole or sharded with an index.
        device: Where the model runs.
        dtype: Type for the weights; None keeps each as stored.

    Raises:
        CheckpointError: A file is missing or damaged, or tensors are missing, unexpected, of
            another shape, or for another rotary embedding.
    """
    config = read_json(folder / "config.json")
    with empty_parameters():
        model = CogVLM2Video(config)
    tensors = read_tensors(folder)
    load_strictly(model, our_layout(tensors, model.llama_config, folder), source=folder)
    # Tensor by tensor, so that a float32 checkpoint is never in memory as a whole.
    model.to(device=device, dtype=dtype)
    # Positions must not be rounded to bfloat16 with the weights.
    model.language.rotary_emb = type(model.language.rotary_emb)(model.llama_config).to(device)
    return model.eval().requires_grad_(False)


def our_layout(
    tensors: Mapping[str, Tensor], config: LlamaConfig, source: Path
) -> dict[str, Tensor]:
    """Return the published tensors under the names of `CogVLM2Video`, as views.

    Args:
        tensors: Published name -> value. Fused rows are queries, keys, values, in this order.
        config: Sizes of the language model.
        source: Path to name in errors.

    Raises:
        CheckpointError: A fused tensor or the rotary frequencies do not fit `config`.
    """
    renamed: dict[str, Tensor] = {}
    for published, tensor in tensors.items():
        if published.endswith(_FREQUENCIES):
            _check_frequencies(published, tensor, config, source)
            continue
        name = published
        for old, new in _RENAMED.items():
            name = name.replace(old, new)
        if name.endswith(_FUSED):
            grouped = config.num_key_value_heads or config.num_attention_heads
            heads = (config.num_attention_heads, grouped, grouped)
            rows = [number * _head_width(config) for number in heads]
            if len(tensor) != sum(rows):
                raise CheckpointError(
                    f"{source}: {published!r} has {len(tensor)} rows, expected {sum(rows)}"
                )
            for letter, part in zip("qkv", tensor.split(rows), strict=True):
                renamed[name.replace(_FUSED, f".self_attn.{letter}_proj.weight")] = part
        else:
            renamed[name] = tensor
    return renamed


def _head_width(config: LlamaConfig) -> int:
    return config.hidden_size // config.num_attention_heads


def _check_frequencies(name: str, stored: Tensor, config: LlamaConfig, source: Path) -> None:
    width = _head_width(config)
    exponents = torch.arange(0, width, 2) / width
    wanted = ROPE_THETA**-exponents
    # One per cent allows for a copy in bfloat16, but not for another base.
    if stored.shape != wanted.shape or not torch.allclose(stored.float(), wanted, rtol=1e-2):
        raise CheckpointError(
            f"{source}: {name!r} holds other rotary frequencies than those of base {ROPE_THETA:g} "
            f"for heads of {width}; this is another model than CogVLM2-Video"
        )


def _llama_config(config: Mapping[str, Any]) -> LlamaConfig:
    from transformers import LlamaConfig

    names = {
        "hidden_size": "hidden_size",
        "intermediate_size": "intermediate_size",
        "num_hidden_layers": "num_hidden_layers",
        "num_attention_heads": "num_attention_heads",
        "num_multi_query_heads": "num_key_value_heads",
        "vocab_size": "vocab_size",
        "rms_norm_eps": "rms_norm_eps",
        "max_position_embeddings": "max_position_embeddings",
    }
    _require(config, names, "config.json")
    made = LlamaConfig(
        **{ours: config[theirs] for theirs, ours in names.items()},
        hidden_act="silu",
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
    )
    # The only implementation that takes a custom mask and runs everywhere.
    made._attn_implementation = "sdpa"
    return made


def _vision_sizes(config: Mapping[str, Any]) -> VisionSizes:
    vision = config.get("vision_config", {})
    names = [field.name for field in fields(VisionSizes)]
    _require(vision, names, "config.json: vision_config")
    return VisionSizes(**{name: vision[name] for name in names})


def _require(config: Mapping[str, Any], names: Any, where: str) -> None:
    if missing := [name for name in names if name not in config]:
        raise CheckpointError(f"{where} lacks {', '.join(missing)}; is this a CogVLM2-Video?")
