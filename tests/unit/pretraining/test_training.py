"""VAE and policy training: losses by hand, determinism, and going on after a stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from videorl.pretraining.checkpoint import Components, build_components
from videorl.pretraining.measuring import best_of
from videorl.pretraining.policy_training import (
    LatentData,
    embed_prompts,
    encode_clips,
    train_policy,
)
from videorl.pretraining.training_state import TrainingPlan, warmup_cosine
from videorl.pretraining.vae_training import (
    CHROMA_WEIGHT,
    DIFFERENCE_WEIGHT,
    clip_batch,
    foreground_weights,
    reconstruction_loss,
    train_vae,
)
from videorl.worlds.grammar import prompts

OnStep = Callable[[int, float], None]


def _ignore(step: int, value: float) -> None:
    pass


def _tiny() -> Components:
    return build_components(0, width=32, layers=1, text_width=16)


def _parameters(model: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


def test_a_clip_batch_is_a_function_of_seed_and_step() -> None:
    (first, texts), (again, _), (other, _) = (clip_batch(0, step, 2) for step in (5, 5, 6))
    assert first.shape == (2, 3, 9, 32, 32)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert set(texts) <= set(prompts("train"))
    assert float(first.min()) >= -1.0 and float(first.max()) <= 1.0


def test_reconstruction_loss_by_hand() -> None:
    # A blank target has no foreground, so every weight is 1 and a grey error has no hue.
    x_BCFHW = torch.zeros(1, 3, 3, 4, 4)
    assert float(reconstruction_loss(x_BCFHW, x_BCFHW)) == 0.0
    constant = reconstruction_loss(x_BCFHW + 0.2, x_BCFHW)
    assert float(constant) == pytest.approx(0.2**2 + 0.5 * 0.2)
    blinking = x_BCFHW.clone()
    blinking[:, :, 1] = 0.2
    pixel = (0.2**2 + 0.5 * 0.2) / 3
    assert float(reconstruction_loss(blinking, x_BCFHW)) == pytest.approx(
        pixel + DIFFERENCE_WEIGHT * 0.2**2
    )
    red = x_BCFHW.clone()
    red[:, 0] = 0.3
    # Mean error 0.1: the hue errors are 0.2, -0.1 and -0.1.
    hue = (0.2**2 + 2 * 0.1**2) / 3
    assert float(reconstruction_loss(red, x_BCFHW)) == pytest.approx(
        0.3**2 / 3 + 0.5 * 0.1 + CHROMA_WEIGHT * hue
    )


def test_the_object_and_its_rim_weigh_more_and_the_mean_weight_is_one() -> None:
    x_BCFHW = torch.full((1, 3, 1, 8, 8), -1.0)
    x_BCFHW[:, 0, :, 3, 3] = 1.0
    weights = foreground_weights(x_BCFHW)[0, 0, 0]
    assert float(weights.mean()) == pytest.approx(1.0)
    heavy = weights > weights.min()
    assert int(heavy.sum()) == 9
    assert bool(heavy[2:5, 2:5].all())


def test_the_learning_rate_warms_up_and_decays() -> None:
    factors = [warmup_cosine(step, 100, warmup=10) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == pytest.approx(1.0)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] == pytest.approx(0.03, abs=0.01)


def test_vae_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole, stopped, resumed = (_tiny()["vae"] for _ in range(3))
    seen: list[int] = []

    def stop_at_one(step: int, _: float) -> None:
        raise KeyboardInterrupt

    def train(vae: AutoencoderKLWan, folder: str, on_step: OnStep) -> None:
        train_vae(vae, TrainingPlan(2, 1, 0, tmp_path / folder, save_every=1), on_step)

    train(whole, "whole", lambda step, _: seen.append(step))
    assert seen == [1, 2]
    with pytest.raises(KeyboardInterrupt):
        train(stopped, "parts", stop_at_one)
    seen.clear()
    train(resumed, "parts", lambda step, _: seen.append(step))
    assert seen == [2]
    assert torch.equal(_parameters(whole), _parameters(resumed))


def test_encoded_clips_are_normalised_by_the_statistics_they_set() -> None:
    vae = _tiny()["vae"]
    data = encode_clips(vae, num_clips=5, seed=0, on_step=_ignore, batch_size=4)
    assert data.latents.shape == (8, 12, 5, 8, 8)
    assert data.prompt_rows.shape == (8,)
    assert data.latents.mean(dim=(0, 2, 3, 4)).abs().max() < 1e-4
    assert data.latents.std(dim=(0, 2, 3, 4)) == pytest.approx(np.ones(12), abs=1e-3)
    assert list(vae.config["latents_mean"]) != [0.0] * 12


def test_policy_training_lowers_its_loss_and_is_reproducible(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    data = LatentData(
        torch.randn(1, 12, 5, 8, 8, generator=generator).repeat(4, 1, 1, 1, 1), torch.arange(4)
    )
    runs: list[list[float]] = []
    models = []
    for name in ("a", "b"):
        components, losses = _tiny(), []
        train_policy(
            components,
            data,
            TrainingPlan(60, 8, 0, tmp_path / name),
            lambda _, loss, losses=losses: losses.append(loss),
        )
        runs.append(losses)
        models.append(_parameters(components["transformer"]))
    assert runs[0] == runs[1]
    assert torch.equal(models[0], models[1])
    assert np.mean(runs[0][-10:]) < 0.9 * np.mean(runs[0][:10])


def test_prompts_are_embedded_as_the_pipeline_does() -> None:
    from diffusers import WanPipeline

    components = _tiny()
    texts = [*prompts("train")[:3], ""]
    parts: dict[str, Any] = dict(components)
    pipeline = WanPipeline(**parts)
    expected, _ = pipeline.encode_prompt(
        texts, do_classifier_free_guidance=False, max_sequence_length=24
    )
    assert torch.allclose(embed_prompts(components, texts), expected, atol=1e-6)
    assert float(expected[-1, 1:].detach().abs().max()) == 0.0


def test_best_of_is_the_exact_expectation() -> None:
    totals = np.array([[1.0, 3.0, 2.0]])
    assert best_of(totals, 1) == pytest.approx(2.0)
    # Pairs: (1, 3), (1, 2) and (3, 2) have the maxima 3, 2 and 3.
    assert best_of(totals, 2) == pytest.approx(8 / 3)
    assert best_of(totals, 3) == pytest.approx(3.0)
