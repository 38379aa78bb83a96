"""Train a latent reward: Bradley-Terry with ties on noised latents of labelled pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videorl.embedding import Embedding
from videorl.errors import ConfigError
from videorl.guidance.accuracy import AccuracyByTime, write_accuracy
from videorl.guidance.config import LatentRewardConfig
from videorl.guidance.labelling import check_origin
from videorl.guidance.latent_files import common_shape, read_latents
from videorl.guidance.latent_reward import LatentReward, first_layers
from videorl.guidance.recipe import LatentRewardRecipe
from videorl.policies import load_family, load_policy, takes_images
from videorl.protocols import Process
from videorl.reward_training.examples import Examples, read_splits
from videorl.reward_training.losses import bradley_terry_with_ties
from videorl.reward_training.pairs import LabelledPair, read_pairs
from videorl.reward_training.task import Measured, Split
from videorl.sampling.embeddings import EmbeddingCache
from videorl.seeds import derive_seed
from videorl.types import Condition


class LatentRewardTask:
    """Implements `videorl.reward_training.task.RewardTask`.

    Predictions are margins [N, times × dimensions]. Both videos of a pair are noised to the same
    time with different noise, as in sampling, where no two latents share their noise.
    """

    def __init__(
        self,
        network: LatentReward,
        process: Process,
        encode: Callable[[Condition], Embedding],
        recipe: LatentRewardRecipe,
        labels: Mapping[Split, Sequence[LabelledPair]],
    ) -> None:
        """Combine loaded parts; `load_latent_reward_task` loads them.

        Args:
            network: Must be on its device.
            process: The policy's noising process.
            encode: Returns the embedding of a prompt.
            recipe: Times, dimensions and seed.
            labels: The labelled pairs of both splits.
        """
        self.module = network
        self._process = process
        self._embeds = EmbeddingCache(encode)
        self._recipe = recipe
        read = lru_cache(maxsize=None)(read_latents) if recipe.labels.keep_decoded else read_latents

        def open_pair(pair: LabelledPair) -> Tensor:
            _ = self._embeds[pair.condition]  # a prompt that is too long costs its pair alone
            return torch.stack([read(pair.path_a), read(pair.path_b)])

        self._examples = {split: Examples(pairs, open_pair) for split, pairs in labels.items()}

    def num_examples(self, split: Split) -> int:
        """Return the number of pairs."""
        return len(self._examples[split])

    def losses(self, indices: Sequence[int]) -> Measured:
        """Return the loss of each pair at a random time: the mean over all dimensions."""
        found = [self._examples["train"].readable(index) for index in indices]
        latents_NRCTHW = torch.stack([latents for _, latents, _ in found])
        shift, uniform_N = self._recipe.noise.shift, torch.rand(len(found))
        t_N = self._process.sample_times(shift * uniform_N / (1 + (shift - 1) * uniform_N))
        noise_NRCTHW = torch.randn(latents_NRCTHW.shape)
        pairs = [pair for pair, _, _ in found]
        rewards_NRK = self._rewards(latents_NRCTHW, noise_NRCTHW, t_N, pairs)
        labels_NK = torch.tensor([pair.labels for pair in pairs], device=rewards_NRK.device)
        loss_NK = bradley_terry_with_ties(rewards_NRK[:, 0], rewards_NRK[:, 1], labels_NK)
        names = self._recipe.model.dimensions
        metrics = {f"train/loss_{name}": loss_NK[:, k].detach() for k, name in enumerate(names)}
        return Measured(loss_NK.mean(1), metrics, sum(skipped for _, _, skipped in found))

    @torch.no_grad()
    def predict(self, indices: Sequence[int]) -> Tensor:
        """Return margins [N, times × dimensions], with the same noise in every call."""
        pairs = [self._examples["held_out"].examples[index] for index in indices]
        latents, is_read = self._examples["held_out"].read_all(indices)
        latents_NRCTHW = torch.stack(latents)
        margins: list[Tensor] = []
        for place, time in enumerate(self._recipe.noise.judged):
            seeds = [derive_seed(self._recipe.seed, "held_out", index, place) for index in indices]
            draws = [torch.Generator().manual_seed(seed) for seed in seeds]
            noise = [torch.randn(latents[0].shape, generator=draw) for draw in draws]
            t_N = torch.full((len(pairs),), time)
            rewards_NRK = self._rewards(latents_NRCTHW, torch.stack(noise), t_N, pairs)
            margins.append((rewards_NRK[:, 0] - rewards_NRK[:, 1]).cpu())
        margins_NK = torch.cat(margins, dim=1)
        margins_NK[~torch.tensor(is_read)] = torch.nan
        return margins_NK

    def judge(self, predictions_NK: Tensor) -> Mapping[str, float]:
        """Return accuracies on pairs with a preference: per dimension, at each time and overall."""
        found = self._accuracy(predictions_NK)
        skipped = float((~predictions_NK.isfinite().all(1)).sum())
        return {"held_out/skipped": skipped, **found.metrics()}

    def export(self, folder: Path, step: int, predictions_NK: Tensor | None) -> None:
        """Write what `load_latent_reward` opens, and the accuracy on held-out pairs."""
        self.module.save(folder)
        if predictions_NK is not None:
            write_accuracy(folder, self._accuracy(predictions_NK), step)

    def _accuracy(self, predictions_NK: Tensor) -> AccuracyByTime:
        labels = [pair.labels for pair in self._examples["held_out"].examples]
        model, noise = self._recipe.model, self._recipe.noise
        margins_NTK = predictions_NK.unflatten(1, (len(noise.judged), len(model.dimensions)))
        return AccuracyByTime.of(
            margins_NTK.numpy(), torch.tensor(labels).numpy(), noise.judged, model.dimensions
        )

    def _rewards(
        self,
        latents_NRCTHW: Tensor,
        noise_NRCTHW: Tensor,
        t_N: Tensor,
        pairs: Sequence[LabelledPair],
    ) -> Tensor:
        """Noise pairs to times `t_N` and return their rewards [N, 2, K]."""
        t_B = t_N.repeat_interleave(2)
        x0_BCTHW, noise_BCTHW = latents_NRCTHW.flatten(0, 1), noise_NRCTHW.flatten(0, 1)
        x_t_BCTHW = self._process.corrupt(x0_BCTHW, noise_BCTHW, t_B).to(self.module.device)
        embeds = [self._embeds[pair.condition] for pair in pairs for _ in "AB"]
        return self.module(x_t_BCTHW, t_B.to(self.module.device), embeds).unflatten(0, (-1, 2))


def load_latent_reward_task(
    recipe: LatentRewardRecipe, device: torch.device | None = None
) -> LatentRewardTask:
    """Read the labels, then load the policy's first layers and its text encoder.

    Raises:
        ConfigError: A setting does not fit the policy, or the latents are another one's.
        DatasetError: The labels cannot be read, or the latents differ in shape.
        CheckpointError: The policy cannot be read.
    """
    model = recipe.model
    images = takes_images(recipe.policy.family)
    pairs = read_splits(
        recipe.labels,
        lambda path, root: read_pairs(path, root, model.dimensions, with_images=images).pairs,
    )
    for labels in filter(None, (recipe.labels.train, recipe.labels.held_out)):
        check_origin(Path(labels), recipe.policy.path)
    every = [*pairs["train"], *pairs["held_out"]]
    shape = common_shape([path for pair in every for path in (pair.path_a, pair.path_b)])
    layers, base_digest = first_layers(recipe.policy, recipe.sampling, model.num_layers)
    transformer: Any = layers.trainable_module()
    family = load_family(recipe.policy.family)
    if (channels := family.latent_channels(transformer.config)) != shape[0]:
        raise ConfigError(
            f"labels.train holds latents {list(shape)}, but policy.path={recipe.policy.path} has "
            f"{channels} channels: the latents are of another policy"
        )
    config = LatentRewardConfig(
        family=recipe.policy.family,
        policy=recipe.policy.path,
        base_digest=base_digest,
        num_layers=model.num_layers,
        head=model.head,
        train=model.train,
        dimensions=tuple(model.dimensions),
        latent_shape=shape,
        lora=recipe.policy.lora if model.train == "lora" else None,
    )
    process = layers.process
    network = LatentReward(layers, config, seed=derive_seed(recipe.seed, "latent reward"))
    network.on(device)
    encoder = load_policy(
        recipe.policy, recipe.sampling, parts=frozenset({"text_encoder"}), device=device
    )
    return LatentRewardTask(network, process, lambda text: encoder.encode([text])[0], recipe, pairs)
