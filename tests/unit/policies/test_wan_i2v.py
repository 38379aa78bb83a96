"""Wan image-to-video against its stock pipeline, beyond what the contract suites ask."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanImageToVideoPipeline
from PIL import Image
from torch import Tensor, nn

from tests.families.wan_i2v import PICTURE, options, save_tiny_wan_i2v
from tests.tiny import tiny_policy, tiny_sampling
from videorl.config import Recipe
from videorl.errors import ConfigError, PromptError
from videorl.planning.encoder import count_encoder
from videorl.planning.memory import PolicyCounts
from videorl.planning.models import read_configs
from videorl.planning.published import PUBLISHED
from videorl.policies import FAMILIES, FROM_IMAGES, load_family, load_policy
from videorl.policies.checkpoints import PARTS
from videorl.policies.images import example
from videorl.policies.pipeline_policy import PipelinePolicy
from videorl.types import BLANK, TextAndImage

PROMPT, SEEDS = TextAndImage("a red circle moves left", str(PICTURE)), (11, 12)


@pytest.fixture(scope="module")
def ti2v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_wan_i2v(tmp_path_factory.mktemp("ti2v"), is_ti2v=True)


def load(folder: Path, parts: frozenset[str] = PARTS, **changes: object) -> PipelinePolicy:
    trainable = bool(changes.pop("trainable", False))
    sampling = tiny_sampling("wan_i2v", **changes)
    config = tiny_policy(folder, "wan_i2v")
    policy = load_policy(config, sampling, parts=parts, seed=3, trainable=trainable)
    assert isinstance(policy, PipelinePolicy)
    return policy


def stock_calls(folder: Path, **changes: object) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Return samples of the stock pipeline, and what its transformer was given and put out."""
    pipeline: Any = WanImageToVideoPipeline.from_pretrained(folder, expand_timesteps=True)
    pipeline.set_progress_bar_config(disable=True)
    calls: list[dict[str, Tensor]] = []
    pipeline.transformer.register_forward_hook(
        lambda _, __, named, output: calls.append({**named, "output": output[0]}), with_kwargs=True
    )
    sampled = pipeline(
        prompt=[PROMPT.text] * 2,
        negative_prompt=[""] * 2,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="latent",
        return_dict=False,
        **options(tiny_sampling("wan_i2v", **changes)),
    )[0]
    return sampled, calls


@pytest.mark.parametrize("in_one_batch", [False, True])
def test_samples_of_ti2v_are_those_of_the_stock_pipeline(ti2v: Path, in_one_batch: bool) -> None:
    policy = load(ti2v, guidance_in_one_batch=in_one_batch)
    embeds, negative = policy.encode([PROMPT, ""])
    found, (expected, _) = policy.sample(embeds, negative, SEEDS), stock_calls(ti2v)
    if in_one_batch:
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    else:
        assert torch.equal(found, expected)
    assert torch.equal(found[0, :, :1], embeds["image_latents"]), "the picture is the first frame"


def test_a_learner_s_call_of_ti2v_is_the_stock_pipeline_s(ti2v: Path) -> None:
    _, calls = stock_calls(ti2v, guidance_scale=1.0)
    policy = load(ti2v, trainable=True)
    (embeds,) = policy.encode([PROMPT])
    own: list[dict[str, Tensor]] = []
    policy.trainable_module().register_forward_hook(
        lambda _, __, named, output: own.append({**named, "output": output[0]}), with_kwargs=True
    )
    noise = torch.randn(2, 12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for call in calls:
        t_B = call["timestep"][:, -1] / 1000
        x_t_BCTHW = torch.cat([noise, call["hidden_states"][:, :, 1:]], dim=2)
        found = policy.predict(x_t_BCTHW, t_B, [embeds, embeds], "policy")
        for name in ("hidden_states", "timestep", "encoder_hidden_states"):
            torch.testing.assert_close(own[-1][name], call[name], atol=1e-4, rtol=0)
        torch.testing.assert_close(found[:, :, 1:], call["output"][:, :, 1:], atol=1e-5, rtol=0)
    assert calls[0]["timestep"].eq(0).sum(1).tolist() == [4, 4], "tokens of the first frame"


def test_the_first_frame_of_ti2v_has_no_loss_and_no_gradient(ti2v: Path) -> None:
    policy = load(ti2v, trainable=True)
    (embeds,) = policy.encode([PROMPT])
    generator, t_B = torch.Generator().manual_seed(1), torch.tensor([0.05, 0.8])
    x0, noise = torch.randn(2, 2, 12, 3, 4, 4, generator=generator)
    x0[:, :, :1] = embeds["image_latents"]
    x_t, target = policy.process.corrupt(x0, noise, t_B), policy.process.target(x0, noise, t_B)
    found = policy.predict(x_t, t_B, [embeds, embeds], "policy")
    errors = (found - target).square().mean((0, 1, 3, 4))
    assert errors[0] < 1e-10 < 0.01 < errors[1:].min()
    assert (
        not found[:, :, 0].requires_grad
        or not torch.autograd.grad(
            found[:, :, 0].sum(),
            [one for one in policy.trainable_module().parameters() if one.requires_grad],
            allow_unused=True,
            materialize_grads=True,
        )[0].any()
    )
    clean, _ = policy.process.decompose(x_t, found, t_B)
    torch.testing.assert_close(clean[:, :, :1], x0[:, :, :1], atol=1e-5, rtol=0)
    assert policy.predict(x_t, torch.zeros(2), [embeds, embeds], "policy").isfinite().all()


def test_noisy_latents_of_ti2v_show_the_picture(ti2v: Path) -> None:
    policy = load(ti2v)
    embeds, negative = policy.encode([PROMPT, ""])
    partly, _ = policy.sample_partly([embeds] * 2, [negative] * 2, SEEDS, (1, 3), 3)
    assert torch.equal(partly[0, :, :1], embeds["image_latents"])
    assert torch.equal(partly[1], policy.sample(embeds, negative, SEEDS)[1])


def test_one_call_samples_for_several_pictures(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    Image.new("RGB", (9, 30), (200, 30, 60)).save(tmp_path / "other.png")
    policy = load(tiny_checkpoints["wan_i2v"])
    texts = [PROMPT, TextAndImage(PROMPT.text, str(tmp_path / "other.png"))]
    embeds, (negative,) = policy.encode(texts), policy.encode([""])
    together, _ = policy.sample_partly(embeds, [negative] * 2, SEEDS, (3, 3), 3)
    for number, seed in enumerate(SEEDS):
        alone = policy.sample(embeds[number], negative, [seed])[0]
        torch.testing.assert_close(together[number], alone, atol=1e-5, rtol=0)
    other = policy.sample(embeds[0], negative, [SEEDS[1]])[0]
    assert not torch.allclose(together[1], other, atol=1e-3), "the picture matters"


@pytest.mark.parametrize("is_ti2v", [False, True])
def test_a_process_without_vae_samples_the_same(
    is_ti2v: bool, ti2v: Path, tiny_checkpoints: dict[str, Path]
) -> None:
    folder = ti2v if is_ti2v else tiny_checkpoints["wan_i2v"]
    encoder = load(folder, frozenset({"text_encoder"}))
    learner, generator = load(folder, frozenset({"transformer"})), load(folder)
    embeds, negative = encoder.encode([PROMPT, ""])
    expected = generator.sample(embeds, negative, [5])
    assert torch.equal(learner.sample(embeds, negative, [5]), expected)
    zeros = example(learner._family, learner._pipeline, tiny_sampling("wan_i2v"))
    assert zeros.tensors.keys() == embeds.tensors.keys()
    assert zeros["image_latents"].shape == embeds["image_latents"].shape


def test_a_blank_picture_is_grey_and_of_no_use_to_models_of_text(
    tiny_checkpoints: dict[str, Path],
) -> None:
    text = load_policy(
        tiny_policy(tiny_checkpoints["wan"]), tiny_sampling(), parts=frozenset({"text_encoder"})
    )
    plain, blank = text.encode(["red", TextAndImage("red", BLANK)])
    assert torch.equal(plain["prompt_embeds"], blank["prompt_embeds"])
    with pytest.raises(PromptError, match="has an image, but Wan makes videos from text alone"):
        text.encode([PROMPT])
    found = load(tiny_checkpoints["wan_i2v"]).encode([TextAndImage("red", BLANK)])[0]
    assert found["image_latents"].shape == (12, 3, 4, 4)


def test_a_prompt_without_picture_is_refused(tiny_checkpoints: dict[str, Path]) -> None:
    policy = load(tiny_checkpoints["wan_i2v"])
    embeds, negative = policy.encode(["red", ""])
    with pytest.raises(PromptError, match="needs a prompt with an image"):
        policy.sample(embeds, negative, [1])
    with pytest.raises(PromptError, match=r"image /nowhere\.png cannot be read"):
        policy.encode([TextAndImage("red", "/nowhere.png")])


def test_models_that_cannot_be_trained_are_refused(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = tiny_checkpoints["wan_i2v"]
    with pytest.raises(ConfigError, match="max_sequence_length must be 512"):
        load(folder, max_sequence_length=16)
    with pytest.raises(ConfigError, match=r"WanPipeline, but policy\.family needs a WanImageToVid"):
        load(tiny_checkpoints["wan"])
    for part in folder.iterdir():
        (tmp_path / part.name).symlink_to(part)
    config = json.loads((folder / "transformer/config.json").read_text())
    (tmp_path / "transformer").unlink()
    (tmp_path / "transformer").mkdir()
    for file in (folder / "transformer").iterdir():
        (tmp_path / "transformer" / file.name).symlink_to(file)
    (tmp_path / "transformer/config.json").unlink()
    changed = json.dumps(config | {"pos_embed_seq_len": 514})
    (tmp_path / "transformer/config.json").write_text(changed)
    with pytest.raises(ConfigError, match="FLF2V"):
        load(tmp_path)


def count(model: str, parts: Sequence[str]) -> list[int]:
    from transformers import CLIPVisionConfig

    classes, configs = load_family("wan_i2v").model_classes, PUBLISHED[model]
    found: list[int] = []
    for part in parts:
        with torch.device("meta"):
            made: nn.Module = (
                classes[part](CLIPVisionConfig(**configs[part]))
                if part == "image_encoder"
                else classes[part].from_config(configs[part])
            )
        found.append(sum(parameter.numel() for parameter in made.parameters()))
    return found


def test_published_sizes() -> None:
    """Transformer as in diffusers' conversion script; 16.4 billion, and CLIP ViT-H/14's 631 million
    of pictures (1.26 GB in float16 on the hub)."""
    transformer, clip = count(
        "wan-ai/wan2.1-i2v-14b-480p-diffusers", ("transformer", "image_encoder")
    )
    assert (round(transformer / 1e9, 1), round(clip / 1e6)) == (16.4, 631)
    (ti2v,) = count("wan-ai/wan2.2-ti2v-5b-diffusers", ("transformer",))
    assert round(ti2v / 1e9, 1) == 5.0


def test_plans_count_the_vae_with_the_encoders(tiny_checkpoints: dict[str, Path]) -> None:
    folder = tiny_checkpoints["wan_i2v"]
    recipe = Recipe(name="tiny", num_steps=1, sampling=tiny_sampling("wan_i2v"))
    recipe.policy = tiny_policy(folder, "wan_i2v")
    configs = read_configs(str(folder), "WanImageToVideoPipeline")
    counts = PolicyCounts(recipe, configs, on_gpu=False)
    pipeline = load(folder)._pipeline
    held = (pipeline.text_encoder, pipeline.image_encoder, pipeline.vae)
    numbers = sum(each.numel() for model in held for each in model.parameters())
    found = count_encoder(counts)
    assert found.memory.weights == pytest.approx(4 * numbers, rel=0.02)
    assert found.prompt.flops > counts.picture.flops > 0


def test_families_say_the_same_with_and_without_torch() -> None:
    assert {name for name in FAMILIES if load_family(name).takes_images} == FROM_IMAGES
