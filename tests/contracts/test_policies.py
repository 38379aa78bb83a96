"""What every policy family must do; a new family is covered by its lines in `tests.tiny`.

Everything runs for low-rank adapters and for full fine-tuning, on a tiny genuine checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tiny import TINY, encode, tiny_policy, tiny_sampling
from videorl.embedding import Embedding
from videorl.errors import CheckpointError, ConfigError, PromptError, WeightMismatchError
from videorl.learning.stored_pairs import probe_sampling
from videorl.policies import FAMILIES, load_family, load_policy
from videorl.policies.checkpoints import PARTS
from videorl.protocols import Policy
from videorl.recipes.reading import load_recipe
from videorl.settings.model import LoraConfig, PolicyConfig
from videorl.weights import digest

SAMPLER = frozenset({"transformer", "vae"})
LEARNER = frozenset({"transformer"})
Load: TypeAlias = Callable[..., Policy]


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[4, 0], ids=["lora", "full"])
def load(request: pytest.FixtureRequest, family: str, tiny_checkpoints: dict[str, Path]) -> Load:
    def load(
        parts: frozenset[str] = PARTS,
        *,
        trainable: bool = False,
        dtype: str = "float32",
        seed: int = 0,
        keep_base: bool = False,
        **sampling: object,
    ) -> Policy:
        config = tiny_policy(tiny_checkpoints[family], family, rank=request.param)
        config.dtype = dtype
        settings = tiny_sampling(family, **sampling)
        return load_policy(
            config,
            settings,
            parts=parts,
            seed=seed,
            trainable=trainable,
            keep_base=keep_base,
        )

    return load


def embed(policy: Policy) -> tuple[Embedding, Embedding]:
    prompt, negative = encode(policy, ["a red circle moves left", ""])
    return prompt, negative


def noisy_input(policy: Policy) -> tuple[Tensor, Tensor, list[Embedding]]:
    prompt, negative = embed(policy)
    x_t_BCTHW = policy.sample(prompt, negative, [5, 6])
    return x_t_BCTHW, torch.tensor([0.1, 0.8]), [prompt, negative]


def train_a_little(policy: Policy) -> None:
    """One plain gradient step on every trained tensor, twice, so that LoRA's A moves too."""
    parameters = [one for one in policy.trainable_module().parameters() if one.requires_grad]
    inputs = noisy_input(policy)
    for _ in range(2):
        policy.predict(*inputs, "policy").square().sum().backward()
        for parameter in parameters:
            if parameter.grad is None:  # unread, see `test_only_the_policy_gets_gradients`
                continue
            parameter.data -= 0.05 * parameter.grad / (parameter.grad.norm() + 1e-12)
            parameter.grad = None


def test_every_family_has_a_tiny_checkpoint() -> None:
    assert TINY.keys() == FAMILIES.keys()


def test_equal_seeds_give_equal_latents_in_any_process(load: Load) -> None:
    local, generator = load(), load(SAMPLER)
    prompt, negative = embed(local)
    latents = local.sample(prompt, negative, [3, 9])
    assert latents.dtype == torch.float32
    assert torch.equal(latents, generator.sample(prompt, negative, [3, 9]))
    assert not torch.allclose(latents[0], latents[1])


def test_a_candidate_does_not_depend_on_its_batch_mates(load: Load) -> None:
    policy = load()
    prompt, negative = embed(policy)
    together = policy.sample(prompt, negative, [1, 2, 3])
    alone = policy.sample(prompt, negative, [3])
    in_batches = load(SAMPLER, batch_size=2).sample(prompt, negative, [1, 2, 3])
    torch.testing.assert_close(alone[0], together[2], atol=1e-5, rtol=0)
    torch.testing.assert_close(in_batches, together, atol=1e-5, rtol=0)


def test_without_guidance_no_negative_embedding_is_read(load: Load) -> None:
    policy = load(guidance_scale=1.0)
    prompt, negative = embed(policy)
    assert torch.equal(policy.sample(prompt, None, [1]), policy.sample(prompt, negative, [1]))
    with pytest.raises(ConfigError, match="guidance_scale"):
        load().sample(prompt, None, [1])


def test_decoded_videos_have_the_size_and_rate_of_the_recipe(load: Load, family: str) -> None:
    wanted = tiny_sampling(family)
    size = (wanted.num_frames, wanted.height, wanted.width, 3)
    policy = load()
    latents = policy.sample(*embed(policy), [1, 2])
    videos = policy.decode(latents)
    assert [video.frames.shape for video in videos] == [size] * 2
    assert {(video.frames.dtype, video.fps) for video in videos} == {(np.dtype(np.uint8), 8.0)}
    assert np.array_equal(videos[1].frames, policy.decode(latents)[1].frames)


def test_embeddings_do_not_depend_on_their_neighbours(load: Load) -> None:
    policy = load(frozenset({"text_encoder"}))
    _, beside = encode(policy, ["a red circle moves left", "red"])
    (alone,) = encode(policy, ["red"])
    assert alone.tensors.keys() == beside.tensors.keys()
    assert all(torch.equal(tensor, beside[name]) for name, tensor in alone.tensors.items())


def test_a_prompt_too_long_is_named_with_its_length_and_the_limit(family: str, load: Load) -> None:
    limit = 4 + TINY[family].end_tokens
    policy = load(frozenset({"text_encoder"}), max_sequence_length=limit)
    assert encode(policy, ["red circle moves left"])[0].num_tokens == limit
    said = rf"has {limit + 1} tokens.* is {limit}"
    with pytest.raises(PromptError, match=rf"'a red circle moves left' {said}"):
        encode(policy, ["red", "a red circle moves left"])
    negative = "a red circle moves left"
    with pytest.raises(ConfigError, match=rf"sampling\.negative_prompt.* {said}"):
        load(frozenset({"text_encoder"}), max_sequence_length=limit, negative_prompt=negative)


def test_policy_and_reference_start_equal_and_part_until_updated(load: Load) -> None:
    policy = load(trainable=True)
    inputs = noisy_input(policy)
    before = policy.predict(*inputs, "reference")
    assert torch.equal(policy.predict(*inputs, "policy"), before)
    train_a_little(policy)
    assert torch.equal(policy.predict(*inputs, "reference"), before)
    moved = policy.predict(*inputs, "policy").detach()
    assert not torch.allclose(moved, before, atol=1e-4)
    policy.update_reference()
    assert torch.equal(policy.predict(*inputs, "reference"), moved)
    train_a_little(policy)
    assert torch.equal(policy.predict(*inputs, "reference"), moved)


@pytest.mark.parametrize("order", [("policy", "reference"), ("reference", "policy")])
def test_only_the_policy_gets_gradients(family: str, load: Load, order: tuple) -> None:
    policy = load(trainable=True)
    inputs = noisy_input(policy)
    predictions = {role: policy.predict(*inputs, role) for role in order}
    assert not predictions["reference"].requires_grad
    (predictions["policy"] - predictions["reference"] - 1).square().mean().backward()
    module = policy.trainable_module()
    trained = {name for name, one in module.named_parameters() if one.requires_grad}
    assert len(trained) == len(policy.weights())
    read = {name for name in trained if not any(part in name for part in TINY[family].unread)}
    assert {name for name, one in module.named_parameters() if one.grad is not None} == read


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_base_never_moves(load: Load, dtype: str) -> None:
    policy = load(trainable=True, keep_base=True, dtype=dtype)
    inputs = noisy_input(policy)
    base = policy.predict(*inputs, "base")
    assert not base.requires_grad
    assert torch.equal(policy.predict(*inputs, "policy"), base), "nothing is trained yet"
    train_a_little(policy)  # also tells that gradients reach the policy afterwards
    assert torch.equal(policy.predict(*inputs, "base"), base)
    assert not torch.equal(policy.predict(*inputs, "policy"), base)
    policy.update_reference()
    assert torch.equal(policy.predict(*inputs, "base"), base)
    assert not torch.equal(policy.predict(*inputs, "reference"), base)
    train_a_little(policy)
    with pytest.raises(ConfigError, match="the base is frozen"):
        policy.load_weights(policy.weights(), "base")


def test_a_base_that_was_not_kept_says_how_to_keep_it(
    family: str, tiny_checkpoints: dict[str, Path]
) -> None:
    config = tiny_policy(tiny_checkpoints[family], family, rank=0)
    policy = load_policy(config, tiny_sampling(family), parts=PARTS, trainable=True)
    with pytest.raises(ConfigError, match="has no base: load it with keep_base=True"):
        policy.predict(*noisy_input(policy), "base")


def test_a_sampler_holds_no_gradients_and_no_reference(load: Load) -> None:
    policy = load()
    inputs = noisy_input(policy)
    assert not policy.predict(*inputs, "policy").requires_grad
    for call in (
        policy.update_reference,
        policy.reference_weights,
        lambda: policy.predict(*inputs, "reference"),
    ):
        with pytest.raises(ConfigError, match="trainable=True"):
            call()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_published_weights_arrive_bit_for_bit(load: Load, dtype: str) -> None:
    learner, generator = load(trainable=True, dtype=dtype), load(SAMPLER, dtype=dtype)
    assert digest(generator.weights()) == digest(learner.weights())
    train_a_little(learner)
    published = learner.weights()
    assert digest(published) != digest(generator.weights())
    generator.load_weights(published)
    assert digest(generator.weights()) == digest(published)
    inputs = noisy_input(learner)
    assert torch.equal(generator.predict(*inputs, "policy"), learner.predict(*inputs, "policy"))


def test_roles_round_alike_in_mixed_precision(load: Load) -> None:
    policy = load(trainable=True, dtype="bfloat16")
    assert {one.dtype for one in policy.trainable_module().parameters() if one.requires_grad} == {
        torch.float32
    }
    inputs = noisy_input(policy)
    assert torch.equal(policy.predict(*inputs, "policy"), policy.predict(*inputs, "reference"))
    train_a_little(policy)
    policy.update_reference()
    assert torch.equal(policy.predict(*inputs, "policy"), policy.predict(*inputs, "reference"))


def test_published_weights_are_copies(load: Load) -> None:
    policy = load(trainable=True)
    published, reference = policy.weights(), policy.reference_weights()
    before = digest(published)
    assert digest(reference) == before
    train_a_little(policy)
    policy.update_reference()
    assert digest(published) == digest(reference) == before


def test_a_reference_is_restored(load: Load) -> None:
    policy = load(trainable=True)
    inputs = noisy_input(policy)
    train_a_little(policy)
    policy.update_reference()
    expected = policy.predict(*inputs, "reference")
    restored = load(trainable=True)
    restored.load_weights(policy.reference_weights(), "reference")
    assert torch.equal(restored.predict(*inputs, "reference"), expected)
    assert digest(restored.weights()) != digest(restored.reference_weights())


def test_weights_of_another_model_are_refused_and_nothing_changes(load: Load) -> None:
    policy = load(SAMPLER)
    before = policy.weights()
    first, *others = sorted(before)
    with pytest.raises(WeightMismatchError, match=first):
        policy.load_weights({name: before[name] for name in others})
    with pytest.raises(WeightMismatchError, match=r"\(1, 2\) instead of"):
        policy.load_weights(
            {name: one + 1 for name, one in before.items()} | {first: torch.zeros(1, 2)}
        )
    assert digest(policy.weights()) == digest(before)


def test_a_missing_part_is_named(load: Load) -> None:
    encoder, learner = load(frozenset({"text_encoder"})), load(LEARNER, trainable=True)
    with pytest.raises(ConfigError, match="transformer"):
        encoder.weights()
    with pytest.raises(ConfigError, match="text_encoder"):
        learner.encode(["red"])
    with pytest.raises(ConfigError, match="vae"):
        learner.decode(torch.zeros(1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradient_checkpointing_changes_no_gradient(
    family: str, tiny_checkpoints: dict[str, Path], dtype: str
) -> None:
    gradients = []
    for checkpointing in (False, True):
        config = tiny_policy(tiny_checkpoints[family], family)
        config.dtype, config.gradient_checkpointing = dtype, checkpointing
        policy = load_policy(config, tiny_sampling(family), parts=PARTS, trainable=True)
        policy.predict(*noisy_input(policy), "policy").square().sum().backward()
        gradients.append([one.grad for one in policy.trainable_module().parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert (plain is None) == (checkpointed is None)
        assert plain is None or torch.equal(plain, checkpointed)
    assert sum(plain is not None and plain.any().item() for plain in gradients[0]) > 1


def test_only_large_models_recompute_activations_unless_told(
    family: str, tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_policy(tiny_checkpoints[family], family)

    def recomputes(*, trainable: bool = True) -> bool:
        policy = load_policy(config, tiny_sampling(family), parts=LEARNER, trainable=trainable)
        return bool(policy.trainable_module().is_gradient_checkpointing)

    assert not recomputes()
    size = sum(parameter.numel() for parameter in load_base(config).parameters())
    size //= len(TINY[family].transformers)  # each of two is as large
    monkeypatch.setattr(type(load_family(family)), "checkpointed_above", size)
    assert not recomputes()
    monkeypatch.setattr(type(load_family(family)), "checkpointed_above", size - 1)
    assert recomputes()
    assert not recomputes(trainable=False)
    config.gradient_checkpointing = False
    assert not recomputes()


def load_base(config: PolicyConfig) -> torch.nn.Module:
    full = replace(config, lora=LoraConfig(rank=0))
    return load_policy(full, tiny_sampling(config.family), parts=LEARNER).trainable_module()


def test_what_learns_from_stored_pairs_can_be_probed(
    family: str, tiny_checkpoints: dict[str, Path]
) -> None:
    recipe = load_recipe("moving_shapes")
    recipe.policy = tiny_policy(tiny_checkpoints[family], family)
    recipe.sampling = tiny_sampling(family)
    policy = load_policy(recipe.policy, probe_sampling(recipe), parts=PARTS)
    (embedding,) = encode(policy, ["a red circle"])
    assert policy.sample(embedding, None, [0])[0].shape == TINY[family].latents
    whole = load_policy(recipe.policy, recipe.sampling, parts=LEARNER)
    x_t = torch.zeros(1, *TINY[family].latents)
    given = x_t, torch.tensor([0.5]), [embedding]
    assert torch.equal(policy.predict(*given, "policy"), whole.predict(*given, "policy"))


def test_the_adapter_depends_on_the_seed_alone(
    family: str, tiny_checkpoints: dict[str, Path]
) -> None:
    config = tiny_policy(tiny_checkpoints[family], family)
    digests = []
    for seed in (1, 1, 2):
        torch.rand(1)
        policy = load_policy(config, tiny_sampling(family), parts=LEARNER, seed=seed)
        digests.append(digest(policy.weights()))
    assert digests[0] == digests[1] != digests[2]


def test_a_new_adapter_changes_nothing(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    with_adapter, without = (
        load_policy(
            tiny_policy(tiny_checkpoints[family], family, rank=rank),
            tiny_sampling(family),
            parts=PARTS,
        )
        for rank in (4, 0)
    )
    inputs = noisy_input(without)
    assert torch.equal(with_adapter.predict(*inputs, "policy"), without.predict(*inputs, "policy"))


def test_training_goes_on_from_an_exported_adapter(
    family: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    trained = load_policy(
        tiny_policy(tiny_checkpoints[family], family),
        tiny_sampling(family),
        parts=PARTS,
        trainable=True,
    )
    train_a_little(trained)
    trained.export(tmp_path)
    config = tiny_policy(tiny_checkpoints[family], family, initial=str(tmp_path))
    resumed = load_policy(config, tiny_sampling(family), parts=PARTS, trainable=True)
    assert digest(resumed.weights()) == digest(trained.weights())
    inputs = noisy_input(trained)
    expected = trained.predict(*inputs, "policy")
    for role in ("policy", "reference"):
        torch.testing.assert_close(resumed.predict(*inputs, role), expected, atol=1e-6, rtol=0)


def test_an_adapter_that_contradicts_the_recipe_is_refused(
    family: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = tiny_checkpoints[family]
    load_policy(tiny_policy(folder, family), tiny_sampling(family), parts=LEARNER).export(tmp_path)
    config = tiny_policy(folder, family, rank=8, initial=str(tmp_path))
    with pytest.raises(ConfigError, match=r"rank 8 and alpha 16.*rank \[4\] and alpha 8"):
        load_policy(config, tiny_sampling(family), parts=LEARNER)
    config = tiny_policy(folder, family, initial=str(tmp_path))
    config.lora.target_modules = ["to_q"]
    with pytest.raises(ConfigError, match="target_modules"):
        load_policy(config, tiny_sampling(family), parts=LEARNER)
    with pytest.raises(CheckpointError, match=r"policy\.lora\.initial"):
        config.lora.initial = str(tmp_path / "nowhere")
        load_policy(config, tiny_sampling(family), parts=LEARNER)


def test_a_target_that_matches_no_layer_is_refused(
    family: str, tiny_checkpoints: dict[str, Path]
) -> None:
    config = tiny_policy(tiny_checkpoints[family], family)
    config.lora.target_modules = ["to_q", "to_qq"]
    with pytest.raises(ConfigError, match="to_qq matches no layer"):
        load_policy(config, tiny_sampling(family), parts=LEARNER)
