"""Two transformers: who computes at which times, who is trained, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from torch import Tensor

from tests.families.wan_2_2 import BOUNDARY, save_tiny_wan_2_2
from tests.tiny import tiny_policy, tiny_sampling
from tests.unit.policies.test_wan import copy_with_index
from videorl.config import OptimizerConfig
from videorl.embedding import plain
from videorl.errors import CheckpointError, ConfigError
from videorl.learning.engines.local import LocalEngine
from videorl.policies import load_policy
from videorl.policies.checkpoints import PARTS
from videorl.policies.experts import Experts, models_of
from videorl.policies.pipeline_policy import PipelinePolicy
from videorl.recipes.reading import load_recipe
from videorl.sampling.canary import difference
from videorl.weights import digest

LEARNER = frozenset({"transformer"})
DRAW = torch.Generator().manual_seed(0)
X_T = torch.randn(4, 12, 3, 4, 4, generator=DRAW)
EMBEDS = [plain(one) for one in torch.randn(4, 5, 16, generator=DRAW)]
BELOW = float(torch.nextafter(torch.tensor(BOUNDARY), torch.tensor(0.0)))
MIXED = torch.tensor([0.1, BOUNDARY, 1.0, BELOW])
"""Times of the second transformer, the first, the first, and the second."""
NAMES = ("transformer", "transformer_2")


@pytest.fixture
def folder(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["wan_2_2"]


@pytest.fixture
def load(folder: Path) -> Callable[..., PipelinePolicy]:
    def load(experts: str = "both", *, rank: int = 4, **options: Any) -> PipelinePolicy:
        config = tiny_policy(folder, "wan_2_2", rank=rank, initial=options.pop("initial", None))
        config.experts = experts
        options = {"parts": LEARNER, "trainable": True, **options}
        made = load_policy(config, tiny_sampling("wan_2_2"), **options)
        assert isinstance(made, PipelinePolicy)
        return made

    return load


def changed(policy: PipelinePolicy) -> PipelinePolicy:
    draw = torch.Generator().manual_seed(1)
    weights = policy.weights().items()
    policy.load_weights(
        {name: one + torch.randn(one.shape, generator=draw) / 4 for name, one in weights}
    )
    return policy


def experts_of(policy: PipelinePolicy) -> dict[str, Any]:
    module = policy.trainable_module()
    assert isinstance(module, Experts)
    return models_of(module)


def who_computes(policy: PipelinePolicy, t_B: Tensor) -> list[tuple[str, int]]:
    """Return which transformers compute, and how many items each."""
    seen: list[tuple[str, int]] = []
    hooks = [
        model.register_forward_pre_hook(
            lambda _, __, named, name=name: seen.append((name, len(named["timestep"]))),
            with_kwargs=True,
        )
        for name, model in experts_of(policy).items()
    ]
    policy.predict(X_T[: len(t_B)], t_B, EMBEDS[: len(t_B)], "policy")
    for hook in hooks:
        hook.remove()
    return seen


def test_exactly_at_the_boundary_the_first_computes_as_in_the_stock_pipeline(
    folder: Path, load: Callable[..., PipelinePolicy]
) -> None:
    policy = load(trainable=False)
    stock = {name: WanTransformer3DModel.from_pretrained(folder, subfolder=name) for name in NAMES}
    padded = torch.zeros(1, 16, 16)
    padded[0, :5] = EMBEDS[0]["prompt_embeds"]
    for time, name in ((BOUNDARY, "transformer"), (BELOW, "transformer_2")):
        t_B = torch.tensor([time])
        assert who_computes(policy, t_B) == [(name, 1)]
        with torch.no_grad():
            expected = stock[name](X_T[:1], 1000 * t_B, padded).sample
        assert torch.equal(policy.predict(X_T[:1], t_B, EMBEDS[:1], "policy"), expected)


def test_the_stock_pipeline_switches_where_the_learner_does(
    folder: Path, load: Callable[..., PipelinePolicy]
) -> None:
    """A step of it exactly at the boundary: at 750 of the timesteps 1000, 750, ..."""
    pipeline = WanPipeline.from_pretrained(folder)
    pipeline.scheduler.register_to_config(shift=1.0)
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, shift=1.0)
    pipeline.set_progress_bar_config(disable=True)
    stock: list[tuple[float, str]] = []
    for name in NAMES:
        getattr(pipeline, name).register_forward_pre_hook(
            lambda _, __, named, name=name: stock.append((float(named["timestep"][0]), name)),
            with_kwargs=True,
        )
    set_timesteps = pipeline.scheduler.set_timesteps
    pipeline.scheduler.set_timesteps = lambda *_, device=None: set_timesteps(
        sigmas=[1.0, BOUNDARY, BELOW, 0.25], device=device
    )
    pipeline(
        prompt_embeds=torch.zeros(1, 16, 16),
        height=16,
        width=16,
        num_frames=5,
        guidance_scale=1.0,
        output_type="latent",
    )
    policy = load(trainable=False)
    assert [time for time, _ in stock][1] == 1000 * BOUNDARY
    for time, name in stock:
        assert who_computes(policy, torch.tensor([time / 1000])) == [(name, 1)]


@pytest.mark.parametrize("rank", [4, 0], ids=["lora", "full"])
def test_a_batch_of_both_experts_is_its_items_one_by_one(
    load: Callable[..., PipelinePolicy], rank: int
) -> None:
    policy = changed(load(rank=rank))
    assert who_computes(policy, MIXED) == [("transformer", 2), ("transformer_2", 2)]
    for role in ("policy", "reference"):
        found = policy.predict(X_T, MIXED, EMBEDS, role)
        alone = [
            policy.predict(X_T[n : n + 1], MIXED[n : n + 1], EMBEDS[n : n + 1], role)
            for n in range(len(X_T))
        ]
        torch.testing.assert_close(found, torch.cat(alone), atol=1e-5, rtol=0)
    assert not torch.allclose(found, policy.predict(X_T, MIXED, EMBEDS, "policy"), atol=1e-3)


@pytest.mark.parametrize("rank", [4, 0], ids=["lora", "full"])
def test_only_the_expert_that_computed_gets_a_gradient(
    load: Callable[..., PipelinePolicy], rank: int
) -> None:
    policy = load(rank=rank)
    policy.predict(X_T[:2], torch.tensor([0.8, 0.9]), EMBEDS[:2], "policy").sum().backward()
    moved = {
        name.partition(".")[0]
        for name, parameter in policy.trainable_module().named_parameters()
        if parameter.grad is not None
    }
    assert moved == {"transformer"}
    assert {name.partition(".")[0] for name in policy.weights()} == {*NAMES}


def test_an_update_without_an_item_of_an_expert_can_be_saved(
    load: Callable[..., PipelinePolicy],
) -> None:
    policy = load()
    engine = LocalEngine(policy.trainable_module(), OptimizerConfig())
    loss = policy.predict(X_T[:1], torch.tensor([0.1]), EMBEDS[:1], "policy").square().sum()
    engine.backward(loss, is_last=True)
    engine.step(1e-3)
    moments = {name: one for name, one in engine.state().items() if name.startswith("exp_avg/")}
    moved = {name.split("/")[1].partition(".")[0] for name, one in moments.items() if one.any()}
    assert len(moments) == len(policy.weights())
    assert moved == {"transformer_2"}


@pytest.mark.parametrize("rank", [4, 0], ids=["lora", "full"])
@pytest.mark.parametrize("experts, name", [("high", "transformer"), ("low", "transformer_2")])
def test_one_expert_alone_is_trained_on_its_own_times(
    load: Callable[..., PipelinePolicy], rank: int, experts: str, name: str
) -> None:
    policy = load(experts, rank=rank, keep_base=True)
    assert {key.partition(".")[0] for key in policy.weights()} == {name}
    trained = {
        key for key, one in policy.trainable_module().named_parameters() if one.requires_grad
    }
    assert trained and all(key.startswith(f"{name}.") for key in trained)
    times = policy.process.sample_times(torch.tensor([0.0, 0.25, 0.5, 1.0]))
    first, last = (BOUNDARY, 1.0) if experts == "high" else (0.0, BOUNDARY)
    torch.testing.assert_close(times[:3], first + (last - first) * torch.tensor([0, 0.25, 0.5]))
    assert times[3] < last, "rounding does not lead to the other's times"
    assert [who for who, _ in who_computes(policy, times)] == [name]
    policy.predict(X_T, times, EMBEDS, "policy").sum().backward()
    before = policy.predict(X_T, MIXED, EMBEDS, "reference")
    changed(policy)
    is_own = MIXED >= BOUNDARY if experts == "high" else MIXED < BOUNDARY
    now = policy.predict(X_T, MIXED, EMBEDS, "policy").detach()
    assert [bool((a != b).any()) for a, b in zip(now, before, strict=True)] == is_own.tolist()
    policy.update_reference()
    assert torch.equal(policy.predict(X_T, MIXED, EMBEDS, "reference"), now)
    assert torch.equal(policy.predict(X_T, MIXED, EMBEDS, "base"), before)
    generator = load(experts, rank=rank, trainable=False)
    generator.load_weights(policy.weights())
    assert digest(generator.weights()) == digest(policy.weights())


def test_two_experts_draw_times_of_the_whole_range(load: Callable[..., PipelinePolicy]) -> None:
    uniform = torch.tensor([0.0, 0.3, 0.999])
    assert torch.equal(load().process.sample_times(uniform), uniform)


@pytest.mark.parametrize("experts, name", [("high", NAMES[0]), ("low", NAMES[1])])
def test_an_export_of_one_expert_goes_on_as_that_expert_alone(
    load: Callable[..., PipelinePolicy], tmp_path: Path, experts: str, name: str
) -> None:
    policy = changed(load(experts))
    policy.export(tmp_path)
    (file,) = tmp_path.iterdir()
    for source in (tmp_path, file):
        again = load(experts, initial=str(source))
        assert digest(again.weights()) == digest(policy.weights())
        other = "low" if experts == "high" else "high"
        with pytest.raises(CheckpointError, match=r"policy\.lora\.initial: .*expert"):
            load(other, initial=str(source))
        with pytest.raises(CheckpointError, match=r"policy\.lora\.initial: .*expert"):
            load("both", initial=str(source))


def test_files_called_high_and_low_are_the_experts_adapters(
    load: Callable[..., PipelinePolicy], tmp_path: Path
) -> None:
    policy = changed(load())
    policy.export(tmp_path / "export")
    (tmp_path / "named").mkdir()
    for number, noise in (("", "High_Noise"), ("_2", "low_noise")):
        file = tmp_path / f"export/pytorch_lora_weights{number}.safetensors"
        file.rename(tmp_path / f"named/style_{noise}.safetensors")
    again = load(initial=str(tmp_path / "named"))
    assert digest(again.weights()) == digest(policy.weights())


def test_full_weights_of_one_expert_are_exported_alone(
    load: Callable[..., PipelinePolicy], tmp_path: Path
) -> None:
    load("low", rank=0).export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["transformer_2"]


def test_a_file_of_other_weights_is_not_kept(
    load: Callable[..., PipelinePolicy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second expert's file is tried in the second expert: here it holds the first's."""
    from videorl.policies import adapter_export

    save = adapter_export._save
    policy = changed(load())
    first = {
        name.removeprefix("transformer."): one
        for name, one in policy.weights().items()
        if name.startswith("transformer.")
    }
    monkeypatch.setattr(
        adapter_export, "_save", lambda family, model, _, file: save(family, model, first, file)
    )
    with pytest.raises(CheckpointError, match="computes other videos"):
        policy.export(tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_what_makes_sampling_faster_is_for_both(tmp_path: Path) -> None:
    folder = save_tiny_wan_2_2(tmp_path, layers=3)

    def load(compiler: str = "none", **changes: Any) -> PipelinePolicy:
        config = tiny_policy(folder, "wan_2_2")
        config.compile = compiler
        made = load_policy(config, tiny_sampling("wan_2_2", **changes), parts=LEARNER, seed=3)
        assert isinstance(made, PipelinePolicy)
        return changed(made)

    def sample(policy: PipelinePolicy) -> Tensor:
        return policy.sample(EMBEDS[0], EMBEDS[1], [1, 2])

    expected, merged = sample(load()), load(merge_lora=True)
    base = {name: one.clone() for name, one in merged.trainable_module().state_dict().items()}
    exact = {"step_cache": "first_block", "step_cache_threshold": 1e-9}
    for fast in (load(guidance_in_one_batch=True), load(**exact), load("eager"), merged):
        calls: list[str] = []
        for name, model in experts_of(fast).items():
            model.blocks[2].register_forward_hook(
                lambda *_, calls=calls, name=name: calls.append(name)
            )
        assert difference(sample(fast), expected) < 1e-5
        assert {*calls} == {*NAMES}
        assert len(calls) == (3 if fast._sampling.guidance_in_one_batch else 6)
    layer = "blocks.0.attn1.to_q.base_layer.weight"
    changes = [
        name
        for name, model in experts_of(merged).items()
        if not torch.equal(model.get_parameter(layer), base[f"{name}.{layer}"])
    ]
    assert changes == [*NAMES], "both are merged"
    merged.predict(X_T, MIXED, EMBEDS, "policy")
    now = merged.trainable_module().state_dict()
    assert all(torch.equal(one, base[name]) for name, one in now.items())
    far = sample(load(step_cache="first_block", step_cache_threshold=10.0))
    assert difference(far, expected) > 1e-3


def test_checkpoints_of_the_other_kind_name_the_family(
    folder: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"two transformers.*set policy\.family=wan_2_2"):
        load_policy(tiny_policy(folder), tiny_sampling(), parts=PARTS)
    single = tiny_policy(tiny_checkpoints["wan"], "wan_2_2")
    with pytest.raises(ConfigError, match=r"holds a WanPipeline, .*set policy\.family=wan$"):
        load_policy(single, tiny_sampling("wan_2_2"), parts=PARTS)
    half = copy_with_index(folder, tmp_path, boundary_ratio=None)
    with pytest.raises(ConfigError, match=r"boundary_ratio for policy\.family=wan_2_2"):
        load_policy(tiny_policy(half, "wan_2_2"), tiny_sampling("wan_2_2"), parts=PARTS)


def test_settings_of_two_transformers_are_for_that_family_alone(
    tiny_checkpoints: dict[str, Path],
) -> None:
    one, two = tiny_checkpoints["wan"], ["policy.family=wan_2_2", "policy.path=folder"]
    for override, message in (
        ("policy.experts=low", r"policy\.experts must be both for policy\.family=wan,"),
        ("sampling.guidance_scale_2=3", r"guidance_scale_2 must be null for policy\.family=wan,"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_recipe("moving_shapes", [override])
    for override, message in (
        ("policy.experts=all", r"policy\.experts must be one of both, high, low"),
        ("sampling.guidance_scale_2=3", r"guidance_scale_2 must be null or at most 1 where"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_recipe("moving_shapes", [*two, override])
    several = [*two, "learner.num_workers=2", "learner.zero_stage=2"]
    with pytest.raises(ConfigError, match=r"learner\.zero_stage must be 0 or 1 where several"):
        load_recipe("moving_shapes", several)
    load_recipe("moving_shapes", [*several, "policy.experts=low"])
    load_recipe("moving_shapes", [*several, "learner.zero_stage=1"])
    with pytest.raises(ConfigError, match=r"policy\.experts must be both for objective\.name"):
        load_recipe("moving_shapes_refl", [*two, "policy.experts=high"])
    config = tiny_policy(one)
    config.experts = "low"
    with pytest.raises(ConfigError, match=r"policy\.experts must be both for a model with one"):
        load_policy(config, tiny_sampling(), parts=LEARNER)
    with pytest.raises(ConfigError, match=r"sampling\.guidance_scale_2 must be null for this"):
        load_policy(tiny_policy(one), tiny_sampling(guidance_scale_2=2.0), parts=LEARNER)


def test_the_published_model_has_two_transformers_of_14_billion_parameters() -> None:
    """Sizes of `Wan2.2-T2V-A14B` in diffusers' `convert_wan_to_diffusers.py`."""
    with torch.device("meta"):
        model = WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=40,
            attention_head_dim=128,
            in_channels=16,
            out_channels=16,
            text_dim=4096,
            freq_dim=256,
            ffn_dim=13824,
            num_layers=40,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            eps=1e-6,
        )
    assert sum(parameter.numel() for parameter in model.parameters()) == 14_288_491_584
