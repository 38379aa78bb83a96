"""Train VideoScore by regression of the five ratings, with mean squared error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from videorl.reward_training.config import RewardRecipe
from videorl.reward_training.examples import Examples, read_splits
from videorl.reward_training.precision import autocast, checkpoint_gradients
from videorl.reward_training.ratings import RatedVideo, read_ratings
from videorl.reward_training.task import Measured, Split
from videorl.rewards.checkpoints import (
    empty_parameters,
    find_folder,
    load_strictly,
    read_tensors,
)
from videorl.rewards.video_score.inputs import ClipInputs, Preprocessor, read_preprocessor
from videorl.rewards.video_score.model import CHECKPOINT_FILES, VideoScore
from videorl.rewards.video_score.network import (
    NUM_DIMENSIONS,
    VideoScoreNetwork,
    read_config,
    save_checkpoint,
)
from videorl.rewards.videos import open_video
from videorl.seeds import derive_seed


class VideoScoreTask:
    """Implements `videorl.reward_training.task.RewardTask`."""

    def __init__(
        self,
        network: VideoScoreNetwork,
        preprocess: Preprocessor,
        recipe: RewardRecipe,
        base: Path,
        labels: Mapping[Split, Sequence[RatedVideo]],
    ) -> None:
        """Combine loaded parts; `load_video_score_task` loads them.

        Args:
            network: Must be on its device.
            preprocess: Makes the network's inputs, with the base model's settings.
            recipe: Its `model.dtype` is used.
            base: Folder of the base model, whose settings and tokenizer are exported.
            labels: The rated videos of both splits.
        """
        self.module = network
        self._preprocess = preprocess
        self._recipe = recipe
        self._base = base
        self._examples = {split: Examples(videos, self._read) for split, videos in labels.items()}

    def num_examples(self, split: Split) -> int:
        """Return the number of videos."""
        return len(self._examples[split])

    def losses(self, indices: Sequence[int]) -> Measured:
        """Return the squared error of each video, mean over dimensions (as `MSELoss` does)."""
        found = [self._examples["train"].readable(index) for index in indices]
        predicted_N5 = self._predicted([clip for _, clip, _ in found])
        ratings_N5 = torch.tensor(
            [video.ratings for video, _, _ in found], device=predicted_N5.device
        )
        error_N5 = (predicted_N5 - ratings_N5).square()
        metrics = {
            f"train/loss_{name}": error_N5[:, k].detach()
            for k, name in enumerate(VideoScore.dimensions)
        }
        return Measured(error_N5.mean(1), metrics, sum(skipped for _, _, skipped in found))

    @torch.no_grad()
    def predict(self, indices: Sequence[int]) -> Tensor:
        """Return the five scores of each video."""
        clips, is_read = self._examples["held_out"].read_all(indices)
        predicted_N5 = self._predicted(clips).cpu()
        predicted_N5[~torch.tensor(is_read)] = torch.nan
        return predicted_N5

    def judge(self, predictions_NK: Tensor) -> Mapping[str, float]:
        """Return the mean squared error, and Spearman's correlation per dimension."""
        from videorl.evaluation.agreement import spearman

        ratings_N5 = torch.tensor([v.ratings for v in self._examples["held_out"].examples])
        is_read_N = predictions_NK.isfinite().all(1)
        found_N5, wanted_N5 = predictions_NK[is_read_N], ratings_N5[is_read_N]
        metrics = {
            "held_out/loss": float((found_N5 - wanted_N5).square().mean()),
            "held_out/skipped": float((~is_read_N).sum()),
        }
        for k, name in enumerate(VideoScore.dimensions):
            value = spearman(found_N5[:, k].numpy(), wanted_N5[:, k].numpy())
            if value is not None:
                metrics[f"held_out/spearman_{name}"] = value
        return metrics

    def export(self, folder: Path, step: int, predictions_NK: Tensor | None) -> None:
        """Write the published layout."""
        save_checkpoint(self.module.state_dict(), self._base, folder)

    def _read(self, rated: RatedVideo) -> ClipInputs:
        return self._preprocess(open_video(rated.path), rated.prompt)

    def _predicted(self, clips: Sequence[ClipInputs]) -> Tensor:
        with autocast(self._recipe.model.dtype, self.module.score.weight.device):
            return self.module(clips).float()


def load_video_score_task(recipe: RewardRecipe, device: torch.device) -> VideoScoreTask:
    """Load the base model and read the labels.

    The base is a VideoScore, or an Idefics2 such as TIGER-Lab/Mantis-8B-Idefics2. The latter gets a
    new head in place of the language model's output layer.
    """
    model = recipe.model
    base = find_folder(model.base, CHECKPOINT_FILES)
    config = read_config(base)
    preprocess = read_preprocessor(base, config, model.max_num_frames)
    tensors = dict(read_tensors(base))
    with empty_parameters():
        network = VideoScoreNetwork(config)
    if "score.weight" not in tensors:
        tensors.pop("lm_head.weight", None)
        draw = torch.Generator().manual_seed(derive_seed(recipe.seed, "reward model"))
        width = config.text_config.hidden_size
        std = config.text_config.initializer_range
        tensors["score.weight"] = std * torch.randn(NUM_DIMENSIONS, width, generator=draw)
        tensors["score.bias"] = torch.zeros(NUM_DIMENSIONS)
    load_strictly(network, tensors, source=base, dtype=torch.float32)
    for name, parameter in network.named_parameters():
        if parameter.data_ptr() == tensors[name].data_ptr():  # memory-mapped, so read-only
            parameter.data = parameter.data.clone()
    if model.gradient_checkpointing:
        checkpoint_gradients(network.model)
    network.requires_grad_(True)
    network.model.vision_model.requires_grad_(model.train_vision)
    labels = read_splits(recipe.labels, read_ratings)
    return VideoScoreTask(network.to(device), preprocess, recipe, base, labels)
