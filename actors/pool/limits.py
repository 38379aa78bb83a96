"""Sizes and timeouts of each pool, as a recipe states them."""

from __future__ import annotations

from actors.pool.state import Limits
from videorl.settings.rewards import RewardConfig
from videorl.settings.workers import EncoderConfig, GeneratorsConfig


def generator_limits(generators: GeneratorsConfig) -> Limits:
    """Return the sizes and timeouts of the generator pool."""
    return _limits(generators, generators.min_workers, generators.max_workers)


def encoder_limits(encoder: EncoderConfig) -> Limits:
    """Return the sizes and timeouts of the encoder's pool."""
    return _limits(encoder, encoder.num_workers, encoder.most_workers)


def reward_limits(reward: RewardConfig) -> Limits:
    """Return the sizes and timeouts of a reward model's pool."""
    return _limits(reward, reward.num_workers, reward.most_workers, reward.prefetch)


def _limits(
    pool: GeneratorsConfig | EncoderConfig | RewardConfig, least: int, most: int, ahead: int = 0
) -> Limits:
    return Limits(
        ahead=ahead,
        min_workers=least,
        max_workers=most,
        max_retries=pool.max_retries,
        request_timeout_s=pool.worker_timeout_s,
        idle_release_s=pool.idle_release_s,
        start_timeout_s=pool.start_timeout_s,
        patience_s=pool.patience_s,
    )
