"""VideoScore's network: a stock Idefics2 with a linear head on the last token.

Its tensors have the same names as in published checkpoints.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from videorl.errors import CheckpointError
from videorl.rewards.checkpoints import empty_parameters, load_strictly, read_json, read_tensors
from videorl.rewards.video_score.inputs import ClipInputs

NUM_DIMENSIONS = 5
SETTINGS_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
"""Files of a checkpoint besides its weights; the first two and `tokenizer.json` are read."""


class VideoScoreNetwork(nn.Module):
    """Idefics2 and the regression head; transformers has no such class."""

    def __init__(self, config: Any) -> None:
        """Build it with random weights from an `Idefics2Config`, see `read_config`."""
        from transformers import Idefics2Model

        super().__init__()
        self.model = Idefics2Model(config)
        self.score = nn.Linear(config.text_config.hidden_size, NUM_DIMENSIONS)

    def forward(self, clips: Sequence[ClipInputs], frames_at_once: int | None = None) -> Tensor:
        """Return the five logits of each video, [B, 5], with gradient.

        Rows are padded on the right, which has no effect: attention is causal, and each row is read
        at its own last token. Frames are not padded.

        Args:
            clips: Lengths and sizes may differ.
            frames_at_once: Frames to encode together in the vision tower; None = a whole video.
        """
        device = self.score.weight.device
        ids_BL = nn.utils.rnn.pad_sequence(
            [torch.tensor(clip.token_ids) for clip in clips], batch_first=True
        ).to(device)
        features_ND = torch.cat(
            [
                self.frame_features(some_FCHW).flatten(0, 1)
                for clip in clips
                for some_FCHW in clip.pixels_FCHW.split(frames_at_once or len(clip.pixels_FCHW))
            ]
        )
        language_model = self.model.text_model
        embeds_BLD = language_model.get_input_embeddings()(ids_BL)
        is_image_BL1 = (ids_BL == self.model.config.image_token_id).unsqueeze(-1)
        embeds_BLD = embeds_BLD.masked_scatter(is_image_BL1, features_ND.to(embeds_BLD.dtype))
        hidden_BLD = language_model(inputs_embeds=embeds_BLD, use_cache=False).last_hidden_state
        last_B = torch.tensor([len(clip.token_ids) - 1 for clip in clips], device=device)
        return self.score(hidden_BLD[torch.arange(len(clips), device=device), last_B])

    def frame_features(self, pixels_FCHW: Tensor) -> Tensor:
        """Encode frames of one size to [F, latents, D], the embeddings of their image tokens."""
        tower: Any = self.model.vision_model
        weight = tower.embeddings.patch_embedding.weight
        pixels_FCHW = pixels_FCHW.to(weight.device, weight.dtype)
        grid_FDhw = tower.embeddings.patch_embedding(pixels_FCHW)
        num_rows, num_columns = grid_FDhw.shape[2:]
        places_P = patch_places(num_rows, num_columns, tower.embeddings.num_patches_per_side)
        positions_PD = tower.embeddings.position_embedding(places_P.to(weight.device))
        patches_FPD = grid_FDhw.flatten(2).transpose(1, 2) + positions_PD
        encoded_FPD = tower.encoder(inputs_embeds=patches_FPD).last_hidden_state
        all_FP = torch.ones(encoded_FPD.shape[:2], dtype=torch.bool, device=weight.device)
        return self.model.connector(tower.post_layernorm(encoded_FPD), attention_mask=all_FP)


def patch_places(num_rows: int, num_columns: int, side: int) -> Tensor:
    """Return the index [P] of each patch of a frame in the table of side × side positions.

    Patch i of n is at i / n of the frame. Where that is on a border of the table, rounding decides:
    it is done here as in transformers 4.45, with which the models were trained. Version 5 rounds
    differently for 49 and 58 patches, and on a GPU maybe for others.
    """

    def along(count: int) -> Tensor:
        borders = torch.arange(1 / side, 1.0, 1 / side)
        steps = torch.arange(0, 1 - 1e-6, (1 / torch.tensor(count)).item())
        return torch.bucketize(steps, borders, right=True)

    return (along(num_rows)[:, None] * side + along(num_columns)).flatten()


def read_config(folder: Path) -> Any:
    """Read a checkpoint's `config.json` into an `Idefics2Config`.

    Raises:
        CheckpointError: The file is missing, damaged, or of another model.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import Idefics2Config

    path = folder / "config.json"
    content = read_json(path)
    if (kind := content.get("model_type")) != "idefics2":
        raise CheckpointError(f"{path}: model_type is {kind!r}, only 'idefics2' is supported")
    try:
        config: Any = Idefics2Config.from_dict(content)
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise CheckpointError(f"{path} does not describe an Idefics2: {error}") from error
    # The authors' code takes these from the language model, whatever this section says.
    config.perceiver_config.hidden_size = config.text_config.hidden_size
    config.perceiver_config.rms_norm_eps = config.text_config.rms_norm_eps
    return config


def load_network(folder: Path, config: Any, dtype: torch.dtype) -> VideoScoreNetwork:
    """Build the network and fill it from a checkpoint, whole or sharded.

    Raises:
        CheckpointError: A file or tensor is missing, unexpected or of a wrong shape.
    """
    tensors = read_tensors(folder)
    with empty_parameters():
        network = VideoScoreNetwork(config)
    load_strictly(network, tensors, source=folder, dtype=dtype)
    return network.eval()


def save_checkpoint(tensors: Mapping[str, Tensor], source: Path, folder: Path) -> None:
    """Write a checkpoint in the published layout; large ones are sharded.

    Args:
        tensors: The whole `state_dict()` of the network.
        source: The checkpoint that was loaded, whose settings and tokenizer are copied.
        folder: Is created if it does not exist.

    Raises:
        CheckpointError: Both folders are the same: tensors may still be memory-mapped from it.
    """
    from huggingface_hub import save_torch_state_dict

    if folder.resolve() == source.resolve():
        raise CheckpointError(f"{folder} is the checkpoint that was loaded; save to another folder")
    folder.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(dict(tensors), folder)
    for name in SETTINGS_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
