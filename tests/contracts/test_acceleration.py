"""What makes sampling faster changes nothing but time, or by how much, for every family."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.families.ltx_video import save_tiny_ltx_video
from tests.families.mochi import save_tiny_mochi
from tests.learners import tiny_learner, tiny_pairs, tiny_recipe
from tests.tiny import save_tiny_cogvideox, tiny_policy, tiny_sampling
from videorl.embedding import Embedding, plain
from videorl.errors import ConfigError, WeightMismatchError
from videorl.one_process import CompilingSink
from videorl.policies import acceleration, compiling, load_family, load_policy, loading
from videorl.policies.merged import LARGEST_LOSS, MergedAdapter
from videorl.pretraining.checkpoint import build_components, save_checkpoint
from videorl.sampling.canary import difference
from videorl.sampling.local import LocalGenerator
from videorl.sampling.sampler import CandidateSampler
from videorl.types import Prompt, SampleRequest, WeightVersion
from videorl.weights import digest

STEPS = 3
"""Of `tiny_sampling`."""
_DRAW = torch.Generator().manual_seed(0)
RED, BLUE, NEGATIVE = (plain(one) for one in torch.randn(3, 16, 16, generator=_DRAW))
"""As of the tiny text encoders of both families."""
DYNAMO: Any = importlib.import_module("torch._dynamo")
LEARNER = frozenset({"transformer"})
TIMES = torch.tensor([0.1, 0.8])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Transformers of three blocks, as a cache needs more than one."""
    root = tmp_path_factory.mktemp("deep")
    wan = build_components(0, width=32, layers=3, vae_width=16, text_width=16)
    save_checkpoint(wan, root / "wan", torch.float32)
    return {
        "wan": root / "wan",
        "cogvideox": save_tiny_cogvideox(root / "cogvideox", num_layers=3),
        "ltx_video": save_tiny_ltx_video(root / "ltx_video", num_layers=3),
        "mochi": save_tiny_mochi(root / "mochi", num_layers=3),
    }


@pytest.fixture(params=["cogvideox", "ltx_video", "mochi", "wan"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def load(family: str, checkpoints: dict[str, Path]) -> Callable[..., Any]:
    def load(dtype: str = "float32", *, trainable: bool = False, **given: Any) -> Any:
        rank = given.pop("rank", 4)
        config = tiny_policy(checkpoints[family], family, rank=rank)
        config.dtype = dtype
        for name in {"attention_backend", "compile"} & given.keys():
            setattr(config, name, given.pop(name))
        parts = given.pop("parts", LEARNER)
        return load_policy(
            config, tiny_sampling(family, **given), parts=parts, seed=3, trainable=trainable
        )

    return load


def weights(policy: Any, size: float = 0.25, seed: int = 1) -> dict[str, Tensor]:
    """Return weights with an effect, where a new adapter has none."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (one + size * torch.randn(one.shape, generator=generator)).to(one.dtype)
        for name, one in policy.weights().items()
    }


def sample(policy: Any, embeds: Embedding = RED) -> Tensor:
    return policy.sample(embeds, NEGATIVE, [1, 2])


def calls(policy: Any, block: int, work: Callable[[], object], within: str = "") -> int:
    """Return how often a block computes; with a step cache its attention tells."""
    found = list[int]()
    module = policy.blocks()[block].attn1.get_submodule(within)
    with module.register_forward_hook(lambda *_: found.append(1)):
        work()
    return len(found)


def test_guidance_in_one_batch_halves_the_calls_and_keeps_the_sample(
    family: str, load: Callable[..., Any]
) -> None:
    stock, batched = load(), load(guidance_in_one_batch=True)
    expected = sample(stock)
    found = list[Tensor]()
    assert calls(batched, 0, lambda: found.append(sample(batched))) == STEPS
    is_split = not load_family(family).guides_in_one_call  # pyright: ignore
    assert calls(stock, 0, lambda: sample(stock)) == (2 * STEPS if is_split else STEPS)
    assert difference(found[0], expected) < 1e-5
    assert torch.equal(
        load(guidance_scale=1.0, guidance_in_one_batch=True).sample(RED, NEGATIVE, [1]),
        load(guidance_scale=1.0).sample(RED, None, [1]),
    ), "without guidance there is nothing to put together"


def test_a_family_that_does_not_say_how_it_guides_is_refused(
    family: str, load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(type(load_family(family)), "guides_in_one_call")
    with pytest.raises(ConfigError, match="guidance_in_one_batch must be false for"):
        load(guidance_in_one_batch=True)


def test_a_merged_adapter_is_the_version_that_was_proven_and_leaves_no_trace(
    load: Callable[..., Any],
) -> None:
    stock, merged = load(), load(merge_lora=True)
    base = {n: one.clone() for n, one in merged.trainable_module().state_dict().items()}
    sampler = CandidateSampler(merged)
    for step, size in enumerate((0.25, 0.5)):
        published = weights(stock, size, seed=step)
        version = WeightVersion(step, digest(published))
        sampler.load(version, published)
        request = SampleRequest(0, Prompt(0, "red"), (1, 2), version)
        found = sampler.latents(request, RED, NEGATIVE)
        assert digest(merged.weights()) == version.digest, "the adapter itself is untouched"
        assert _merged(merged).is_merged
        stock.load_weights(published)
        assert difference(found, sample(stock)) < 1e-5
        inputs = (found, TIMES, [RED] * 2)
        for role in ("policy", "base"):
            assert torch.equal(merged.predict(*inputs, role), stock.predict(*inputs, role))
    merged.load_weights({name: base[_live(name)] for name in merged.weights()})
    after = merged.trainable_module().state_dict()
    assert all(torch.equal(one, base[name]) for name, one in after.items())


def test_a_base_that_does_not_come_back_is_refused(load: Callable[..., Any]) -> None:
    policy = load(merge_lora=True)
    policy.load_weights(weights(policy))
    sample(policy)
    next(iter(_merged(policy)._base.values()))[0, 0] += 1  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(WeightMismatchError, match=r"after its adapter was taken out"):
        policy.load_weights(weights(policy))


def test_rounding_may_not_eat_an_adapter(
    load: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """In bfloat16 a small one would vanish; a large one differs by what the canary allows."""
    stock, merged = load("bfloat16"), load("bfloat16", merge_lora=True)
    small = weights(stock, 0.001)
    for policy in (stock, merged):
        policy.load_weights(small)
    assert torch.equal(sample(merged), sample(stock))
    assert not _merged(merged).is_merged and _merged(merged).loss > LARGEST_LOSS
    assert "of its effect to rounding" in caplog.text
    large = weights(stock, 0.1)
    for policy in (stock, merged):
        policy.load_weights(large)
    assert difference(sample(merged), sample(stock)) < 0.02
    assert _merged(merged).is_merged and 0 < _merged(merged).loss < LARGEST_LOSS


def test_where_weights_are_trained_nothing_is_merged(load: Callable[..., Any]) -> None:
    policy = load(trainable=True, merge_lora=True)
    sample(policy)
    assert policy._fast._merged is None


def test_a_step_cache_skips_blocks_and_starts_empty_for_every_request(
    load: Callable[..., Any],
) -> None:
    stock = load()
    policy = load(step_cache="first_block", step_cache_threshold=10.0)
    cached = load(step_cache="first_block", step_cache_threshold=10.0)
    assert calls(stock, 2, lambda: sample(stock)) > calls(cached, 2, lambda: sample(cached)) > 0
    sample(policy, BLUE)
    assert torch.equal(sample(policy), sample(cached)), "of the request before nothing is left"
    exact = load(step_cache="first_block", step_cache_threshold=1e-9)
    assert difference(sample(exact), sample(stock)) < 1e-5
    inputs = (sample(stock), TIMES, [RED] * 2, "policy")
    assert torch.equal(policy.predict(*inputs), stock.predict(*inputs)), "only sampling is cached"


def test_a_step_cache_without_hooks_or_blocks_to_skip_is_refused(
    family: str,
    load: Callable[..., Any],
    tiny_checkpoints: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampling = tiny_sampling(family, step_cache="first_block")
    config = tiny_policy(tiny_checkpoints[family], family)
    with pytest.raises(ConfigError, match="transformer of one block"):
        load_policy(config, sampling, parts=LEARNER)
    with pytest.raises(ConfigError, match=r"step_cache must be none with policy\.compile"):
        load(step_cache="first_block", compile="eager")
    monkeypatch.setattr(acceleration, "_is_known", lambda *_: False)
    with pytest.raises(ConfigError, match="cannot put its cache of steps into a"):
        load(step_cache="first_block")
    monkeypatch.setattr("diffusers.hooks.taylorseer_cache._PROJ_OUT_IDENTIFIERS", ("other",))
    with pytest.raises(ConfigError, match="cannot put its cache of steps into a"):
        load(step_cache="taylorseer")


def test_steps_that_are_extrapolated_cost_nothing_and_leave_nothing_behind(
    load: Callable[..., Any],
) -> None:
    stock, seer, fresh = (
        load(num_inference_steps=7, step_cache=name)
        for name in ("none", "taylorseer", "taylorseer")
    )
    # The first three, and then every second: step 3 and 5 are extrapolated.
    found = [
        calls(policy, 2, lambda policy=policy: sample(policy), within="to_q")
        for policy in (stock, seer)
    ]
    assert found[1] == found[0] * 5 / 7
    expected = sample(stock)
    assert 0 < difference(sample(seer), expected) < 0.5
    sample(seer, BLUE)
    assert torch.equal(sample(seer), sample(fresh)), "of the request before nothing is left"
    inputs = (expected, TIMES, [RED] * 2, "policy")
    assert torch.equal(seer.predict(*inputs), stock.predict(*inputs)), "only sampling is cached"


def test_an_attention_backend_is_chosen_where_diffusers_dispatches(
    family: str, load: Callable[..., Any]
) -> None:
    dispatch: Any = importlib.import_module("diffusers.models.attention_dispatch")
    before = dispatch._AttentionBackendRegistry._active_backend
    if family in ("cogvideox", "mochi"):
        with pytest.raises(ConfigError, match="(?i)must be auto for a " + family):
            load(attention_backend="_native_math")
        return
    chosen = load(attention_backend="_native_math")
    assert 0 < difference(sample(chosen), sample(load())) < 1e-5
    assert dispatch._AttentionBackendRegistry._active_backend == before, "others keep theirs"


@pytest.mark.parametrize(
    "name, message",
    [
        ("no_such", r"must be auto or a back end of diffusers \(flash, .*got 'no_such'"),
        ("xformers", r"cannot compute on cpu .*of what is installed there is .*native"),
    ],
)
def test_a_missing_backend_is_refused_before_weights_are_read(
    load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr(loading, "read_parts", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(ConfigError, match=message):
        load(attention_backend=name)
    with pytest.raises(ConfigError, match=r"policy\.compile must be none or"):
        load(compile="no_such")
    with pytest.raises(ConfigError, match=r"merge_lora must be false where"):
        load(merge_lora=True, rank=0)


def test_blocks_are_compiled_once_for_all_versions(load: Callable[..., Any]) -> None:
    """`eager` traces as any compiler's front end does, and leaves the kernels alone."""
    torch.compiler.reset()
    graphs: Any = importlib.import_module("torch._dynamo.utils").counters["stats"]
    graphs.clear()
    stock, compiled, before = load(), load(compile="eager"), compiling.num_failures()
    sample(compiled)
    first = graphs["unique_graphs"]
    assert 1 <= first < len(compiled.blocks()), "blocks share them"
    published = weights(stock)
    for policy in (stock, compiled):
        policy.load_weights(published)
    assert difference(sample(compiled), sample(stock)) < 1e-5
    assert graphs["unique_graphs"] == first, "weights are no part of them"
    assert compiling.num_failures() == before


@pytest.mark.long
@pytest.mark.skipif(not which("g++"), reason="inductor compiles C++ here")
@pytest.mark.parametrize("family", ["wan", "cogvideox"], indirect=True)
def test_inductor_changes_samples_loss_and_gradient_by_rounding_and_outlives_weight_loads(
    load: Callable[..., Any],
) -> None:
    torch.compiler.reset()
    stats: Any = importlib.import_module("torch._dynamo.utils").counters
    stats.clear()
    before = compiling.num_failures()
    stock, compiled = (load(compile=name, trainable=True) for name in ("none", "inductor"))
    for policy in (stock, compiled):
        policy.trainable_module().enable_gradient_checkpointing()
    versions = [weights(stock, seed=step) for step in range(2)]
    graphs: list[int] = []
    for published in versions:
        outputs: list[list[Tensor]] = []
        for policy in (stock, compiled):
            policy.load_weights(published)
            policy.trainable_module().zero_grad()
            x_t = sample(policy)
            predicted = policy.predict(sample(stock), TIMES, [RED, BLUE], "policy")
            predicted.square().mean().backward()
            trained = policy.trainable_module().parameters()
            gradients = [one.grad.flatten() for one in trained if one.grad is not None]
            outputs.append([x_t, predicted.detach(), torch.cat(gradients)])
        for found, wanted in zip(outputs[1], outputs[0], strict=True):
            assert difference(found, wanted) < 1e-5
        graphs.append(stats["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] > 0, "of the second version nothing was compiled"
    assert stats["inductor"], "it is inductor that compiled"
    assert compiling.num_failures() == before


def test_without_a_c_compiler_inductor_gives_up_loudly(
    load: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings: Any = importlib.import_module("torch._inductor.config")
    monkeypatch.setattr(compiling, "_failures", [])
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # what was compiled before is not
    torch.compiler.reset()
    policy = load(compile="inductor")
    with settings.patch({"cpp.cxx": (None, "no_such_compiler"), "fx_graph_cache": False}):
        found = sample(policy)
    assert torch.equal(found, sample(load()))
    assert compiling.num_failures(policy.networks()) == 1
    assert "policy.compile=inductor failed, so this" in caplog.text


def test_blocks_that_do_not_compile_run_as_they_are_and_are_counted(
    load: Callable[..., Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiling, "_failures", [])
    torch.compiler.reset()
    policy = load(compile="eager")
    policy.blocks()[0].norm1.register_forward_hook(lambda *_: DYNAMO.graph_break())
    assert torch.equal(sample(policy), sample(load()))
    assert compiling.num_failures() == 1, "for all blocks"
    assert "policy.compile=eager failed" in caplog.text
    learner, learned = tiny_learner(tiny_recipe(), tmp_path)
    learner.start()
    assert "learn/uncompiled" not in learner.step(0, tiny_pairs(0)).metrics, "of another policy"
    learned.networks = lambda: [learned.module, *policy.networks()]
    assert learner.step(1, tiny_pairs(1)).metrics["learn/uncompiled"] == 1


def test_a_generator_in_this_process_counts_what_it_samples_uncompiled(
    load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "_failures", [])
    torch.compiler.reset()
    policy = load(compile="eager", parts=frozenset({"transformer", "vae", "text_encoder"}))
    other = load(compile="eager")
    published = weights(policy)
    generator = LocalGenerator(policy, "", lambda _: published)
    rows: list[dict[str, float]] = []
    sink = CompilingSink(_Rows(rows), generator)
    request = SampleRequest(0, Prompt(0, "red"), (1,), WeightVersion(0, digest(published)))
    other.blocks()[0].norm1.register_forward_hook(lambda *_: DYNAMO.graph_break())
    sample(other)
    generator.submit(request).result()
    sink.write(0, {"a": 1.0})
    policy.blocks()[0].norm1.register_forward_hook(lambda *_: DYNAMO.graph_break())
    torch.compiler.reset()
    for step in (1, 2):
        generator.submit(request).result()
        sink.write(step, {"a": 1.0})
    assert rows == [{"a": 1.0}, *({"a": 1.0, "generator/uncompiled": float(n)} for n in (1, 2))]


class _Rows:
    def __init__(self, rows: list[dict[str, float]]) -> None:
        self._rows = rows

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._rows.append(dict(metrics))


def test_a_backward_pass_that_does_not_compile_costs_no_step(
    load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiling, "_failures", [])
    torch.compiler.reset()
    common, registry = (
        importlib.import_module(f"torch._dynamo.backends.{name}") for name in ("common", "registry")
    )

    def no_backward(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no kernel for this gradient")

    backend = common.aot_autograd(fw_compiler=lambda graph, _: graph, bw_compiler=no_backward)
    backend._tags = ()
    monkeypatch.setitem(registry._COMPILER_FNS, "no_backward", backend)
    monkeypatch.setitem(registry._BACKENDS, "no_backward", None)
    plain_policy, policy = (
        load(compile=name, trainable=True, parts=LEARNER) for name in ("none", "no_backward")
    )
    gradients: list[list[Tensor]] = []
    for each in (plain_policy, policy):
        loss = each.predict(sample(plain_policy), TIMES, [RED, BLUE], "policy").square().mean()
        loss.backward()
        trained = each.trainable_module().parameters()
        gradients.append([one.grad for one in trained if one.grad is not None])
    assert gradients[0]
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted)
    assert compiling.num_failures(policy.networks()) == 1
    assert "no kernel for this gradient" in caplog.text


def test_blocks_that_would_be_compiled_again_and_again_run_as_they_are(
    load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "_failures", [])
    torch.compiler.reset()
    policy, plain = load(compile="eager"), load()
    with DYNAMO.config.patch(recompile_limit=1):
        for seeds in ([1], [1, 2], [1, 2, 3]):
            found, wanted = (each.sample(RED, NEGATIVE, seeds) for each in (policy, plain))
            assert difference(found, wanted) < 1e-5
    assert compiling.num_failures() == 1


@pytest.mark.parametrize(
    "setting, size, expected", [("auto", 1024, False), ("auto", 1040, True), (True, 16, True)]
)
def test_large_frames_are_decoded_in_tiles(
    load: Callable[..., Any], setting: object, size: int, expected: bool
) -> None:
    parts = frozenset({"vae"})
    policy = load(parts=parts, vae_tiling=setting, height=size, width=size)
    assert policy._pipeline.vae.use_tiling is expected


def test_channels_last_change_the_pixels_by_rounding(load: Callable[..., Any]) -> None:
    both = frozenset({"transformer", "vae"})
    plain, laid_out = load(parts=both), load(parts=both, vae_channels_last=True)
    latents = sample(plain)
    assert difference(laid_out.pixels(latents), plain.pixels(latents)) < 1e-5
    lasts = [
        one.is_contiguous(memory_format=torch.channels_last_3d)
        for one in laid_out._pipeline.vae.parameters()
        if one.dim() == 5
    ]
    assert lasts and all(lasts)


def _merged(policy: Any) -> MergedAdapter:
    return policy._fast._merged


def _live(name: str) -> str:
    """Return the name in the model of a published tensor."""
    return name.replace(".weight", ".policy.weight")
