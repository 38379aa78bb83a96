"""ImageReward (arXiv 2304.05977): a BLIP trained on experts' rankings of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from videorl.errors import CheckpointError
from videorl.rewards.checkpoints import find_folder, pretrained_tokenizer
from videorl.rewards.images.clip_pixels import float_pixels, pil_pixels
from videorl.rewards.images.image_reward_network import load_network
from videorl.rewards.per_frame import ImageScorer, PerFrameReward
from videorl.rewards.placement import placement
from videorl.rewards.videos import check_prompts

if TYPE_CHECKING:
    from transformers import BertTokenizer

FILE = "ImageReward.pt"
CHECKPOINT_FILES = (FILE, "med_config.json")
BERT = "google-bert/bert-base-uncased"
BASE_FILES = ("*.json", "*.txt")
"""What is read of BERT: all weights are in the checkpoint."""
BLIP_TOKENS = ("[DEC]", "[ENC]")
"""Tokens that BLIP adds to BERT's; ImageReward uses neither in prompts."""
MAX_TOKENS = 35
"""Longer prompts are cut, as in the authors' code."""


class BertPrompts:
    """Turns prompts into padded BERT tokens, which the network reads with the picture."""

    def __init__(self, tokenizer: BertTokenizer, device: torch.device) -> None:
        """Use `tokenizer`; its special tokens are refused in prompts."""
        special = [token.content for token in tokenizer.added_tokens_decoder.values()]
        self._reserved = (*special, *BLIP_TOKENS)
        self._tokenizer, self._device = tokenizer, device

    def check(self, prompts: Sequence[str]) -> None:
        """Raise `PromptError` for a prompt that is empty or contains a special token."""
        check_prompts(prompts, self._reserved)

    def read(self, prompt: str) -> Tensor:
        """Return token ids [MAX_TOKENS]."""
        options = {"padding": "max_length", "truncation": True, "max_length": MAX_TOKENS}
        return torch.tensor(self._tokenizer(prompt, **options)["input_ids"], device=self._device)


def load_image_reward(
    path: str,
    *,
    base: str = BERT,
    device: str | None = None,
    dtype: str = "float32",
    **frames: Any,
) -> PerFrameReward:
    """Load ImageReward from its published layout.

    Args:
        path: Folder or hub id with `ImageReward.pt` and `med_config.json`.
        base: Folder or hub id of BERT (uncased), of which only the tokenizer is read.
        device: Where the model runs; None = the GPU if there is one.
        dtype: Type of BLIP; the head always computes in float32.
        frames: `num_frames` and `batch_frames` of `PerFrameReward`.

    Raises:
        CheckpointError: Files or tensors are missing, unexpected, damaged or of a wrong shape.
        ConfigError: An option has an impossible value.
    """
    from transformers import BertTokenizer

    where, kind = placement("an image reward", device, dtype)
    folder = find_folder(path, CHECKPOINT_FILES)
    if not (folder / FILE).is_file():
        raise CheckpointError(f"{folder / FILE} is missing from the checkpoint")
    network = load_network(folder, folder / FILE, kind).to(where)
    base_folder = find_folder(base, BASE_FILES)
    tokenizer = pretrained_tokenizer(BertTokenizer, base_folder, ("tokenizer.json", "vocab.txt"))
    prompts = BertPrompts(tokenizer, where)
    config: Any = network.vision.config
    pixels = partial(pil_pixels, side_px=config.image_size)
    floats = partial(float_pixels, side_px=config.image_size, is_clamped=True)
    scorer = ImageScorer("preference", network, pixels, floats, prompts, where)
    return PerFrameReward(scorer, **frames)
