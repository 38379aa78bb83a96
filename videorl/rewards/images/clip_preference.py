"""CLIP models trained to give the preferred of two pictures the larger cosine with the prompt.

PickScore and HPSv2 differ in the names of their tensors, in scale and in preprocessing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videorl.errors import CheckpointError
from videorl.rewards.checkpoints import pretrained_tokenizer, read_json
from videorl.rewards.videos import check_prompts

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

CLIP_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""The model that both were trained from, of which tokenizer and configuration are read."""
BASE_FILES = ("*.json", "*.txt")


class ClipPreference(nn.Module):
    """A CLIP that scores by the cosine of picture and prompt."""

    def __init__(self, config: Any, *, is_scaled: bool) -> None:
        """Build the network with random weights.

        Args:
            config: A `CLIPConfig`.
            is_scaled: Whether the cosine is multiplied by exp(logit_scale).
        """
        from transformers import CLIPModel

        super().__init__()
        self.clip = CLIPModel(config)
        self._is_scaled = is_scaled

    def text_features(self, token_ids_BL: Tensor) -> Tensor:
        """Return unit features [B, D] of unpadded token ids, in float32."""
        features: Any = self.clip.get_text_features(token_ids_BL)
        return F.normalize(features.pooler_output.float(), dim=-1)

    def forward(self, pixels_B3HW: Tensor, texts_BD: Tensor) -> Tensor:
        """Return the scores [B] of pictures for unit text features, in float32."""
        features: Any = self.clip.get_image_features(pixels_B3HW.to(self.clip.dtype))
        pictures_BD = F.normalize(features.pooler_output.float(), dim=-1)
        cosine_B = (pictures_BD * texts_BD).sum(dim=-1)
        return cosine_B * self.clip.logit_scale.float().exp() if self._is_scaled else cosine_B


class ClipPrompts:
    """Reads prompts with a CLIP's tokenizer and text tower."""

    def __init__(
        self,
        tokenizer: CLIPTokenizer,
        network: ClipPreference,
        *,
        clean: Callable[[str], str] = str,
        reserved: Sequence[str] = (),
    ) -> None:
        """Combine a tokenizer and a network.

        Args:
            tokenizer: Its special tokens are refused in prompts.
            network: Must be on its device.
            clean: Is applied to every prompt first.
            reserved: Other texts to refuse in prompts.
        """
        special = [token.content for token in tokenizer.added_tokens_decoder.values()]
        self._reserved = (*special, *reserved)
        self._tokenizer, self._network, self._clean = tokenizer, network, clean

    def check(self, prompts: Sequence[str]) -> None:
        """Raise `PromptError` for a prompt that is empty or contains a special token.

        Special tokens in capitals count too: the tokenizer lowers the case of prompts first.
        """
        check_prompts(prompts, ())
        check_prompts([self._clean(prompt).lower() for prompt in prompts], self._reserved)

    def token_ids(self, prompt: str) -> list[int]:
        """Return token ids, cut to the model's length with the end token kept."""
        config: Any = self._network.clip.config
        limit = config.text_config.max_position_embeddings
        return self._tokenizer(self._clean(prompt), truncation=True, max_length=limit)["input_ids"]

    @torch.inference_mode()
    def read(self, prompt: str) -> Tensor:
        """Return the unit text features [D], in float32."""
        ids_1L = torch.tensor([self.token_ids(prompt)], device=self._network.clip.device)
        return self._network.text_features(ids_1L)[0]


def read_config(folder: Path) -> Any:
    """Read the `config.json` of a CLIP into a `CLIPConfig`.

    Raises:
        CheckpointError: The file is missing, damaged or of another kind of model.
    """
    from transformers import CLIPConfig

    if (kind := read_json(folder / "config.json").get("model_type")) != "clip":
        raise CheckpointError(f"{folder / 'config.json'} is of a {kind!r} model, expected 'clip'")
    try:
        return CLIPConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder} has no usable CLIP config.json: {error}") from error


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    """Read the tokenizer of a CLIP from `tokenizer.json`, or from `vocab.json` and `merges.txt`.

    Raises:
        CheckpointError: The files are missing or damaged.
    """
    from transformers import CLIPTokenizer

    return pretrained_tokenizer(CLIPTokenizer, folder, ("tokenizer.json", "vocab.json"))
