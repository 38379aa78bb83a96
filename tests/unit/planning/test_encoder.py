"""Text encoders of any kind: their weights, and their work on a prompt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import CLIPTextModel, CLIPVisionModel, LlamaModel, T5EncoderModel

from videorl.planning.encoder import count_encoder
from videorl.planning.memory import PolicyCounts
from videorl.planning.models import Configs
from videorl.policies.plain_family import PlainFamily
from videorl.recipes.reading import load_recipe

SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "text_encoder": {**SIZES, "num_hidden_layers": 5, "vocab_size": 100},
    "text_encoder_2": {**SIZES, "num_hidden_layers": 4, "max_position_embeddings": 12},
    "text_encoder_3": {"d_model": 32, "d_ff": 64, "num_heads": 2, "d_kv": 16, "num_layers": 3},
    "image_encoder": {**SIZES, "num_hidden_layers": 3, "image_size": 28, "patch_size": 14},
}


class Many(PlainFamily):
    """A family that reads a prompt with LLaMA, CLIP and T5, and a picture."""

    model_classes = {  # noqa: RUF012
        "text_encoder": LlamaModel,
        "text_encoder_2": CLIPTextModel,
        "text_encoder_3": T5EncoderModel,
        "image_encoder": CLIPVisionModel,
    }


def counts(**configs: dict[str, Any]) -> PolicyCounts:
    recipe = load_recipe("moving_shapes", ["sampling.max_sequence_length=40"])
    recipe.policy.family = f"{__name__}:Many"
    index = {name: ["transformers", "AnyModel"] for name in configs}
    return PolicyCounts(recipe, Configs("here", index, {}, configs, {}))


def test_all_encoders_are_counted_whatever_they_call_their_layers() -> None:
    made = counts(**CONFIGS)
    found = count_encoder(made)
    numbers = {
        name: sum(each.numel() for each in kind(kind.config_class(**CONFIGS[name])).parameters())
        for name, kind in Many.model_classes.items()
    }
    assert found.numbers == numbers
    # As pipelines hold it, what encodes pictures is in float32.
    wide = numbers["image_encoder"] * (4 - made.dtype.itemsize)
    assert found.memory.weights == made.dtype.itemsize * sum(numbers.values()) + wide
    first, *others = CONFIGS
    alone = count_encoder(counts(**{first: CONFIGS[first]})).prompt.flops
    pairs = [count_encoder(counts(**{key: CONFIGS[key] for key in (first, n)})) for n in others]
    assert found.prompt.flops == alone + sum(each.prompt.flops - alone for each in pairs)
    assert found.memory.activations == max(each.memory.activations for each in pairs)


def test_few_layers_give_the_work_of_all() -> None:
    """Of LLaMA: four products of width by width and three with the inner width, and attention."""
    deep = count_encoder(counts(text_encoder=CONFIGS["text_encoder"])).prompt.flops
    per_layer = 2 * 40 * (4 * 32 * 32 + 3 * 32 * 64)
    attention = 4 * 40 * 40 * 32
    assert deep == pytest.approx(5 * (per_layer + attention), rel=0.01)


def test_an_encoder_runs_on_no_more_tokens_than_it_has_positions() -> None:
    sampling: Any = SimpleNamespace(max_sequence_length=40)
    family = PlainFamily()
    assert family.encoder_tokens("text_encoder_2", CONFIGS["text_encoder_2"], sampling) == 12
    assert family.encoder_tokens("text_encoder_3", CONFIGS["text_encoder_3"], sampling) == 40
