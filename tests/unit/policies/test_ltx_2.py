"""What only LTX-2 has: a sound beside the picture, text for both, and guidance by either."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LTX2Pipeline, LTX2VideoTransformer3DModel
from torch import Tensor

from tests.families.ltx_2 import SOUND_TOKENS, save_tiny_ltx_2
from tests.small_runs import small_recipe
from tests.tiny import TINY, tiny_policy, tiny_sampling
from tests.video_pairs import save_video_pairs
from videorl.errors import ArchiveError, CheckpointError, ConfigError
from videorl.learning.stored_pairs import check_archive
from videorl.loop import train
from videorl.one_process import local_parts, train_alone
from videorl.planning.encoder import count_encoder
from videorl.planning.memory import PolicyCounts
from videorl.planning.models import read_configs
from videorl.planning.published import PUBLISHED
from videorl.planning.shadow import latent_shape, picture_shape
from videorl.policies import load_family, load_policy
from videorl.policies.checkpoints import PARTS
from videorl.policies.ltx_2_sound import Shape, join, part
from videorl.policies.parallel import check_sharing
from videorl.recipes.reading import load_recipe
from videorl.run.folder import RunFolder, open_run
from videorl.run.sinks import JsonlSink, read_metrics

PROMPT, NEGATIVE = "a red circle  moves left ", "blue"
SEEDS = [11, 12]
GUIDED = {
    "guidance_scale": 3.0,
    "audio_guidance_scale": 5.0,
    "modality_scale": 2.0,
    "guidance_rescale": 0.7,
}
NEWER: Mapping[str, Any] = {
    "transformer": {
        "num_layers": 2,
        "gated_attn": True,
        "cross_attn_mod": True,
        "audio_gated_attn": True,
        "audio_cross_attn_mod": True,
        "use_prompt_embeddings": False,
        "perturbed_attn": True,
    },
    "connectors": {
        "per_modality_projections": True,
        "video_hidden_dim": 32,
        "audio_hidden_dim": 16,
        "video_connector_attention_head_dim": 16,
        "video_gated_attn": True,
        "audio_gated_attn": True,
        "proj_bias": True,
    },
    "registers": 8,
}
"""As diffusers' conversion makes LTX-2.3."""


def load(
    folder: Path, *, dtype: str = "float32", parts: frozenset[str] = PARTS, **sampling: Any
) -> Any:
    config = tiny_policy(folder, "ltx_2")
    config.dtype = dtype
    settings = tiny_sampling("ltx_2", **{"negative_prompt": NEGATIVE, **sampling})
    return load_policy(config, settings, parts=parts, seed=3)


def stock_of(folder: Path) -> Any:
    pipeline = LTX2Pipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stock_outputs(stock: Any, **settings: Any) -> tuple[Tensor, Tensor]:
    """Return the picture's latents and the sound's as the stock pipeline hands them out."""
    sampling = tiny_sampling("ltx_2")
    options = {**TINY["ltx_2"].options(sampling), **settings}
    return stock(
        prompt=[PROMPT] * 2,
        negative_prompt=[NEGATIVE] * 2,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="latent",
        return_dict=False,
        **options,
    )


def handed_out(stock: Any, latents_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same of a policy's latents, taken apart by hand."""
    vae, picture = stock.vae, latents_BCTHW[:, :, :3]
    frames_BNC = latents_BCTHW[:, :, 3:].flatten(2).transpose(1, 2)
    sound_BLD = frames_BNC[:, :SOUND_TOKENS]
    assert frames_BNC[:, SOUND_TOKENS:].abs().max() == 0, "what is left over is 0"
    mean, std = (each.view(1, -1, 1, 1, 1) for each in (vae.latents_mean, vae.latents_std))
    heard = sound_BLD * stock.audio_vae.latents_std + stock.audio_vae.latents_mean
    return picture * std / 0.7 + mean, heard.unflatten(2, (2, 4)).transpose(1, 2)


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_ltx_2(tmp_path_factory.mktemp("ltx_2_3"), **NEWER)


def test_picture_and_sound_are_those_that_a_user_of_the_pipeline_gets(
    tiny_checkpoints: dict[str, Path],
) -> None:
    stock, policy = stock_of(tiny_checkpoints["ltx_2"]), load(tiny_checkpoints["ltx_2"])
    embeds = policy.encode([PROMPT, NEGATIVE])
    latents = policy.sample(*embeds, SEEDS)
    for ours, theirs in zip(handed_out(stock, latents), stock_outputs(stock), strict=True):
        assert torch.equal(ours, theirs)
    learner = load(tiny_checkpoints["ltx_2"], parts=frozenset({"transformer"}))
    assert torch.equal(learner.sample(*embeds, SEEDS), latents), "it needs none of the VAEs"


@pytest.mark.parametrize("stg", [{}, {"stg_scale": 0.5, "stg_blocks": [1]}], ids=["", "stg"])
def test_every_guidance_of_the_pipeline_is_a_setting(newer: Path, stg: dict[str, Any]) -> None:
    """Also that LTX-2.3, with other text, gates and modulations, is read as its pipeline reads."""
    stock, policy = stock_of(newer), load(newer, **GUIDED, **stg)
    found = handed_out(stock, policy.sample(*policy.encode([PROMPT, NEGATIVE]), SEEDS))
    expected = stock_outputs(
        stock,
        guidance_scale=3.0,
        audio_guidance_scale=5.0,
        modality_scale=2.0,
        audio_modality_scale=2.0,
        guidance_rescale=0.7,
        audio_guidance_rescale=0.7,
        stg_scale=stg.get("stg_scale", 0.0),
        audio_stg_scale=stg.get("stg_scale", 0.0),
        spatio_temporal_guidance_blocks=stg.get("stg_blocks"),
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    plain = handed_out(stock, load(newer).sample(*policy.encode([PROMPT, NEGATIVE]), SEEDS))
    assert (plain[0] - found[0]).abs().max() > 1e-2
    assert policy._family.forwards_per_step(policy._sampling) == 3 + bool(stg)


def test_the_prediction_of_the_newer_model_is_the_pipeline_s_own_call(newer: Path) -> None:
    stock, policy, tiny = stock_of(newer), load(newer, guidance_scale=1.0), TINY["ltx_2"]
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def record(_: Any, __: Any, named: dict[str, Any], output: tuple[Tensor, ...]) -> None:
        calls.append((tiny.noisy(named), named["timestep"], tiny.predicted(output)))

    stock.transformer.register_forward_hook(record, with_kwargs=True)
    stock_outputs(stock, guidance_scale=1.0, audio_guidance_scale=1.0)
    prompt, _ = policy.encode([PROMPT, NEGATIVE])
    for x_t, timestep, expected in calls:
        joint = policy._unpacked(x_t)
        found = policy.predict(joint, timestep / 1000, [prompt, prompt], "policy")
        torch.testing.assert_close(found, policy._unpacked(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_left_over_costs_no_loss(tiny_checkpoints: dict[str, Path], dtype: str) -> None:
    policy = load(tiny_checkpoints["ltx_2"], dtype=dtype)
    prompt, negative = policy.encode([PROMPT, NEGATIVE])
    x0 = policy.sample(prompt, negative, SEEDS)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    t_B = torch.tensor([0.3, 0.9])
    x_t = policy.process.corrupt(x0, noise, t_B)
    error = policy.predict(x_t, t_B, [prompt] * 2, "policy") - policy.process.target(x0, noise, t_B)
    tokens = error[:, :, 3:].flatten(2)
    torch.testing.assert_close(tokens[..., SOUND_TOKENS:], torch.zeros(2, 8, 7), atol=1e-6, rtol=0)
    assert (tokens[..., :SOUND_TOKENS].abs().mean(dim=1) > 0.1).all(), "the sound does"
    x_t.requires_grad_()
    at_once = policy.predict(x_t, torch.zeros(2), [prompt] * 2, "policy")
    at_once.square().sum().backward()
    assert at_once.isfinite().all()
    assert x_t.grad is not None and x_t.grad.isfinite().all()


def test_the_sound_is_read_with_the_picture_and_learned_with_it(
    tiny_checkpoints: dict[str, Path],
) -> None:
    policy = load(tiny_checkpoints["ltx_2"])
    prompt, _ = policy.encode([PROMPT, NEGATIVE])
    x_t, t_B = torch.randn(1, *TINY["ltx_2"].latents), torch.tensor([0.5])
    other = x_t.clone()
    other[:, :, 3:] = torch.randn(1, 8, 2, 4, 4)
    found, changed = (policy.predict(x, t_B, [prompt], "policy") for x in (x_t, other))
    assert (found - changed)[:, :, :3].abs().max() > 1e-3
    trained = policy.weights()
    for name in ("audio_to_video_attn.to_q", "video_to_audio_attn.to_k", "audio_ff.net.0.proj"):
        assert any(name in each for each in trained)


def test_predictions_of_both_are_changed_together_at_every_step(
    tiny_checkpoints: dict[str, Path],
) -> None:
    policy = load(tiny_checkpoints["ltx_2"])
    embeds = policy.encode([PROMPT, NEGATIVE])
    expected = policy.sample(*embeds, SEEDS)
    seen: list[tuple[Tensor, Tensor, float]] = []

    def keep(prediction: Tensor, x_t: Tensor, t_B: Tensor) -> Tensor:
        seen.append((prediction, x_t, t_B[0].item()))
        return prediction

    with policy.changed_predictions(keep):
        assert torch.equal(policy.sample(*embeds, SEEDS), expected)
    assert [prediction.shape for prediction, *_ in seen] == [expected.shape] * 3
    assert 1 == seen[0][2] > seen[1][2] > seen[2][2] > 0
    for (velocity, x_t, t), (_, after, s) in pairwise(seen):
        torch.testing.assert_close(x_t + (s - t) * velocity, after, atol=1e-5, rtol=1e-5)
    with policy.changed_predictions(lambda prediction, *_: torch.zeros_like(prediction)):
        assert torch.equal(policy.sample(*embeds, SEEDS), seen[0][1]), "the noise stays"
    assert torch.equal(policy.sample(*embeds, SEEDS), expected)


def test_an_embedding_is_what_the_connectors_make_of_a_prompt(newer: Path) -> None:
    stock, policy = stock_of(newer), load(newer)
    (found,) = policy.encode([PROMPT])
    with torch.no_grad():
        embeds, mask, *_ = stock.encode_prompt(
            PROMPT, do_classifier_free_guidance=False, max_sequence_length=16
        )
        picture, sound, _ = stock.connectors(embeds, mask, padding_side="left")
    assert torch.equal(found["prompt_embeds"], picture[0])
    assert torch.equal(found["audio_prompt_embeds"], sound[0])
    assert (picture.shape, sound.shape) == ((1, 16, 32), (1, 16, 16))
    with pytest.raises(ConfigError, match=r"max_sequence_length must be a multiple of 8 .* got 12"):
        load(newer, max_sequence_length=12)


def test_both_come_apart_as_they_were_put_together() -> None:
    """A sound of other numbers per token than the picture has channels."""
    shape = Shape(frames=2, rows=2, columns=3, channels=4, sound_tokens=5, sound_width=7)
    assert shape.sound_frames == 2, "35 numbers, 24 a frame"
    picture, sound = torch.randn(2, 12, 4), torch.randn(2, 5, 7)
    both = join(shape, picture, sound)
    assert both.shape == (2, 24, 4)
    assert both.flatten(1)[:, 48 + 35 :].abs().max() == 0
    for found, expected in zip(part(shape, both), (picture, sound), strict=True):
        assert torch.equal(found, expected)
    rest = torch.randn(2, 24, 4)
    filled = join(shape, picture, sound, rest)
    assert torch.equal(filled.flatten(1)[:, 83:], rest.flatten(1)[:, 83:])


def changed(folder: Path, to: Path, file: str, **settings: Any) -> Path:
    """Return a copy of a checkpoint with other settings in one of its files."""
    shutil.copytree(folder, to)
    path = to / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return to


def test_what_the_pipeline_cannot_do_is_refused(tiny_checkpoints: dict[str, Path]) -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"num_inference_steps": 1}, "num_inference_steps must be 2 or more.* got 1"),
        ({"height": 48}, "multiples of 32 for this model, got 48 and 32"),
        ({"num_frames": 6}, r"num_frames must be a multiple of 2 plus 1.* got 6"),
        ({"num_frames": 1, "fps": 100.0}, "whose video has a sound: .* got 1 frames at 100 per"),
        ({"flow_shift": 3.0}, "flow_shift must be null"),
        ({"step_cache": "taylorseer"}, "step_cache must be none for this model"),
        ({"stg_scale": 1.0, "stg_blocks": [0]}, r"stg_scale must be 0 .*perturbed_attn=false"),
    )
    for settings, said in cases:
        with pytest.raises(ConfigError, match=said):
            load(tiny_checkpoints["ltx_2"], **settings)


def test_blocks_that_there_are_not_are_refused(newer: Path) -> None:
    with pytest.raises(ConfigError, match=r"stg_blocks must be some of 0 \.\.\. 1 .* got 2"):
        load(newer, stg_scale=1.0, stg_blocks=[1, 2])


def test_without_blocks_that_leave_out_attention_that_guidance_does_nothing(
    tiny_checkpoints: dict[str, Path],
) -> None:
    """Why it is refused of LTX-2."""
    stock = stock_of(tiny_checkpoints["ltx_2"])
    plain = stock_outputs(stock)
    guided = stock_outputs(
        stock, stg_scale=2.0, audio_stg_scale=2.0, spatio_temporal_guidance_blocks=[0]
    )
    for one, other in zip(plain, guided, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_a_checkpoint_that_does_not_fit_is_refused_before_weights_are_read(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = tiny_checkpoints["ltx_2"]
    with pytest.raises(ConfigError, match=r"LTXPipeline, but policy\.family needs a LTX2Pipeline"):
        load(tiny_checkpoints["ltx_video"])
    other = changed(
        folder,
        tmp_path / "2.5",
        "model_index.json",
        text_encoder=["transformers", "Gemma4UnifiedForConditionalGeneration"],
    )
    with pytest.raises(ConfigError, match=r"has a Gemma4Unified.*ltx_2 reads LTX-2 and LTX-2\.3"):
        load(other)
    other = changed(folder, tmp_path / "audio", "audio_vae/config.json", latent_channels=3)
    with pytest.raises(CheckpointError, match=r"reads 8 numbers .* audio_vae makes 3 × 4"):
        load(other)
    none = dict.fromkeys(
        (f"{half}_connector_num_learnable_registers" for half in ("video", "audio")), None
    )
    other = changed(folder, tmp_path / "registers", "connectors/config.json", **none)
    with pytest.raises(CheckpointError, match="its connectors have no learnable registers"):
        load(other)
    for part_name in ("connectors", "audio_vae"):
        shutil.rmtree(other / part_name)
        with pytest.raises(CheckpointError, match=rf"(has no |/){part_name}[ ,/]"):
            load(other)
        shutil.copytree(folder / part_name, other / part_name)


def test_videos_in_files_are_refused_before_anything_is_loaded(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    recipe = load_recipe("ltx_2", [f"policy.path={tiny_checkpoints['ltx_2']}"])
    recipe.offline.archive = str(save_video_pairs(tmp_path / "pairs"))
    with pytest.raises(ArchiveError, match="has videos in files, whose sound is not read"):
        check_archive(recipe, RunFolder(tmp_path))


def test_latents_of_an_archive_are_learned_from_at_their_own_rate(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    online = small_recipe("ltx_2", tiny_checkpoints, tmp_path / "online")
    online.archive.latents, online.archive.videos = True, "none"
    with open_run(online) as folder:
        parts, progress, _ = local_parts(online, folder, JsonlSink(folder.metrics))
        train(online, parts, progress, lambda: False)
    offline = small_recipe("ltx_2", tiny_checkpoints, tmp_path / "offline")
    offline.offline.archive = str(folder.archive)
    with open_run(offline) as again:
        assert train_alone(offline, again, lambda: False)
    losses = [row["learn/loss"] for row in read_metrics(again.metrics)]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[1] != pytest.approx(math.log(2), abs=1e-6)
    offline.sampling.fps = 23.0
    with pytest.raises(ArchiveError, match=r"sampling\.fps=24\.0, but this recipe has .*=23\.0"):
        check_archive(offline, again)


def test_videos_cannot_be_shared() -> None:
    configs = {"transformer": PUBLISHED["lightricks/ltx-2"]["transformer"], "vae": {}}
    with pytest.raises(ConfigError, match=r"videos of policy\.family=ltx_2 cannot be shared"):
        check_sharing("ltx_2", configs, tiny_sampling("ltx_2"), 2, "learner.context_parallel")


def test_the_published_transformer_has_19_billion_parameters() -> None:
    """13 of the picture and 6 of the sound and between them.

    The authors' file is called `ltx-2-19b`; its paper (arXiv 2601.03233) says 14 and 5.
    """
    config = PUBLISHED["lightricks/ltx-2"]["transformer"]
    with torch.device("meta"):
        model: Any = LTX2VideoTransformer3DModel.from_config(config)
    assert model.num_parameters() == 18_876_174_592
    picture = sum(
        each.numel()
        for name, each in model.named_parameters()
        if "audio" not in name and "av_cross" not in name
    )
    assert picture == pytest.approx(13.1e9, rel=0.01)


def test_plans_count_gemma_and_the_connectors(tiny_checkpoints: dict[str, Path]) -> None:
    folder = tiny_checkpoints["ltx_2"]
    recipe = load_recipe("ltx_2", [f"policy.path={folder}", "sampling.max_sequence_length=16"])
    counts = PolicyCounts(recipe, read_configs(str(folder)))
    found, stock = count_encoder(counts), stock_of(folder)
    assert found.numbers == {
        name: sum(each.numel() for each in getattr(stock, name).parameters())
        for name in ("text_encoder", "connectors")
    }
    # Hidden states of an embedding and two layers, stacked and flattened, beside the logits.
    all_layers = 3 * 16 * 16 * counts.dtype.itemsize
    assert found.memory.activations >= 2 * all_layers
    assert (counts.guided, counts.forwards) == (2, 3), "one more without attention between both"
    recipe.sampling.modality_scale = 1.0
    assert (counts.guided, counts.forwards) == (2, 2)


def test_guidance_is_the_pipeline_s_own_unless_a_recipe_says_it(tmp_path: Path) -> None:
    """Its defaults, but for what does nothing of LTX-2."""
    file = tmp_path / "own.yaml"
    for path, scale, blocks in (("Lightricks/LTX-2", 0.0, []), ("some/LTX-2.3-dev", 1.0, [28])):
        file.write_text(
            f"name: own\npolicy: {{family: ltx_2, path: {path}}}\n"
            "prompts: {source: moving_shapes}\nrewards: [{name: moving_shapes}]\n"
        )
        made = load_recipe(str(file)).sampling
        assert (made.guidance_scale, made.audio_guidance_scale) == (3.0, 7.0)
        assert (made.modality_scale, made.guidance_rescale) == (3.0, 0.7)
        assert (made.stg_scale, made.stg_blocks) == (scale, blocks)
    said = r"stg_scale and sampling\.stg_blocks must be given together"
    with pytest.raises(ConfigError, match=said):
        load_recipe("ltx_2", ["sampling.stg_scale=1"])


def test_a_published_video_has_one_frame_of_sound_in_plans() -> None:
    """126 tokens of 128 numbers, for 121 frames at 24 per second."""
    recipe = load_recipe("ltx_2")
    configs = read_configs(recipe.policy.path)
    assert picture_shape(recipe, configs) == (128, 16, 16, 24)
    assert latent_shape(recipe, configs) == (128, 17, 16, 24)
    family, transformer = load_family("ltx_2"), configs.parts["transformer"]
    recipe.sampling.fps = 6.0  # 504 tokens, 384 a frame
    assert family.added_frames(transformer, (16, 16, 24), recipe.sampling) == 2
