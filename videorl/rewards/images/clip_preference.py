"""CLIP models that were trained to give the preferred of two pictures the larger cosine.

PickScore and HPSv2 differ in how a checkpoint names its tensors, in scale and in preprocessing.
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
"""The model that both were trained from; of it only the tokenizer (and configuration) is read."""
BASE_FILES = ("*.json", "*.txt")


class ClipPreference(nn.Module):
    """A CLIP whose cosine of picture and prompt is the score."""

    def __init__(self, config: Any, *, is_scaled: bool) -> None:
        """Build it with random weights.

        Args:
            config: A `CLIPConfig`.
            is_scaled: Whether the cosine is multiplied by exp(logit_scale).
        """
        from transformers import CLIPModel

        super().__init__()
        self.clip = CLIPModel(config)
        self._is_scaled = is_scaled

    def text_features(self, token_ids_BL: Tensor) -> Tensor:
        """Return unit vectors [B, D] of unpadded token ids, float32."""
        features: Any = self.clip.get_text_features(token_ids_BL)
        return F.normalize(features.pooler_output.float(), dim=-1)

    def forward(self, pixels_B3HW: Tensor, texts_BD: Tensor) -> Tensor:
        """Return the scores [B] of pictures against unit text features, float32."""
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
        """Put both together.

        Args:
            tokenizer: Whose special tokens no prompt may contain.
            network: On its device.
            clean: What is done to a prompt first.
            reserved: Further texts that no prompt may contain.
        """
        special = [token.content for token in tokenizer.added_tokens_decoder.values()]
        self._reserved = (*special, *reserved)
        self._tokenizer, self._network, self._clean = tokenizer, network, clean

    def check(self, prompts: Sequence[str]) -> None:
        """Raise `PromptError` for a prompt that is empty or holds a special token.

        The tokenizer lowers prompts before it looks for special tokens, so capitals do not help.
        """
        check_prompts(prompts, ())
        check_prompts([self._clean(prompt).lower() for prompt in prompts], self._reserved)

    def token_ids(self, prompt: str) -> list[int]:
        """Return token ids, cut off at the model's length with the end token kept."""
        config: Any = self._network.clip.config
        limit = config.text_config.max_position_embeddings
        return self._tokenizer(self._clean(prompt), truncation=True, max_length=limit)["input_ids"]

    @torch.inference_mode()
    def read(self, prompt: str) -> Tensor:
        """Return the unit text features [D], float32."""
        ids_1L = torch.tensor([self.token_ids(prompt)], device=self._network.clip.device)
        return self._network.text_features(ids_1L)[0]


def read_config(folder: Path) -> Any:
    """Read a CLIP's `config.json`, as a `CLIPConfig`.

    Raises:
        CheckpointError: It is missing, damaged or of another kind of model.
    """
    from transformers import CLIPConfig

    if (kind := read_json(folder / "config.json").get("model_type")) != "clip":
        raise CheckpointError(f"{folder / 'config.json'} is of a {kind!r} model, expected 'clip'")
    try:
        return CLIPConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder} has no usable CLIP config.json: {error}") from error


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    """Read a CLIP's tokenizer from `tokenizer.json`, or from `vocab.json` and `merges.txt`.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    from transformers import CLIPTokenizer

    return pretrained_tokenizer(CLIPTokenizer, folder, ("tokenizer.json", "vocab.json"))
