"""Checkpoints of Moving Shapes are ordinary diffusers Wan folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from transformers import AutoTokenizer

import videorl.worlds
from videorl.pretraining.checkpoint import (
    LATENT_SHAPE,
    build_components,
    build_tokenizer,
    save_checkpoint,
    set_latent_statistics,
)
from videorl.worlds.grammar import prompts, words

SHIPPED = Path(videorl.worlds.__file__).parent / "moving_shapes_wan"


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    components = build_components(0, width=32, layers=1, text_width=16)
    set_latent_statistics(components["vae"], [0.5] * 12, [2.0] * 12)
    save_checkpoint(components, folder)
    return folder


def _sample(pipeline: WanPipeline, max_sequence_length: int) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt="a small red circle moving left",
        height=32,
        width=32,
        num_frames=9,
        num_inference_steps=2,
        guidance_scale=3.0,
        max_sequence_length=max_sequence_length,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
        return_dict=False,
    )[0]


@pytest.mark.parametrize("max_sequence_length", [8, 24, 512])
def test_the_stock_pipeline_opens_and_runs_it(tiny_folder: Path, max_sequence_length: int) -> None:
    pipeline = WanPipeline.from_pretrained(str(tiny_folder), dtype=torch.float32)
    frames = _sample(pipeline, max_sequence_length)
    assert frames.shape == (1, 9, 3, 32, 32)
    assert bool(torch.isfinite(frames).all())


def test_latent_statistics_are_stored_where_the_pipeline_reads_them(tiny_folder: Path) -> None:
    vae = WanPipeline.from_pretrained(str(tiny_folder)).vae
    assert list(vae.config["latents_mean"]) == [0.5] * 12
    assert list(vae.config["latents_std"]) == [2.0] * 12


def test_the_vae_has_the_stated_strides() -> None:
    vae = build_components(0, width=32, layers=1)["vae"]
    with torch.no_grad():
        latents = vae.encode(torch.zeros(1, 3, 9, 32, 32), return_dict=False)[0].mode()
        frames = vae.decode(latents, return_dict=False)[0]
    assert latents.shape[1:] == LATENT_SHAPE
    assert frames.shape == (1, 3, 9, 32, 32)


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, again, other = (build_components(seed, width=32, layers=1) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    name = "patch_embedding.weight"
    weights = [parts["transformer"].state_dict()[name] for parts in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_saving_leaves_the_live_weights_in_their_precision(tmp_path: Path) -> None:
    components = build_components(0, width=32, layers=1)
    before = {k: v.clone() for k, v in components["transformer"].state_dict().items()}
    save_checkpoint(components, tmp_path)
    after = components["transformer"].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_each_word_is_one_token_and_others_are_unknown(tiny_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_folder / "tokenizer"))
    assert len(tokenizer) == len(words()) + 3
    ids = tokenizer(prompts("train")).input_ids
    assert {len(row) for row in ids} == {7}
    assert all(row[-1] == tokenizer.eos_token_id for row in ids)
    assert tokenizer.unk_token_id not in {token for row in ids for token in row}
    assert tokenizer("hello").input_ids == [tokenizer.unk_token_id, tokenizer.eos_token_id]
    assert tokenizer("").input_ids == [tokenizer.eos_token_id]


def test_the_saved_tokenizer_is_the_built_one(tiny_folder: Path) -> None:
    saved = AutoTokenizer.from_pretrained(str(tiny_folder / "tokenizer"))
    texts = [*prompts("held_out"), "", "a small plaid circle moving left"]
    assert saved(texts).input_ids == build_tokenizer()(texts).input_ids


def test_the_shipped_checkpoint_is_complete_small_and_runs() -> None:
    size = sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file())
    assert size < 8_000_000
    assert (SHIPPED / "README.md").is_file()
    pipeline = WanPipeline.from_pretrained(str(SHIPPED), dtype=torch.float32)
    assert sum(p.numel() for p in pipeline.transformer.parameters()) == 1_323_696
    assert bool(torch.isfinite(_sample(pipeline, 24)).all())
