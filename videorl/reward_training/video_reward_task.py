"""Train VideoReward on pairs of videos with the Bradley-Terry model with ties."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from videorl.evaluation.agreement import pairwise_accuracy
from videorl.reward_training.config import RewardRecipe
from videorl.reward_training.examples import Examples, read_splits
from videorl.reward_training.losses import INVALID, SAME, bradley_terry_with_ties
from videorl.reward_training.pairs import LabelledPair, read_pairs
from videorl.reward_training.precision import autocast, checkpoint_gradients
from videorl.reward_training.task import Measured, Split
from videorl.reward_training.video_reward_adapters import load_untrained, make_trainable
from videorl.reward_training.video_reward_export import published_settings, write_checkpoint
from videorl.rewards.checkpoints import find_folder
from videorl.rewards.video_reward.network import VideoRewardNetwork
from videorl.rewards.video_reward.prompt import Questionnaire, questionnaire_of_base
from videorl.rewards.video_reward.qwen_video import Patches, read_patches
from videorl.rewards.videos import OpenVideo, check_prompts, open_video
from videorl.seeds import derive_seed
from videorl.types import Video

DIMENSIONS = ("visual_quality", "motion_quality", "text_alignment")


class VideoRewardTask:
    """Implements `videorl.reward_training.task.RewardTask`."""

    def __init__(
        self,
        network: VideoRewardNetwork,
        questionnaire: Questionnaire,
        recipe: RewardRecipe,
        base: Path,
        labels: Mapping[Split, Sequence[LabelledPair]],
    ) -> None:
        """Combine loaded parts; `load_video_reward_task` loads them.

        Args:
            network: Must be on its device and prepared by `make_trainable`.
            questionnaire: Must have the reward tokens.
            recipe: How frames are sampled and decoded.
            base: Folder of the base model, whose configuration is exported.
            labels: The labelled pairs of both splits.
        """
        self.module = network
        self._questionnaire = questionnaire
        self._recipe = recipe
        self._base = base
        self._examples = {split: Examples(pairs, self._read) for split, pairs in labels.items()}
        self._ask = lru_cache(maxsize=4096)(questionnaire.ask)
        self._open = cache(_decoded) if recipe.labels.keep_decoded else open_video

    def num_examples(self, split: Split) -> int:
        """Return the number of pairs."""
        return len(self._examples[split])

    def losses(self, indices: Sequence[int]) -> Measured:
        """Return the mean loss over dimensions of each pair, invalid labels counted as 0."""
        found = [self._examples["train"].readable(index) for index in indices]
        pairs = [pair for pair, _, _ in found]
        rewards_BK = self._rewards(
            [video for _, videos, _ in found for video in videos],
            [pair.prompt for pair in pairs for _ in "AB"],
        )
        rewards_a_NK, rewards_b_NK = rewards_BK[0::2], rewards_BK[1::2]
        labels_NK = torch.tensor([pair.labels for pair in pairs], device=rewards_BK.device)
        loss_NK = bradley_terry_with_ties(rewards_a_NK, rewards_b_NK, labels_NK)
        is_right_NK = (rewards_a_NK - rewards_b_NK).sign() == labels_NK
        is_decided_NK = (labels_NK != INVALID) & (labels_NK != SAME)
        right_N = (is_right_NK & is_decided_NK).sum(1) / is_decided_NK.sum(1).clamp(min=1)
        metrics = {f"train/loss_{name}": loss_NK[:, k] for k, name in enumerate(DIMENSIONS)}
        metrics["train/accuracy"] = right_N.where(is_decided_NK.any(1), 0.5)
        metrics = {name: value.detach() for name, value in metrics.items()}
        return Measured(loss_NK.mean(1), metrics, sum(skipped for _, _, skipped in found))

    @torch.no_grad()
    def predict(self, indices: Sequence[int]) -> Tensor:
        """Return rewards [N, 6]: the three dimensions of A, then of B."""
        held_out = self._examples["held_out"]
        videos, is_read = held_out.read_all(indices)
        prompts = [held_out.examples[index].prompt for index in indices]
        rewards_BK = self._rewards(
            [video for both in videos for video in both],
            [prompt for prompt in prompts for _ in "AB"],
        )
        predictions_NK = rewards_BK.float().cpu().reshape(len(indices), -1)
        predictions_NK[~torch.tensor(is_read)] = torch.nan
        return predictions_NK

    def judge(self, predictions_NK: Tensor) -> Mapping[str, float]:
        """Return pairwise accuracy per dimension, with and without ties, and the loss."""
        labels_NK = torch.tensor([pair.labels for pair in self._examples["held_out"].examples])
        is_read_N = predictions_NK.isfinite().all(1)
        rewards_a_NK, rewards_b_NK = predictions_NK[is_read_N].chunk(2, dim=1)
        labels_NK = labels_NK[is_read_N]
        loss = bradley_terry_with_ties(rewards_a_NK, rewards_b_NK, labels_NK).mean()
        metrics = {"held_out/loss": float(loss), "held_out/skipped": float((~is_read_N).sum())}
        for k, name in enumerate(DIMENSIONS):
            is_valid_N = labels_NK[:, k] != INVALID
            margins_N = (rewards_a_NK - rewards_b_NK)[is_valid_N, k]
            found = pairwise_accuracy(labels_NK[is_valid_N, k].numpy(), margins_N.numpy())
            for ties, value in (("", found.without_ties), ("_with_ties", found.with_ties)):
                if value is not None:
                    metrics[f"held_out/accuracy{ties}_{name}"] = value
        return metrics

    def export(self, folder: Path, step: int, predictions_NK: Tensor | None) -> None:
        """Write the published layout, with scores normalised over the held-out videos."""
        rewards_BK = None
        if predictions_NK is not None:
            rewards_BK = predictions_NK.unflatten(1, (2, -1)).flatten(0, 1)
            rewards_BK = rewards_BK[rewards_BK.isfinite().all(1)]
        settings = published_settings(self._recipe, rewards_BK)
        write_checkpoint(folder, step, settings, self.module, self._questionnaire)
        (folder / "base").mkdir(exist_ok=True)
        shutil.copy(self._base / "config.json", folder / "base")

    def _read(self, pair: LabelledPair) -> list[Patches]:
        model = self._recipe.model
        check_prompts([pair.prompt], self._questionnaire.reserved)
        return [
            read_patches(
                self._open(path),
                model.sampled_fps,
                model.max_frame_pixels,
                model.min_frame_pixels,
            )
            for path in (pair.path_a, pair.path_b)
        ]

    def _rewards(self, videos: Sequence[Patches], prompts: Sequence[str]) -> Tensor:
        """Return the rewards [B, 3] of videos."""
        questions = [
            self._ask(prompt, video.num_tokens)
            for prompt, video in zip(prompts, videos, strict=True)
        ]
        with autocast(self._recipe.model.dtype, self.module.device):
            features_ND = self._features(videos)
            hidden_BLD = self.module(self._questionnaire.padded(questions), features_ND)
            return torch.stack(
                [
                    self.module.rewards(hidden_LD[self._questionnaire.places(question)], range(3))
                    for hidden_LD, question in zip(hidden_BLD, questions, strict=True)
                ]
            ).float()

    def _features(self, videos: Sequence[Patches]) -> Tensor:
        """Encode all videos at once: a micro-batch is small, and single tiny videos are slow."""
        visual = self.module.backbone.model.visual
        pixels = torch.cat([video.pixels for video in videos]).to(self.module.device)
        grids = torch.tensor([video.grid_thw for video in videos], device=self.module.device)
        return visual(pixels, grid_thw=grids).pooler_output


def _decoded(path: Path) -> OpenVideo:
    """Open a video with all of its frames decoded."""
    video = open_video(path)
    return open_video(Video(video.read(range(video.num_frames)), video.fps), video.name)


def load_video_reward_task(recipe: RewardRecipe, device: torch.device) -> VideoRewardTask:
    """Load the base model and read the labels."""
    model = recipe.model
    base = find_folder(model.base)
    questionnaire = questionnaire_of_base(base)
    seed = derive_seed(recipe.seed, "reward model")
    network = load_untrained(base, questionnaire.tokenizer.get_vocab_size(), seed)
    make_trainable(
        network,
        model.lora,
        questionnaire.reward_ids,
        train_vision=model.train_vision,
        seed=derive_seed(recipe.seed, "adapters"),
    )
    if model.gradient_checkpointing:
        checkpoint_gradients(network.backbone)
    labels = read_splits(recipe.labels, lambda path, root: read_pairs(path, root).pairs)
    return VideoRewardTask(network.to(device), questionnaire, recipe, base, labels)
